"""Two experiments side by side: what both scored, paired over samples where they are the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..types import Model, Results, Row
from .methods import holm, winner_of
from .paired import RESAMPLES, Comparison, compare, compare_average, compare_rows, compare_unpaired
from .rows import find_row, primary_metric

SAME = "one and the same score"


@dataclass(frozen=True)
class Across:
    """One model of `a` and one of `b` on one task that both were scored on ("" for the mean over all such tasks).

    a, b       their names; the winners of both stand against each other under their own names
    values     their scores, None for a mean over tasks
    versus     `a` minus `b`, positive is better for `a`; None where no noise is known
    holm_p     after Holm's correction over everything that was compared
    why        why nothing could be paired, "" where it was; SAME where it is one score of one record
    """

    a: str
    b: str
    task: str
    values: tuple[float, float] | None
    versus: Comparison | None
    holm_p: float | None = None
    why: str = ""


def across(a: Results, b: Results, *, resamples: int = RESAMPLES, level: float = 0.95) -> tuple[Across, ...]:
    """Models of the same name, and the winners, on the tasks that both report on; () when they share none.

    Samples are paired where both experiments scored the same task with the same content (its pin in the record) and as
    many samples; elsewhere the interval is an unpaired one from the standard errors, and `why` says so. The mean over
    tasks is of the change relative to `a`'s best experts, in percent points.
    """
    tasks = [task for task in a.report_on or a.choose_on if _shared(a, b, task)]
    found = []
    for first, second in _pairs(a, b):
        here = [task for task in tasks if find_row(a.rows, first, task) and find_row(b.rows, second, task)]
        joint = _joint(a, b, second)
        found += [_on_task(a, b, joint, (first, second), task, resamples, level) for task in here]
        if len(here) > 1 and any(one.why != SAME for one in found[-len(here) :]):
            found.append(_on_average(a, b, joint, (first, second), here, resamples, level))
    known = [index for index, one in enumerate(found) if one.versus]
    corrected = holm([one.versus.decisive_p for one in found if one.versus])
    for index, p in zip(known, corrected, strict=True):
        found[index] = replace(found[index], holm_p=p)
    return tuple(found)


_SECOND = "\N{SYMBOL FOR UNIT SEPARATOR}"
"""Tells b's model from one of a's with the same name while they stand in one Results."""


def _shared(a: Results, b: Results, task: str) -> bool:
    return primary_metric(a.rows, task) is not None and primary_metric(a.rows, task) == primary_metric(b.rows, task)


def _pairs(a: Results, b: Results) -> Iterator[tuple[str, str]]:
    """Models by name; the winners of groups of one name, where they are called differently."""
    names = {model.name for model in b.models}
    yield from ((model.name, model.name) for model in a.models if model.name in names)
    for group in dict.fromkeys(model.group for model in a.models if model.kind == "merge"):
        first, second = winner_of(a, group), winner_of(b, group)
        if first and second and (first != second):
            yield first, second


def _joint(a: Results, b: Results, second: str) -> Results:
    """`a` with one model of `b` beside its own; it is no expert there, so the references are those of `a`."""
    name = second + _SECOND
    rows = [replace(row, model=name, kind="model") for row in b.rows if row.model == second]
    return replace(a, rows=[*a.rows, *rows], models=[*a.models, Model(name, "model", name)])


def _on_task(
    a: Results, b: Results, joint: Results, names: tuple[str, str], task: str, resamples: int, level: float
) -> Across:
    first, second = names
    one, other = find_row(a.rows, first, task), find_row(b.rows, second, task)
    assert one is not None
    assert other is not None
    if (one.model, one.record, one.value) == (other.model, other.record, other.value) and one.record:
        return Across(first, second, task, (one.value, other.value), None, why=SAME)
    why = _unpairable(a, b, one, other)
    if not why:
        versus = compare(joint, first, second + _SECOND, task, resamples=resamples, level=level)
    else:
        versus = compare_rows(one, other, level=level)
    return Across(first, second, task, (one.value, other.value), _named(versus, second), why=why)


def _on_average(
    a: Results, b: Results, joint: Results, names: tuple[str, str], tasks: list[str], resamples: int, level: float
) -> Across:
    first, second = names
    rows = [(find_row(a.rows, first, task), find_row(b.rows, second, task)) for task in tasks]
    why = next((why for one, other in rows if one and other and (why := _unpairable(a, b, one, other))), "")
    given = (joint, first, second + _SECOND, tasks)
    versus = None if why else compare_average(*given, resamples=resamples, level=level)
    return Across(first, second, "", None, _named(versus or compare_unpaired(*given, level=level), second), why=why)


def _unpairable(a: Results, b: Results, one: Row, other: Row) -> str:
    if not one.samples or not other.samples:
        return "no scores per sample"
    if len(one.samples) != len(other.samples):
        return f"{len(one.samples)} samples and {len(other.samples)}"
    first, second = _pin(a, one), _pin(b, other)
    return "" if first == second else "the task's content differs"


def _pin(results: Results, row: Row) -> str:
    """What the record says the task consists of."""
    record = next((record for record in results.records if record.step.id == row.record), None)
    return record.step.pins.get(row.task, "") if record else ""


def _named(found: Comparison | None, second: str) -> Comparison | None:
    return replace(found, b=second) if found else None
