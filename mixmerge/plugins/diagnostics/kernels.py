"""The loops of the built-in diagnostics, compiled: what NumPy does in one pass over memory each, in one for all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixmerge.checkpoint.kernels import Raw, as_float, compiled


@compiled
def square(values: Raw) -> float:
    """The sum of the squares, in float64."""
    total = 0.0
    for i in range(len(values)):
        value = as_float(values[i])
        total += value * value
    return total


@compiled
def alone(delta: NDArray[np.float64], bound: float) -> tuple[float, float, float]:
    """Sum of squares; sum, and sum of squares, of what is at least `bound` in size."""
    squares, kept, kept_squares = 0.0, 0.0, 0.0
    for i in range(len(delta)):
        value = delta[i]
        squares += value * value
        value = value if abs(value) >= bound else 0.0
        kept += value
        kept_squares += value * value
    return squares, kept, kept_squares


@compiled
def together(
    one: NDArray[np.float64], other: NDArray[np.float64], bound: float, other_bound: float
) -> tuple[float, float, int, int]:
    """Sum of products; the same of what is at least the bounds in size; counts of products over and under zero."""
    products, kept, agree, oppose = 0.0, 0.0, 0, 0
    for i in range(len(one)):
        product = one[i] * other[i]
        products += product
        agree += product > 0
        oppose += product < 0
        kept += product if (abs(one[i]) >= bound) & (abs(other[i]) >= other_bound) else 0.0
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
def clash_of_two(
    one: NDArray[np.float64], other: NDArray[np.float64], threshold: float
) -> tuple[float, float, int, int, int]:
    """As `clash` for two rows, many times as fast."""
    opposed, mass, alone, several, none = 0.0, 0.0, 0, 0, 0
    for i in range(len(one)):
        first, second = abs(one[i]), abs(other[i])
        size = first + second
        mass += size
        opposed += 0.5 * (size - abs(one[i] + other[i]))
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
