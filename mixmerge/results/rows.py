"""Rows: which metric and which expert stand for a task, relative change, winners, gain kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ..errors import MixmergeError
from ..types import Model, Results, Row

EXPERTS = "experts (each on its own task)"
_ZERO = 1e-12


class _Index:
    """Rows by what is looked up, the first of equals: reports look up the same rows thousands of times."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = rows
        self.found: dict[tuple[str, str, str], Row] = {}
        self.primary: dict[str, str] = {}
        said: set[str] = set()
        for row in rows:
            self.found.setdefault((row.model, row.task, row.metric), row)
            if row.primary and row.task not in said:
                said.add(row.task)
                self.primary[row.task] = row.metric
            self.primary.setdefault(row.task, row.metric)


_RECENT: list[_Index] = []


def _index(rows: Iterable[Row]) -> _Index:
    """Of a tuple, which cannot change, the index is kept for a while."""
    if not isinstance(rows, tuple):
        return _Index(rows)
    known = next((one for one in _RECENT if one.rows is rows), None)
    if known is None:
        known = _Index(rows)
        _RECENT[:] = [known, *_RECENT[:7]]
    return known


def primary_metric(rows: Iterable[Row], task: str) -> str | None:
    """The metric that stands for `task`; None when nothing was scored on it."""
    return _index(rows).primary.get(task)


def find_row(rows: Iterable[Row], model: str, task: str, metric: str | None = None) -> Row | None:
    """The score of `model` on `task`; `metric` None means the primary one."""
    index = _index(rows)
    wanted = metric or index.primary.get(task)
    return index.found.get((model, task, wanted)) if wanted else None


def experts_of(models: Sequence[Model]) -> tuple[str, ...]:
    """Names of the experts: by kind, and those that came in through `models:` and that a merge names."""
    merged = {name for model in models for name in model.experts}
    return tuple(model.name for model in models if model.kind == "expert" or {model.name, model.id} & merged)


def best_expert(results: Results, task: str) -> str | None:
    """The expert whose own task this is: the one with the best primary metric on it (first of equals)."""
    return _best_expert(results.rows, task, experts_of(results.models))


def objective(rows: Sequence[Row], model: str, tasks: Sequence[str], *, experts: Sequence[str] | None = None) -> float:
    """What winners are chosen by: the mean over `tasks` of the relative change of the primary metric, in percent.

    Higher is better. `experts` are names; None means the rows of kind "expert". Raises MixmergeError when the model
    lacks a score on one of the tasks, or `tasks` is empty; NaN scores give NaN.
    """
    if not tasks:
        raise MixmergeError("no task to choose on", hint="name at least one under eval: choose_on")
    names = _expert_names(rows) if experts is None else experts
    changes = []
    for task in tasks:
        row = find_row(rows, model, task)
        if row is None:
            raise MixmergeError(f"model {model!r} has no score on task {task!r}")
        changes.append(relative_change(row, reference_row(rows, task, row.metric, names)))
    return sum(changes) / len(changes)


def choose(rows: Sequence[Row], models: Sequence[Model], choose_on: Sequence[str]) -> dict[str, str]:
    """Merge group to the name of its best merge by `objective` on `choose_on` alone.

    Of equals the first in the order of `models` wins, which is the order of the sweep. Merges without a score on every
    task, or with a score that is not a number, cannot win; a group without any that can is left out.
    """
    return {key[0]: name for key, name in _choose(rows, models, choose_on, by_method=False).items()}


def best_by_method(
    rows: Sequence[Row], models: Sequence[Model], choose_on: Sequence[str]
) -> dict[tuple[str, str], str]:
    """(merge group, method) to the name of its best merge; otherwise as `choose`."""
    return _choose(rows, models, choose_on, by_method=True)


def gain_kept(results: Results, model: str, task: str) -> float | None:
    """(model - base) / (best expert - base) on the task's primary metric: 1.0 keeps all of the expert's gain.

    Below 0 for a model worse than the base, above 1 for one better than the expert. None where a score is missing or
    the expert does not beat the base, which leaves no gain to keep.
    """
    base, expert = base_name(results.rows), best_expert(results, task)
    found = [find_row(results.rows, name, task) for name in (model, base, expert) if name]
    if len(found) < 3 or any(row is None for row in found):
        return None
    of_model, of_base, of_expert = (_oriented(row) for row in found if row is not None)
    return (of_model - of_base) / (of_expert - of_base) if of_expert > of_base else None


def relative_change(row: Row, reference: Row | None) -> float:
    """In percent, positive is better; 100 x the absolute change where the reference is zero or missing."""
    sign = 1 if row.higher_is_better else -1
    return 100 * sign * (row.value - (reference.value if reference else 0.0)) / relative_to(reference)


def relative_to(reference: Row | None) -> float:
    """The size that a relative change is measured by; 1 where the reference is zero or missing. BLEU's 1e-77 of texts
    that share no word is zero."""
    size = abs(reference.value) if reference else 0.0
    return 1.0 if size < _ZERO else size


def reference_row(rows: Sequence[Row], task: str, metric: str, experts: Sequence[str]) -> Row | None:
    """The best expert's score on that metric; without experts the base's."""
    name = _best_expert(rows, task, experts) or base_name(rows)
    return find_row(rows, name, task, metric) if name else None


def base_name(rows: Sequence[Row]) -> str | None:
    return next((row.model for row in rows if row.kind == "base"), None)


def resolve(results: Results, name: str, task: str) -> str | None:
    """A model's name: `name`, or for EXPERTS the task's best expert."""
    return best_expert(results, task) if name == EXPERTS else name


def first_best(values: Mapping[str, float]) -> str | None:
    """The name with the highest value, the first of equals; None when no value is a number."""
    known = finite(values)
    return max(known, key=lambda name: known[name]) if known else None


def finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _choose(
    rows: Sequence[Row], models: Sequence[Model], choose_on: Sequence[str], *, by_method: bool
) -> dict[tuple[str, str], str]:
    best: dict[tuple[str, str], tuple[float, str]] = {}
    rows = tuple(row for row in rows if row.task in choose_on)
    experts = experts_of(models)
    for model in models:
        if model.kind != "merge" or not choose_on or not all(find_row(rows, model.name, task) for task in choose_on):
            continue
        value = objective(rows, model.name, choose_on, experts=experts)
        key = (model.group, model.method if by_method else "")
        if not math.isnan(value) and (key not in best or value > best[key][0]):
            best[key] = (value, model.name)
    return {key: name for key, (_, name) in best.items()}


def _oriented(row: Row) -> float:
    return row.value if row.higher_is_better else -row.value


def _expert_names(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.model for row in rows if row.kind == "expert"))


def _best_expert(rows: Sequence[Row], task: str, experts: Sequence[str]) -> str | None:
    scored = {name: row for name in experts if (row := find_row(rows, name, task))}
    return first_best({name: _oriented(row) for name, row in scored.items()})
