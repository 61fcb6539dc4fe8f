"""Ways to walk through a sweep: `grid` (the default), `random` and `refine`.

A strategy is a pure function of the space, the trials so far and the seed: it is asked again after every round, and
whoever replays it gets the same points. `space` maps each swept key to its values, in the order of the recipe.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from mixmerge import Component, Point, Trial, hookimpl, strategy

Space = Mapping[str, Sequence[Any]]


@strategy(name="grid", version="1")
def grid(space: Space, trials: Sequence[Trial], seed: int, /) -> Sequence[Point]:
    """Every point once: row by row, the last key of the recipe changing fastest."""
    return _unseen(_all_points(space), trials)


@strategy(name="random", version="1", source="Bergstra and Bengio 2012, JMLR 13")
def random(
    space: Space, trials: Sequence[Trial], seed: int, /, *, points: Annotated[int, Field(ge=1)]
) -> Sequence[Point]:
    """A seeded subset of the grid without repetition: all `points` of it at once, in the order of the grid.

    A larger number of points keeps those of a smaller one, so raising it scores only what is new.
    """
    drawn = sorted(_all_points(space), key=lambda point: _rank(point, seed))[:points]
    chosen = {point.key for point in drawn}
    return _unseen((point for point in _all_points(space) if point.key in chosen), trials)


@strategy(name="refine", version="1")
def refine(
    space: Space,
    trials: Sequence[Trial],
    seed: int,
    /,
    *,
    points: Annotated[int, Field(ge=1)],
    along: str = "weights",
) -> Sequence[Point]:
    """Every other value of `along` first, then the neighbours of the best trial, until `points` are spent.

    All other keys are crossed in full. Where every other value is already more than `points`, the start is coarser:
    every fourth, every eighth, and so on. Neighbours stand next to the best trial in the list of `along`, with all else
    equal; once they are scored, those of the next best follow. Of equal trials the first in the order of the grid
    counts as better. The search ends early when only scored neighbours are left, or when `along` is not swept.
    """
    grid_points = _all_points(space)
    start = _coarse(space, grid_points, along, points)
    if missing := _unseen(start, trials):
        return missing
    left = points - len({trial.point.key for trial in trials})
    order = {point.key: index for index, point in enumerate(grid_points)}
    for trial in sorted(trials, key=lambda trial: (-_finite(trial.objective), order.get(trial.point.key, 0))):
        if fresh := _unseen(_neighbours(space, trial.point, along), trials):
            return fresh[: max(left, 0)]
    return []


def _all_points(space: Space) -> list[Point]:
    points = (Point(dict(zip(space, values, strict=True))) for values in itertools.product(*space.values()))
    return list({point.key: point for point in points}.values())


def _unseen(points: Iterable[Point], trials: Sequence[Trial]) -> list[Point]:
    seen = {trial.point.key for trial in trials}
    return [point for point in points if point.key not in seen]


def _rank(point: Point, seed: int) -> str:
    """A hash rather than a random module: the same subset under every version of Python."""
    return hashlib.sha256(f"{seed}/{point.key}".encode()).hexdigest()


def _coarse(space: Space, grid_points: Sequence[Point], along: str, points: int) -> list[Point]:
    values = space.get(along, ())
    stride = 2
    while stride < len(values) and _crossed(space, along, len(values[::stride])) > points:
        stride *= 2
    # Starting half a stride in keeps a start of few values near the middle, away from one expert alone.
    kept = values[::2] if stride == 2 else values[stride // 2 :: stride]
    return [point for point in grid_points if not values or point.values[along] in kept][:points]


def _crossed(space: Space, along: str, kept: int) -> int:
    return kept * math.prod(len(values) for key, values in space.items() if key != along)


def _neighbours(space: Space, point: Point, along: str) -> list[Point]:
    values = list(space.get(along, ()))
    if point.values.get(along) not in values:
        return []
    here = values.index(point.values[along])
    return [Point({**point.values, along: values[i]}) for i in (here - 1, here + 1) if 0 <= i < len(values)]


def _finite(objective: float) -> float:
    return -math.inf if math.isnan(objective) else objective


@hookimpl
def register_strategies() -> Sequence[Component]:
    return [grid, random, refine]
