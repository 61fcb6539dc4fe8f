"""The loops of the built-in mergers, compiled: one pass over memory, where torch and NumPy take one per operation.

Magnitudes are compared as whole numbers: the bits of a float32 without its sign are in the order of its size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixmerge.checkpoint.kernels import Raw, as_float, store
from mixmerge.compiled import compiled, exact

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]

Changes = tuple[Raw, tuple[Raw, ...], Mask, Values]
"""What is left of each expert's change: (models[j] - origin) * factors[j] where masks[j], 0 elsewhere.

(origin, models, masks, factors): (n,), (n,) each, (experts, n), (experts,)."""

_BLOCK = 512  # weights that are added up at a time: all arrays of so many fit the fastest cache
_MAGNITUDE = 0x7FFFFFFF


# ---- thinning -------------------------------------------------------------------------------------------------------


@exact
def count_upper(delta: Values, counts: NDArray[np.int64]) -> None:
    """Add to `counts` (32768,) how many values have each upper half of a magnitude."""
    bits = delta.view(np.uint32)
    for i in range(len(bits)):
        counts[(bits[i] & _MAGNITUDE) >> 16] += 1


@exact
def count_lower(delta: Values, upper: int, counts: NDArray[np.int64]) -> None:
    """Add to `counts` (65536,) how many of the values with this upper half of a magnitude have each lower half."""
    bits = delta.view(np.uint32)
    for i in range(len(bits)):
        if (bits[i] & _MAGNITUDE) >> 16 == upper:
            counts[bits[i] & 0xFFFF] += 1


@exact
def count_equal(delta: Values, magnitude: int) -> int:
    """How many values have this magnitude."""
    bits, wanted, found = delta.view(np.uint32), np.uint32(magnitude), 0
    for i in range(len(bits)):
        found += (bits[i] & np.uint32(_MAGNITUDE)) == wanted
    return found


@exact
def trim(delta: Values, least: int, kept: int, equal: int, earlier: int, mask: Mask) -> None:
    """mask = what is larger than `least`, and `kept` of all the `equal` values of that magnitude, evenly spread;
    `earlier` of those came before."""
    bits, bound = delta.view(np.uint32), np.uint32(least)
    if kept == equal:
        for i in range(len(bits)):
            mask[i] = (bits[i] & np.uint32(_MAGNITUDE)) >= bound
        return
    share, number = kept / equal, earlier
    before = np.floor(number * share + 0.5)
    for i in range(len(bits)):
        magnitude = bits[i] & np.uint32(_MAGNITUDE)
        mask[i] = magnitude > bound
        if magnitude == bound:
            # as many stay before the nth as its share of all, to the nearest: steps of 0 and 1 that reach the number
            number += 1
            after = np.floor(number * share + 0.5)
            mask[i] = after > before
            before = after


@exact
def ranked(rows: Values, odd: int, limits: NDArray[np.uint16], out: NDArray[np.uint16]) -> None:
    """out = `limits` (width,) laid out by the rank of each magnitude in its row; `rows` and `out`: (rows, width).

    Compared are nine significant bits, exponent and mantissa. Equal ones are ranked from the left in even rows, from
    the right in odd ones; `odd`: whether the first row is.
    """
    height, width = rows.shape
    keys, again = np.empty(width, dtype=np.uint32), np.empty(width, dtype=np.uint32)
    low, high = np.empty(256, dtype=np.int64), np.empty(256, dtype=np.int64)
    for row in range(height):
        from_right = (row + odd) % 2 == 1
        bits = rows[row].view(np.uint32)
        low[:], high[:] = 0, 0
        for i in range(width):
            key = (bits[i] & np.uint32(_MAGNITUDE)) >> np.uint32(15)
            low[key & np.uint32(255)] += 1
            high[key >> np.uint32(8)] += 1
        total_low, total_high = 0, 0
        for digit in range(256):
            low[digit], total_low = total_low, total_low + low[digit]
            high[digit], total_high = total_high, total_high + high[digit]
        # By the lower eight bits, then by the upper ones; each pass leaves equal digits in their order.
        for step in range(width):
            i = width - 1 - step if from_right else step
            key = (bits[i] & np.uint32(_MAGNITUDE)) >> np.uint32(15)
            digit = key & np.uint32(255)
            keys[low[digit]], again[low[digit]] = key >> np.uint32(8), i
            low[digit] += 1
        for step in range(width):
            digit = keys[step]
            out[row, again[step]] = limits[high[digit]]
            high[digit] += 1


@compiled
def norms(origin: Raw, model: Raw, mask: Mask) -> tuple[float, float]:
    """L1 norms of model - origin, and of its values in the mask, in float64."""
    had, has = 0.0, 0.0
    for i in range(len(model)):
        size = np.float64(abs(_change(model[i], origin[i])))
        had += size
        has += size if mask[i] else 0.0
    return had, has


@exact
def _change(model: Any, origin: Any) -> Any:
    return np.float32(as_float(model)) - np.float32(as_float(origin))


# ---- combining ------------------------------------------------------------------------------------------------------


@exact
def averaged(models: tuple[Raw, ...], weights: Values, share: float, out: Raw) -> None:
    """out = share * the first model + the weighted sum of what the others have more than it.

    With weights that sum to 1 and a share of 1 that is their mean, and what all have alike stays as it is.
    """
    total, whole = np.empty(_BLOCK, dtype=np.float32), np.float32(share)
    for first in range(0, len(out), _BLOCK):
        size = min(_BLOCK, len(out) - first)
        origin = models[0][first : first + size]
        total[:] = 0
        for j in range(1, len(models)):
            weight, model = weights[j], models[j][first : first + size]
            for i in range(size):
                total[i] += weight * _change(model[i], origin[i])
        block = out[first : first + size]
        for i in range(size):
            store(block, i, whole * np.float32(as_float(origin[i])) + total[i])


@exact
def summed(base: Raw, changes: Changes, weights: Values, out: Raw) -> None:
    """out = base + the weighted sum of the changes."""
    origin, models, masks, factors = changes
    total, none = np.empty(_BLOCK, dtype=np.float32), np.float32(0)
    for first in range(0, len(out), _BLOCK):
        size = min(_BLOCK, len(out) - first)
        here = slice(first, first + size)
        total[:] = 0
        for j in range(len(weights)):
            weight, factor, before, after, mask = weights[j], factors[j], origin[here], models[j][here], masks[j, here]
            for i in range(size):
                change = _change(after[i], before[i]) * factor
                total[i] += weight * (change if mask[i] else none)
        _add(base[here], total, np.float32(1), out[here])


@exact
def elected(base: Raw, changes: Changes, weights: Values, normalize: bool, scale: float, out: Raw) -> None:
    """out = base + scale * the sum of those weighted changes whose sign is that of the sum of all, divided by their
    weights where `normalize`. A sum of zero counts as positive; weights that sum to zero divide nothing."""
    origin, models, masks, factors = changes
    none, votes = np.float32(0), np.empty(_BLOCK, dtype=np.float32)
    up, down = np.empty(_BLOCK, dtype=np.float32), np.empty(_BLOCK, dtype=np.float32)
    for_up, for_down = np.empty(_BLOCK, dtype=np.float32), np.empty(_BLOCK, dtype=np.float32)
    for first in range(0, len(out), _BLOCK):
        size = min(_BLOCK, len(out) - first)
        here = slice(first, first + size)
        up[:], down[:], for_up[:], for_down[:] = 0, 0, 0, 0
        for j in range(len(weights)):
            weight, factor, before, after, mask = weights[j], factors[j], origin[here], models[j][here], masks[j, here]
            for i in range(size):
                change = _change(after[i], before[i]) * factor
                votes[i] = weight * (change if mask[i] else none)
            _count(votes, up, down)
            if normalize:
                _weigh(votes, weight, for_up, for_down)
        _elect(up, down, for_up, for_down, normalize)
        _add(base[here], up, np.float32(scale), out[here])


# Loops over a block, each a function of its own: in one with more arrays, or with one that is read under a condition,
# the compiler takes numbers one by one.


@exact
def _count(votes: Values, up: Values, down: Values) -> None:
    none = np.float32(0)
    for i in range(len(votes)):
        up[i] += max(votes[i], none)
        down[i] += min(votes[i], none)


@exact
def _weigh(votes: Values, weight: np.float32, for_up: Values, for_down: Values) -> None:
    none = np.float32(0)
    for i in range(len(votes)):
        vote = votes[i]
        for_up[i] += weight if vote > none else none
        for_down[i] += weight if vote < none else none


@exact
def _elect(up: Values, down: Values, for_up: Values, for_down: Values, normalize: bool) -> None:
    """up = the larger side, divided by its weights where `normalize`."""
    none, one = np.float32(0), np.float32(1)
    if normalize:
        for i in range(len(up)):
            more, less, weight, other = up[i], down[i], for_up[i], for_down[i]
            wins = more + less >= none
            total = weight if wins else other
            up[i] = (more if wins else less) / (total if total != none else one)
    else:
        for i in range(len(up)):
            more, less = up[i], down[i]
            up[i] = more if more + less >= none else less


@exact
def _add(base: Raw, change: Values, scale: np.float32, out: Raw) -> None:
    for i in range(len(out)):
        store(out, i, np.float32(as_float(base[i])) + scale * change[i])
