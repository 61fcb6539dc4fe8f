"""What each method of merging was given and made of it: how many configurations, its best, and how that compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..types import Results
from .paired import RESAMPLES, Comparison, compare, compare_average, compare_unpaired
from .rows import EXPERTS, best_by_method, choose, experts_of, find_row, objective


@dataclass(frozen=True)
class MethodResult:
    """One method of one merge group.

    configurations  how many of its merges were scored on every task of `choose_on`
    best            the one that was best there
    chosen          its mean relative change on `choose_on`, percent; `reported` the same on `report_on`, None unless it
                    was scored on all of it
    versus          `best` against `against` on `report_on`, None where nothing can be compared; `holm_p` its p value
                    after Holm's correction over the methods
    by_task         the same for each task that can be compared, Holm's correction over the methods within a task
    """

    group: str
    method: str
    configurations: int
    best: str
    chosen: float
    reported: float | None
    against: str
    versus: Comparison | None = None
    holm_p: float | None = None
    by_task: tuple[tuple[Comparison, float], ...] = ()


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down correction (Holm 1979): adjusted p values, in the order given.

    With m values in ascending order, the i-th (from 0) is multiplied by m - i, is no less than the one before it, and
    at most 1. Any of them under a level leaves the chance of one false finding or more under that level.
    """
    adjusted, floor = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        floor = max(floor, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = floor
    return tuple(adjusted)


def best_mixture(results: Results) -> str | None:
    """The mixture that is best on `choose_on`, the first where they were not all scored there; None without one."""
    names = [model.name for model in results.models if model.kind == "mixture"]
    tasks = results.choose_on
    if not names:
        return None
    if not tasks or any(find_row(results.rows, name, task) is None for name in names for task in tasks):
        return names[0]
    experts = experts_of(results.models)
    return max(names, key=lambda name: objective(results.rows, name, tasks, experts=experts))


def methods(results: Results, *, resamples: int = RESAMPLES, level: float = 0.95) -> tuple[MethodResult, ...]:
    """Every (group, method) in the order of the sweep, its best merge compared with the best mixture, or, where no
    mixture was trained, with the experts, each on its own task."""
    against = best_mixture(results) or (EXPERTS if experts_of(results.models) else "")
    found = [
        _method(results, group, method, best, against, resamples, level)
        for (group, method), best in best_by_method(results.rows, results.models, results.choose_on).items()
    ]
    known = [index for index, one in enumerate(found) if one.versus]
    corrected = holm([one.versus.p for one in found if one.versus])
    for index, p in zip(known, corrected, strict=True):
        found[index] = replace(found[index], holm_p=p)
    return tuple(_by_task(results, found, resamples, level))


def winner_of(results: Results, group: str) -> str:
    """The winner of a merge group, "" when none could be chosen."""
    return results.winners.get(group) or choose(results.rows, results.models, results.choose_on).get(group, "")


def _method(
    results: Results, group: str, method: str, best: str, against: str, resamples: int, level: float
) -> MethodResult:
    experts = experts_of(results.models)
    tried = [
        model.name for model in results.models if (model.kind, model.group, model.method) == ("merge", group, method)
    ]
    scored = [name for name in tried if all(find_row(results.rows, name, task) for task in results.choose_on)]
    tasks = results.report_on
    reported = None
    if tasks and all(find_row(results.rows, best, task) for task in tasks):
        reported = objective(results.rows, best, tasks, experts=experts)
    versus = None
    if reported is not None and against:
        given = (results, best, against, tasks)
        versus = compare_average(*given, resamples=resamples, level=level) or compare_unpaired(*given, level=level)
    chosen = objective(results.rows, best, results.choose_on, experts=experts)
    return MethodResult(group, method, len(scored), best, chosen, reported, against, versus)


def _by_task(results: Results, found: Sequence[MethodResult], resamples: int, level: float) -> Sequence[MethodResult]:
    told: list[list[tuple[Comparison, float]]] = [[] for _ in found]
    for task in results.report_on:
        pairs = [
            compare(results, one.best, one.against, task, resamples=resamples, level=level) if one.against else None
            for one in found
        ]
        corrected = holm([pair.decisive_p for pair in pairs if pair])
        known = [(index, pair) for index, pair in enumerate(pairs) if pair]
        for (index, pair), p in zip(known, corrected, strict=True):
            told[index].append((pair, p))
    return [replace(one, by_task=tuple(pairs)) for one, pairs in zip(found, told, strict=True)]
