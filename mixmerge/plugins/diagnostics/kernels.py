"""The loops of the built-in diagnostics, compiled: what NumPy does in one pass over memory each, in one for all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixmerge.checkpoint.kernels import Raw, as_float
from mixmerge.compiled import compiled


@compiled
def square(values: Raw) -> float:
    """The sum of the squares, in float64."""
    total = 0.0
    for i in range(len(values)):
        value = as_float(values[i])
        total += value * value
    return total


@compiled
def moved(base: Raw, model: Raw) -> float:
    """The sum of the squares of model - base."""
    total = 0.0
    for i in range(len(base)):
        delta = as_float(model[i]) - as_float(base[i])
        total += delta * delta
    return total


@compiled
def alone(base: Raw, model: Raw, bound: float) -> tuple[float, float, float]:
    """Of model - base, sum of squares; sum, and sum of squares, of what is at least `bound` in size."""
    squares, kept, kept_squares = 0.0, 0.0, 0.0
    for i in range(len(base)):
        delta = as_float(model[i]) - as_float(base[i])
        squares += delta * delta
        delta = delta if abs(delta) >= bound else 0.0
        kept += delta
        kept_squares += delta * delta
    return squares, kept, kept_squares


@compiled
def together(base: Raw, one: Raw, other: Raw, bound: float, other_bound: float) -> tuple[float, float, int, int]:
    """Of one - base and other - base, sum of products; the same of what is at least the bounds in size; counts of
    products over and under zero."""
    products, kept, agree, oppose = 0.0, 0.0, 0, 0
    for i in range(len(base)):
        origin = as_float(base[i])
        first, second = as_float(one[i]) - origin, as_float(other[i]) - origin
        product = first * second
        products += product
        agree += product > 0
        oppose += product < 0
        kept += product if (abs(first) >= bound) & (abs(second) >= other_bound) else 0.0
    return products, kept, agree, oppose


@compiled
def steps(old: NDArray[Any], new: NDArray[Any], magnitude: int) -> tuple[int, int]:
    """How many floats, given as signed integers with their bits, differ, and are neighbours. `magnitude`: all bits but
    the sign's. Both zeros are one number."""
    changed, near = 0, 0
    for i in range(len(old)):
        before, after = np.int64(old[i]), np.int64(new[i])
        before = before if before >= 0 else -(before & magnitude)
        after = after if after >= 0 else -(after & magnitude)
        changed += after != before
        near += (after - before == 1) | (after - before == -1)
    return changed, near


@compiled
def clash_of_two(base: Raw, one: Raw, other: Raw, threshold: float) -> tuple[float, float, int, int, int]:
    """As `clash` for two models, many times as fast."""
    opposed, mass, alone, several, none = 0.0, 0.0, 0, 0, 0
    for i in range(len(base)):
        origin = as_float(base[i])
        first, second = as_float(one[i]) - origin, as_float(other[i]) - origin
        total = abs(first + second)
        first, second = abs(first), abs(second)
        size = first + second
        mass += size
        opposed += 0.5 * (size - total)
        needed = np.int64(first >= threshold * second) + np.int64(second >= threshold * first)
        alone += (size > 0) & (needed == 1)
        several += (size > 0) & (needed == 2)
        none += (size > 0) & (needed == 0)
    return opposed, mass, alone, several, none


@compiled
def clash(
    deltas: NDArray[np.float64], members: NDArray[np.int64], threshold: float
) -> tuple[float, float, int, int, int]:
    """Over the weights, for the rows `members`: size of what points against the sign of the greater mass; size of all;
    weights that one, that several, and that none of the changes needs, among those that any changed."""
    opposed, mass, one, several, none = 0.0, 0.0, 0, 0, 0
    for i in range(deltas.shape[1]):
        total, size = 0.0, 0.0
        for member in members:
            total += deltas[member, i]
            size += abs(deltas[member, i])
        needed = 0
        for member in members:
            delta = deltas[member, i]
            needed += abs(delta) >= threshold * abs(total - delta)
        moved = size > 0
        mass += size
        opposed += 0.5 * (size - abs(total))
        one += moved & (needed == 1)
        several += moved & (needed > 1)
        none += moved & (needed == 0)
    return opposed, mass, one, several, none
