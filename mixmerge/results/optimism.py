"""How much better the winner looks on the tasks that chose it than it is: the price of choosing the best of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..types import Results, Row, content_id
from .methods import best_mixture, winner_of
from .paired import NORMAL_FROM_SAMPLES
from .rows import experts_of, find_row, objective, reference_row, relative_to

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 2_000


@dataclass(frozen=True)
class Optimism:
    """The winner of one merge group, in percent points of mean relative change.

    candidates  how many merges it was chosen from
    chosen      its score on `choose_on`; `reported` its score on `report_on`, None unless it was scored on all of it
    expected    by how much choosing flatters it on `choose_on`, by bootstrap; None without samples of every candidate
    mixture     the best mixture, which no sweep chose, with its two scores: what the tasks alone make of the difference
    """

    group: str
    winner: str
    candidates: int
    chosen: float
    reported: float | None
    expected: float | None
    mixture: tuple[str, float, float] | None = None


def optimism(results: Results, *, resamples: int = RESAMPLES) -> tuple[Optimism, ...]:
    """One for each merge group that has a winner.

    Expected optimism (Efron and Tibshirani 1993, section 17.6, of a maximum): samples of `choose_on` are drawn with
    replacement, the same for all candidates; the best of the draw is chosen; how much better it does on the draw than
    on the real samples is averaged over the draws. Reference scores are held fixed. It is 0 for one candidate up to the
    noise of drawing, and grows with their number and with how close they are.
    """
    return tuple(
        found
        for group in dict.fromkeys(model.group for model in results.models if model.kind == "merge")
        if (found := _of_group(results, group, resamples))
    )


def _of_group(results: Results, group: str, resamples: int) -> Optimism | None:
    winner, tasks = winner_of(results, group), results.choose_on
    if not tasks:
        return None
    experts = experts_of(results.models)
    candidates = [
        model.name
        for model in results.models
        if (model.kind, model.group) == ("merge", group) and all(find_row(results.rows, model.name, t) for t in tasks)
    ]

    if winner not in candidates:
        return None

    def score(name: str, on: Sequence[str]) -> float | None:
        scored = bool(on) and all(find_row(results.rows, name, task) for task in on)
        return objective(results.rows, name, on, experts=experts) if scored else None

    mixture = best_mixture(results)
    both = (score(mixture, tasks), score(mixture, results.report_on)) if mixture else (None, None)
    beside = (mixture, both[0], both[1]) if mixture and both[0] is not None and both[1] is not None else None
    expected = _expected(results, candidates, experts, resamples)
    chosen = objective(results.rows, winner, tasks, experts=experts)
    return Optimism(group, winner, len(candidates), chosen, score(winner, results.report_on), expected, beside)


def _expected(results: Results, names: Sequence[str], experts: Sequence[str], resamples: int) -> float | None:
    import numpy as np

    observed, drawn = np.zeros(len(names)), np.zeros((resamples, len(names)))
    for task in results.choose_on:
        rows = [row for name in names if (row := find_row(results.rows, name, task))]
        n = len(rows[0].samples)
        if n < 2 or any(len(row.samples) != n for row in rows):
            return None
        scores = _changes(results, rows, experts) / len(results.choose_on)
        observed += scores.mean(0)
        seed = int(content_id([results.seed, "optimism", task, sorted(names)]), 16)
        drawn += _drawn_means(scores, resamples, seed)
    best = drawn.argmax(1)
    return float((drawn.max(1) - observed[best]).mean())


def _changes(results: Results, rows: Sequence[Row], experts: Sequence[str]) -> Floats:
    """float64 (samples, models): each sample's part in the relative change, percent, up to a constant."""
    import numpy as np

    first = rows[0]
    reference = reference_row(results.rows, first.task, first.metric, experts)
    scale = 100 * (1 if first.higher_is_better else -1) / relative_to(reference)
    return scale * np.asarray([row.samples for row in rows], np.float64).T


def _drawn_means(scores: Floats, resamples: int, seed: int) -> Floats:
    """float64 (resamples, models): means over samples drawn with replacement, the same ones for every model."""
    import numpy as np

    generator, n = np.random.default_rng(seed), len(scores)
    if n >= NORMAL_FROM_SAMPLES:
        covariance = np.atleast_2d(np.cov(scores, rowvar=False)) / n
        return generator.multivariate_normal(scores.mean(0), covariance, resamples)
    counts = generator.multinomial(n, np.full(n, 1 / n), resamples)
    return np.asarray(counts @ scores / n, np.float64)
