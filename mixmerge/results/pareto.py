"""Which models no other beats on every task at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..types import Results
from .rows import experts_of, find_row, reference_row, relative_change


def pareto(results: Results, tasks: Sequence[str]) -> tuple[str, ...]:
    """The front over `tasks` by the primary metric: the models that no other equals everywhere and beats somewhere.

    Scores as they are, noise included: a model just outside the front may well belong to it. Models without a finite
    score on every task are left out, references too; () for no task. In the order of `results.models`.
    """
    return front(task_changes(results, tasks))


def front(points: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """The names whose point no other equals in every coordinate and beats in one; higher is better, order kept."""
    return tuple(
        name
        for name, point in points.items()
        if not any(_dominates(other, point) for rival, other in points.items() if rival != name)
    )


def task_changes(results: Results, tasks: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Each model with a finite score on all `tasks`, with its relative change on each, percent, positive is better."""
    if not tasks:
        return {}
    experts = experts_of(results.models)
    found = {}
    for model in results.models:
        rows = [find_row(results.rows, model.name, task) for task in tasks]
        if all(row is not None and math.isfinite(row.value) for row in rows):
            found[model.name] = tuple(
                relative_change(row, reference_row(results.rows, row.task, row.metric, experts)) for row in rows if row
            )
    return found


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)
