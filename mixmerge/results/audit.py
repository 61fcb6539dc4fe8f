"""What recorded figures do not support: averages that do not follow from their row, rows that stand twice, counts that
are none. Only what is printed is used, and the rounding of what is printed is allowed for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from ..recorded import RecordedLine, RecordedTable, ScoreColumn
from ..types import Doubt, Results

AVERAGE_TOLERANCE = 0.05
"""Percent points that a printed average may be off: averages are printed with two decimals from scores with three or
four, which moves them by 0.03 or so."""

CHANGE_DIGITS = 2
"""Decimals of a printed change; half of the last one is allowed for, beside the rounding of the scores."""


@dataclass(frozen=True)
class _Task:
    """A task with the decimals that its scores are printed with: trailing zeros get lost, so it is the most of any."""

    column: ScoreColumn
    digits: int

    @property
    def unit(self) -> float:
        return float(10.0**-self.digits)


def audit(tables: Sequence[RecordedTable], lines: Sequence[RecordedLine]) -> list[Doubt]:
    """Every doubt about the lines of `tables`, in the order of the lines.

    average    the printed average is more than AVERAGE_TOLERANCE from the mean of the changes against the experts of
               the same table, computed from the printed scores
    reference  a printed change is one against the experts as another table prints them, who differ
    sign       a printed change is right but for its sign
    change     a printed change follows from no experts' row, whatever the scores were before rounding
    count      a score is k of n for no whole k
    identical  two merges of one table agree in every counted score, and in all others but one at the most, to within a
               unit of the last digit
    quoted     a line names a method without its weights, and no merge of that method has these scores
    source     a merge differs from the line behind it, the one that it agrees with most
    """
    tasks = {table.name: _tasks(table, [line for line in lines if line.entry == table.name]) for table in tables}
    found = [doubt for line in lines for doubt in _of_line(line, tasks[line.entry], lines)]
    found += [doubt for table in tables for doubt in _identical(table, tasks[table.name], lines)]
    behind = {table.behind: table.name for table in tables if table.behind}
    for line in lines:
        if line.entry in behind and line.kind == "merge":
            own = [one for one in lines if (one.entry, one.experiment) == (behind[line.entry], line.experiment)]
            found += _against_source(line, tasks[line.entry], own)
    order = {line.place: number for number, line in enumerate(lines)}
    return sorted(found, key=lambda doubt: order[doubt.place])


KINDS = {
    "average": "printed averages that do not follow from their row",
    "sign": "changes with the sign turned",
    "reference": "changes against the experts of another table",
    "change": "changes that follow from no experts' row",
    "count": "scores that are k of n for no whole k",
    "identical": "pairs of rows that are the same",
    "quoted": "rows that quote a merge which is not there",
    "source": "rows that differ from the file behind them",
}
"""What each kind of doubt is, in the plural, in the order of a report."""


def tally(results: Results) -> list[tuple[str, str]]:
    """What was doubted how often, in the order of KINDS: ("printed averages that …", "79 of 180")."""
    printed: Mapping[str, int] = next(
        (record.outcome["printed"] for record in results.records if "printed" in record.outcome), {}
    )
    of = {"average": "average", "sign": "change", "reference": "change", "change": "change", "count": "count"}
    counts = {kind: sum(doubt.kind == kind for doubt in results.doubts) for kind in KINDS}
    return [
        (what, f"{counts[kind]:,} of {printed[of[kind]]:,}" if of.get(kind) in printed else f"{counts[kind]:,}")
        for kind, what in KINDS.items()
        if counts[kind]
    ]


def changes(line: RecordedLine, reference: RecordedLine, tasks: Mapping[str, _Task]) -> dict[str, float]:
    """Task to the change of `line` against `reference` in percent, positive is better, from the printed scores."""
    return {
        task: 100 * (1 if one.column.higher_is_better else -1) * (line.values[task] / reference.values[task] - 1)
        for task, one in tasks.items()
        if task in line.values and reference.values.get(task)
    }


def _tasks(table: RecordedTable, lines: Sequence[RecordedLine]) -> dict[str, _Task]:
    return {
        column.task: _Task(column, max((_digits(line.values.get(column.task, 0.0)) for line in lines), default=0))
        for column in table.scores.values()
    }


def _digits(value: float) -> int:
    return len(f"{value:.10f}".rstrip("0").partition(".")[2])


def _of_line(line: RecordedLine, tasks: Mapping[str, _Task], lines: Sequence[RecordedLine]) -> Iterator[Doubt]:
    experts = [
        one for one in lines if (one.kind, one.entry, one.experiment) == ("experts", line.entry, line.experiment)
    ]
    own = next((one for one in experts if one.table == line.table), experts[0] if experts else None)
    for task, one in tasks.items():
        if one.column.counted and task in line.values and not _is_count(line.values[task], one):
            text = f"{task} is {line.values[task]:g}, which is k of {one.column.n} for no whole k"
            yield _doubt("count", line, text, line.values[task])
    if own is None:
        return
    others = [one for one in experts if one.table != own.table]
    for task, change in line.changes.items():
        if doubt := _of_change(line, tasks[task], change, own, others):
            yield doubt
    computed = list(changes(line, own, tasks).values())
    if line.average is not None and len(computed) == len(tasks):
        mean = sum(computed) / len(computed)
        if abs(mean - line.average) > AVERAGE_TOLERANCE:
            text = f"the average is printed as {line.average:+.2f} %, and its row gives {mean:+.2f} %"
            yield _doubt("average", line, text, line.average, mean)
    if line.kind == "merge" and not line.weights and not _is_quoted(line, lines):
        yield _doubt("quoted", line, f"no {line.method} merge of {line.experiment} has these scores")


def _is_count(value: float, task: _Task) -> bool:
    """Whether some whole k of n is printed as `value`, which is then its nearest."""
    return abs(round(value * task.column.n) / task.column.n - value) <= task.unit / 2 + 1e-9


def _of_change(
    line: RecordedLine, task: _Task, printed: float, own: RecordedLine, others: Sequence[RecordedLine]
) -> Doubt | None:
    name = task.column.task
    computed = changes(line, own, {name: task}).get(name)
    if computed is None or _follows(line, own, task, printed):
        return None
    said = f"{name} is printed as {printed:+.2f} %, and its row gives {computed:+.2f} %"
    for other in others:
        if _follows(line, other, task, printed):
            text = (
                f"{said}: it is the change against {own.name} of {other.table}, printed there as {other.values[name]:g}"
            )
            return _doubt("reference", line, f"{text} and here as {own.values[name]:g}", printed, computed)
    kind = "sign" if _follows(line, own, task, -printed) else "change"
    return _doubt(kind, line, said, printed, computed)


def _follows(line: RecordedLine, reference: RecordedLine, task: _Task, printed: float) -> bool:
    """Whether the change could be printed so, for some scores that round to the printed ones."""
    name = task.column.task
    computed = changes(line, reference, {name: task}).get(name)
    if computed is None:
        return False
    value, against = line.values[name], reference.values[name]
    slack = 100 * task.unit / 2 * (1 + abs(value / against)) / abs(against)
    return bool(abs(printed - computed) <= slack + 0.5 * 10**-CHANGE_DIGITS + 1e-9)


def _identical(table: RecordedTable, tasks: Mapping[str, _Task], lines: Sequence[RecordedLine]) -> Iterator[Doubt]:
    merges = [line for line in lines if line.entry == table.name and line.kind == "merge"]
    for first, second in combinations(merges, 2):
        if (first.experiment, first.table) != (second.experiment, second.table):
            continue
        if not set(tasks) == set(first.values) == set(second.values):
            continue
        apart = [task for task in tasks if first.values[task] != second.values[task]]
        far = [t for t in apart if abs(first.values[t] - second.values[t]) > 1.01 * tasks[t].unit]
        if len(far) > 1 or any(tasks[task].column.counted for task in apart):
            continue
        but = ", ".join(f"{t} {first.values[t]:g} and {second.values[t]:g}" for t in apart)
        text = f"{first.name} and {second.name} are the same row" + (f" but for {but}" if but else "")
        yield Doubt("identical", second.place, first.experiment, first.table, f"{first.name} = {second.name}", text)


def _is_quoted(line: RecordedLine, lines: Sequence[RecordedLine]) -> bool:
    """Whether a merge of that method has these scores; True where none is listed, so that there is nothing to quote."""
    swept = [
        one
        for one in lines
        if (one.entry, one.experiment, one.method) == (line.entry, line.experiment, line.method) and one.weights
    ]
    return not swept or any(one.values == line.values for one in swept)


def _against_source(line: RecordedLine, tasks: Mapping[str, _Task], sources: Sequence[RecordedLine]) -> Iterator[Doubt]:
    """Where it agrees with a line of the source on more than half of the scores, the scores on which it does not."""
    best = max(sources, key=lambda one: _agreement(line, one, tasks), default=None)
    if best is None or not len(tasks) / 2 < _agreement(line, best, tasks) < len(tasks):
        return
    apart = [task for task in tasks if not _agrees(line, best, tasks[task])]
    cells = ", ".join(f"{task} {line.values[task]:g} and {best.values.get(task, math.nan):g}" for task in apart)
    yield _doubt("source", line, f"printed and in its file ({best.place}, {best.name}): {cells}")


def _agreement(line: RecordedLine, other: RecordedLine, tasks: Mapping[str, _Task]) -> int:
    return sum(_agrees(line, other, task) for task in tasks.values())


def _agrees(line: RecordedLine, other: RecordedLine, task: _Task) -> bool:
    name = task.column.task
    both = name in line.values and name in other.values
    return both and abs(line.values[name] - other.values[name]) <= task.unit / 2 + 1e-9


def _doubt(
    kind: str, line: RecordedLine, text: str, printed: float | None = None, computed: float | None = None
) -> Doubt:
    return Doubt(kind, line.place, line.experiment, line.table, line.name, text, printed, computed)
