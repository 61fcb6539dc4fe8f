"""Strategies are pure functions of the space, the trials and the seed; a small search replays what `run` does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

from mixmerge import Component, Point, Trial
from mixmerge.plugins.strategies import grid, random, refine

WEIGHTS = [[round(w / 10, 1), round(1 - w / 10, 1)] for w in range(1, 10)]
METHODS = ["linear", {"ties": {"density": 0.5}}]
SPACE = {"weights": WEIGHTS, "method": METHODS}


def search(
    strategy: Component, space: dict, objective: Callable[[Point], float], seed: int = 0, **parameters: object
) -> list[list[Point]]:
    """Every round that the strategy asks for, scored as `run` does it; fails when a point is asked for twice."""
    trials: list[Trial] = []
    rounds: list[list[Point]] = []
    while proposed := strategy.function(space, tuple(trials), seed, **parameters):
        keys = {trial.point.key for trial in trials}
        assert not keys & {point.key for point in proposed}
        rounds.append(list(proposed))
        trials += [Trial(point, objective(point)) for point in proposed]
    return rounds


def first_weights(points: Sequence[Point]) -> list[float]:
    return [point.values["weights"][0] for point in points]


def peak(at: float) -> Callable[[Point], float]:
    """A score with one maximum, where the first weight is `at`."""
    return lambda point: -abs(point.values["weights"][0] - at)


def test_grid_is_every_point_once_row_by_row() -> None:
    (points,) = search(grid, {"weights": WEIGHTS[:2], "method": METHODS}, peak(0.5))
    assert [(point.values["weights"][0], point.values["method"]) for point in points] == [
        (0.1, METHODS[0]),
        (0.1, METHODS[1]),
        (0.2, METHODS[0]),
        (0.2, METHODS[1]),
    ]


def test_grid_asks_again_only_for_what_is_missing() -> None:
    done = [Trial(Point({"weights": WEIGHTS[0], "method": METHODS[0]}), 1.0)]
    assert len(grid.function(SPACE, done, 0)) == 17


def test_a_value_that_stands_twice_is_one_point() -> None:
    assert len(grid.function({"weights": [WEIGHTS[0], WEIGHTS[0]]}, (), 0)) == 1


def test_random_is_a_seeded_subset_in_the_order_of_the_grid() -> None:
    everything = [point.key for point in grid.function(SPACE, (), 0)]
    (points,) = search(random, SPACE, peak(0.5), seed=1, points=7)
    keys = [point.key for point in points]
    assert len(set(keys)) == 7
    assert keys == sorted(keys, key=everything.index)
    assert keys == [point.key for point in random.function(SPACE, (), 1, points=7)]
    assert keys != [point.key for point in random.function(SPACE, (), 2, points=7)]
    assert set(keys) < {point.key for point in random.function(SPACE, (), 1, points=8)}


def test_random_with_more_points_than_there_are_is_the_grid() -> None:
    (points,) = search(random, SPACE, peak(0.5), points=100)
    assert points == list(grid.function(SPACE, (), 0))


def test_random_draws_every_point_about_equally_often() -> None:
    space = {"weights": WEIGHTS}
    drawn = [point.key for seed in range(600) for point in random.function(space, (), seed, points=3)]
    counts = [drawn.count(point.key) for point in grid.function(space, (), 0)]
    assert all(abs(count - 200) < 4 * math.sqrt(600 * 1 / 3 * 2 / 3) for count in counts)  # four standard errors


def test_refine_starts_with_every_other_weight_and_then_looks_beside_the_best() -> None:
    rounds = search(refine, {"weights": WEIGHTS}, peak(0.72), points=7)
    assert first_weights(rounds[0]) == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert first_weights(rounds[1]) == [0.6, 0.8]
    assert len(rounds) == 2


def test_refine_goes_on_beside_the_next_best_until_the_points_are_spent() -> None:
    rounds = search(refine, {"weights": WEIGHTS}, peak(0.72), points=8)
    assert [len(each) for each in rounds] == [5, 2, 1]
    assert first_weights(rounds[2]) == [0.4]  # beside 0.5, once those beside 0.7, 0.8 and 0.6 are all scored
    assert sum(len(each) for each in search(refine, {"weights": WEIGHTS}, peak(0.72), points=100)) == 9


def test_refine_crosses_the_methods_and_follows_the_better_one() -> None:
    def objective(point: Point) -> float:
        return peak(0.72)(point) + (1.0 if point.values["method"] == METHODS[1] else 0.0)

    rounds = search(refine, SPACE, objective, points=12)
    assert len(rounds[0]) == 10
    assert [(point.values["weights"][0], point.values["method"]) for point in rounds[1]] == [
        (0.6, METHODS[1]),
        (0.8, METHODS[1]),
    ]


@pytest.mark.parametrize("points", range(1, 19))
def test_refine_never_asks_for_more_than_it_may(points: int) -> None:
    rounds = search(refine, SPACE, peak(0.3), points=points)
    assert sum(len(each) for each in rounds) == points


def test_refine_starts_coarser_where_the_points_are_few() -> None:
    rounds = search(refine, SPACE, peak(0.5), points=6)
    assert sorted(set(first_weights(rounds[0]))) == [0.3, 0.7]  # every fourth of nine weights, crossed with two methods
    assert [len(each) for each in rounds] == [4, 2]


def test_refine_climbs_to_the_peak_from_a_coarse_start() -> None:
    rounds = search(refine, {"weights": WEIGHTS}, peak(0.9), points=5)
    assert 0.9 in first_weights([point for each in rounds for point in each])


def test_refine_treats_nan_as_worst_and_the_first_of_equals_as_best() -> None:
    def objective(point: Point) -> float:
        return math.nan if point.values["weights"][0] < 0.4 else 1.0

    rounds = search(refine, {"weights": WEIGHTS}, objective, points=7)
    assert first_weights(rounds[1]) == [0.4, 0.6]


def test_refine_without_weights_in_the_sweep_takes_the_first_points() -> None:
    rounds = search(refine, {"method": METHODS, "seed": [1, 2]}, lambda point: 0.0, points=3)
    assert [len(each) for each in rounds] == [3]


@pytest.mark.parametrize("strategy", [random, refine])
def test_points_must_be_positive_and_be_there(strategy: Component) -> None:
    assert strategy.problems({"points": 0})
    assert strategy.problems({"points": 2.5})
    assert strategy.problems({})
    assert not strategy.problems({"points": 3})
