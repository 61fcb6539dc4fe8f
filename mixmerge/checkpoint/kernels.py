"""Loops over parts of tensors, compiled: one pass over memory where NumPy would take one for every operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from ..compiled import compiled, exact

if TYPE_CHECKING:
    from torch import Tensor

Raw = NDArray[Any]
"""What is stored: float32, float64, or uint16 for the bits of bfloat16, which NumPy lacks; float16 comes as float32."""


def raw(tensor: Tensor) -> Raw:
    """The values of a tensor, flat and in place, as the loops take them."""
    import torch

    found = tensor.detach()
    if found.dtype == torch.bfloat16:
        found = found.view(torch.uint16)
    elif found.dtype not in (torch.float32, torch.float64):
        found = found.float()
    return found.numpy().reshape(-1)  # NumPy's views take a third of the time of torch's


def raws(tensors: Sequence[Tensor]) -> tuple[Raw, ...]:
    """Of several, which a loop takes in one dtype only: in float32 where theirs differ."""
    alike = len({tensor.dtype for tensor in tensors}) == 1
    return tuple(raw(tensor if alike else tensor.float()) for tensor in tensors)


def as_float(value: Any) -> float:
    """In compiled code: a stored number as a float, exactly. What is stored as an integer are bfloat16's bits."""
    raise NotImplementedError("for compiled code")


def _as_float(value):  # type: ignore[no-untyped-def]  # numba compares the annotations with the lambdas
    if isinstance(value, types.Integer):
        return lambda value: np.float64(np.uint32(value << 16).view(np.float32))
    return lambda value: np.float64(value)


overload(as_float)(_as_float)


def store(out: Any, place: int, value: Any) -> None:
    """In compiled code: out[place] = the float32 `value`, rounded to bfloat16 where `out` holds its bits: to the
    nearest, ties to even. Infinity stays, and so does NaN as processors make it."""
    raise NotImplementedError("for compiled code")


def _store(out, place, value):  # type: ignore[no-untyped-def]
    if isinstance(out.dtype, types.Integer):

        def rounded(out, place, value):  # type: ignore[no-untyped-def]
            bits = np.float32(value).view(np.uint32)
            half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
            out[place] = np.uint16((bits + half) >> np.uint32(16))

        return rounded

    def plain(out, place, value):  # type: ignore[no-untyped-def]
        out[place] = value

    return plain


overload(store)(_store)


@exact
def difference(base: Raw, model: Raw, out: NDArray[np.float32]) -> None:
    """out = model - base in float32."""
    for i in range(len(base)):
        out[i] = np.float32(as_float(model[i])) - np.float32(as_float(base[i]))


@exact
def all_bits_somewhere(values: NDArray[Any], bits: Any) -> bool:
    """Whether some value has all of the bits set."""
    found = False
    for i in range(len(values)):
        found |= (values[i] & bits) == bits
    return found


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
