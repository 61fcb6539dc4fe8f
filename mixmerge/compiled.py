"""Loops compiled by numba, and the random numbers that come from such a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])

# Sums may be taken in another order, which lets the processor add eight numbers at once; NaN and infinity stay.
_ADDS = {"reassoc", "nsz", "contract"}


def compiled(function: Function) -> Function:
    """`numba.njit` without the interpreter's lock, kept on disk where there is a place for it. For sums."""
    return _compiled(function, fastmath=_ADDS)


def exact(function: Function) -> Function:
    """As `compiled`, computing as it is written, to the last bit and on every machine. For all that is no sum."""
    return _compiled(function, fastmath=False)


def _compiled(function: Function, **options: Any) -> Function:
    options |= {"nogil": True, "error_model": "numpy"}  # a division that may raise keeps a loop from being unrolled
    try:
        made: Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        made = numba.njit(**options)(function)
    return made


def draws(key: bytes, first: int, count: int) -> NDArray[np.uint16]:
    """Numbers `first` to `first + count` of the stream that 16 bytes name: (count,), 0 to 65535, all equally likely.

    Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): one step of its counter is
    eight numbers. The first eight bytes are its key, the others the upper half of its counter.
    """
    words = np.frombuffer(key, dtype="<u4").astype(np.uint64)
    begin = first // 8
    found = np.empty(4 * (-(-(first + count) // 8) - begin), dtype="<u4")
    philox(words[:2], words[2:], begin, found)
    skip = first - 8 * begin
    return found.view("<u2")[skip : skip + count].astype(np.uint16, copy=False)


@exact
def philox(key: NDArray[np.uint64], upper: NDArray[np.uint64], first: int, out: NDArray[np.uint32]) -> None:
    """out = four words for each step of the counter from `first` on; `key` and `upper`: two words of 32 bits each."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    factor, other_factor = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
    weyl, other_weyl = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
    for block in range(len(out) // 4):
        counter = np.uint64(first + block)
        a, b, c, d = counter & low, counter >> half, upper[0], upper[1]
        one, other = key[0], key[1]
        for _ in range(10):
            product, other_product = a * factor, c * other_factor
            a, b, c, d = (
                (other_product >> half) ^ b ^ one,
                other_product & low,
                (product >> half) ^ d ^ other,
                product & low,
            )
            one, other = (one + weyl) & low, (other + other_weyl) & low
        out[4 * block], out[4 * block + 1], out[4 * block + 2], out[4 * block + 3] = a, b, c, d
