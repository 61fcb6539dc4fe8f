"""Loops over parts of tensors, compiled: one pass over memory where NumPy would take one for every operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])
Raw = NDArray[Any]
"""What is stored: float32, float64, or uint16 for the bits of bfloat16, which NumPy lacks; float16 comes as float32."""

# Sums may be taken in another order, which lets the processor add eight numbers at once; NaN and infinity stay.
_ADDS = {"reassoc", "nsz", "contract"}


def compiled(function: Function) -> Function:
    """`numba.njit` without the interpreter's lock, kept on disk where there is a place for it."""
    options = {"nogil": True, "fastmath": _ADDS}
    try:
        made: Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        made = numba.njit(**options)(function)
    return made


def as_float(value: Any) -> float:
    """In compiled code: a stored number as a float, exactly. What is stored as an integer are bfloat16's bits."""
    raise NotImplementedError("for compiled code")


def _as_float(value):  # type: ignore[no-untyped-def]  # numba compares the annotations with the lambdas
    if isinstance(value, types.Integer):
        return lambda value: np.float64(np.uint32(value << 16).view(np.float32))
    return lambda value: np.float64(value)


overload(as_float)(_as_float)


@compiled
def subtract(base: Raw, model: Raw, out: NDArray[np.float64]) -> None:
    """out = model - base in float64."""
    for i in range(len(base)):
        out[i] = as_float(model[i]) - as_float(base[i])


@compiled
def summed(base: Raw, model: Raw) -> float:
    """The sum of model - base, in float64."""
    total = 0.0
    for i in range(len(base)):
        total += as_float(model[i]) - as_float(base[i])
    return total


@compiled
def largest(base: Raw, model: Raw) -> float:
    """The largest absolute difference, in float64."""
    # As integers the sizes of floats are in the same order, and a maximum of integers is taken eight at a time.
    found = np.int64(0)
    for i in range(len(base)):
        size = np.float64(abs(as_float(model[i]) - as_float(base[i]))).view(np.int64)
        found = max(found, size)
    return np.int64(found).view(np.float64)
