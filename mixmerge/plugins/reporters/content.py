"""What a report says, before any format: the table's cells as text, the records behind them, models, diagnostics."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from mixmerge import Record, Results
from mixmerge.results import (
    EXPERTS,
    Cell,
    Column,
    Line,
    Table,
    experts_of,
    primary_metric,
    table,
)

from . import words


@dataclass(frozen=True)
class Head:
    """A column head. `scale` turns a stored value into the shown one: 100 where k of n is shown in percent."""

    task: str
    metric: str
    label: str
    unit: str
    arrow: str
    gloss: str
    primary: bool
    scale: float
    digits: int
    against: str
    first: bool = False


@dataclass(frozen=True)
class Entry:
    """One cell, ready to print: `value` and `error` share their decimals, `count` is "74 of 80" or "n = 80"."""

    value: str
    error: str
    count: str
    change: str
    best: bool
    near: bool
    record: str
    hint: str


@dataclass(frozen=True)
class Entries:
    """One line of the table. `detail` says what the name leaves out; `record` stands behind the average."""

    line: Line
    name: str
    kind: str
    detail: str
    cells: tuple[Entry | None, ...]
    average: str
    interval: str
    record: str = ""


@dataclass(frozen=True)
class Sheet:
    """The main table: `tasks` in order with the number of their columns; those in `beside` decide nothing."""

    tasks: tuple[tuple[str, int], ...]
    beside: tuple[str, ...]
    heads: tuple[Head, ...]
    lines: tuple[Entries, ...]
    counted: bool


def compared_on(results: Results) -> tuple[str, ...]:
    """The tasks of the main table: `report_on`, else `choose_on`, else whatever was scored."""
    return results.report_on or results.choose_on or tuple(dict.fromkeys(row.task for row in results.rows))


def sheet(results: Results, *, primary_only: bool = False) -> Sheet:
    """The table in the paper's layout with every number as text."""
    found = _table(results)
    kept = [index for index, column in enumerate(found.columns) if column.primary or not primary_only]
    heads = tuple(head(results, found.columns[index]) for index in kept)
    heads = tuple(
        replace(one, first=place == 0 or one.task != heads[place - 1].task) for place, one in enumerate(heads)
    )
    records = {record.step.id: record for record in results.records}
    lines = []
    for line in found.lines:
        cells = [line.cells[index] for index in kept]
        entries = tuple(
            _entry(results, records, cell, one) if cell else None for cell, one in zip(cells, heads, strict=True)
        )
        lines.append(_entries(results, line, entries))
    names = [one.task for one in heads]
    tasks = tuple((task, names.count(task)) for task in dict.fromkeys(names))
    counted = any(entry and "of" in entry.count for line in lines for entry in line.cells)
    beside = tuple(task for task in results.also_on if task not in compared_on(results))
    return Sheet(tasks, beside, heads, tuple(lines), counted)


def _table(results: Results) -> Table:
    """`also_on` adds columns, and has no part in the average."""
    decisive = table(results, compared_on(results))
    beside = tuple(task for task in results.also_on if task not in compared_on(results))
    if not beside:
        return decisive
    averages = {line.model: line for line in decisive.lines}
    wide = table(results, (*compared_on(results), *beside))
    return replace(wide, lines=tuple(_with_average(line, averages.get(line.model)) for line in wide.lines))


def _with_average(line: Line, of: Line | None) -> Line:
    if of is None:
        return replace(line, average=None, versus=None, best=False, near_best=False)
    return replace(line, average=of.average, versus=of.versus, best=of.best, near_best=of.near_best)


def head(results: Results, column: Column) -> Head:
    """How to show a column; scale and decimals are those of all models on that task, so that tables agree."""
    rows = [row for row in results.rows if (row.task, row.metric) == (column.task, column.metric)]
    # A recorded score that is k of n for no whole k has none, among others that have.
    counted = any(row.k is not None for row in rows) and all(0 <= row.value <= 1 for row in rows)
    scale = 100.0 if counted else 1.0
    values = [row.value * scale for row in rows]
    errors = [row.stderr * scale if row.stderr is not None else None for row in rows]
    shown = words.metric(column.metric, values, counted=counted)
    arrow = "↑" if column.higher_is_better else "↓"
    digits = words.decimals(errors, values)
    return Head(
        column.task,
        column.metric,
        shown.label,
        shown.unit,
        arrow,
        shown.gloss,
        column.primary,
        scale,
        digits,
        column.against,
    )


def primary_head(results: Results, task: str) -> Head | None:
    """The head of the metric that stands for `task`, None when nothing was scored on it."""
    metric = primary_metric(results.rows, task)
    row = next((row for row in results.rows if (row.task, row.metric) == (task, metric)), None)
    return head(results, Column(task, row.metric, row.higher_is_better, True, "")) if row else None


def _entry(results: Results, records: Mapping[str, Record], cell: Cell, head: Head) -> Entry:
    error = words.number(cell.stderr * head.scale, head.digits) if cell.stderr is not None else ""
    count = f"{cell.k:,} of {cell.n:,}" if cell.k is not None else f"n = {cell.n:,}"
    known = records.get(cell.record)
    hint = f"record {cell.record} · {count} · {_hint(known, results)}" if cell.record else count
    value = words.number(cell.value * head.scale, head.digits)
    return Entry(value, error, count, words.percent(cell.change), cell.best, cell.near_best, cell.record, hint)


def _hint(record: Record | None, results: Results) -> str:
    if record is None:
        return f"seed {results.seed}"
    versions = ", ".join(f"{name} {version}" for name, version in list(record.versions.items())[:4])
    return f"{record.step.component} {record.step.version} · seed {record.step.seed} · {versions}"


def _entries(results: Results, line: Line, cells: tuple[Entry | None, ...]) -> Entries:
    versus = line.versus
    interval = f"{words.percent(versus.low)} to {words.percent(versus.high)}" if versus else ""
    average = words.percent(line.average) if line.average is not None else ""
    kind = words.KINDS.get(line.kind, line.kind)
    if line.model == EXPERTS:  # it is made of several models, so it is no "best single model"
        cells = tuple(replace(cell, best=False, near=False) if cell else None for cell in cells)
    record = next((cell.record for cell in cells if cell and cell.record), "")
    return Entries(line, short_name(line), kind, _detail(results, line), cells, average, interval, record)


def short_name(line: Line) -> str:
    """A merge is called by its method and weights, everything else by its name."""
    return "experts, each on its own task" if line.model == EXPERTS else line.model


def _detail(results: Results, line: Line) -> str:
    if line.model == EXPERTS:
        own: dict[str, list[str]] = {}
        for one in _own_tasks(results):
            own.setdefault(one.against, []).append(one.task)
        return "; ".join(f"{expert} on {words.listing(tasks)}" for expert, tasks in own.items())
    if line.kind == "merge":
        settings = words.settings(line.settings)
        return "" if f"({settings})" in line.model else settings
    return ""


def _own_tasks(results: Results) -> Iterator[Column]:
    from mixmerge.results import best_expert

    for task in compared_on(results):
        if (metric := primary_metric(results.rows, task)) and (name := best_expert(results, task)):
            yield Column(task, metric, True, True, name)


# ---- in words -------------------------------------------------------------------------------------------------------


def summary(results: Results) -> str:
    """One or two sentences: what was trained, merged, chosen and compared."""
    kinds = [model.kind for model in results.models]
    methods = dict.fromkeys(model.method for model in results.models if model.kind == "merge")
    parts = [
        words.plural(len(experts_of(results.models)), "expert"),
        words.plural(kinds.count("mixture"), "mixture"),
        words.plural(kinds.count("merge"), "merge")
        + (f" by {words.plural(len(methods), 'method')}" if methods else ""),
    ]
    text = f"{words.listing([part for part in parts if not part.startswith('0 ')])}"
    if results.choose_on and results.report_on and set(results.choose_on) != set(results.report_on):
        chosen, compared = words.listing(results.choose_on), words.listing(results.report_on)
        text = f"{text}. Winners were chosen on {chosen}; {compared}, compared here, had no say in the choice"
    if results.also_on:
        text = f"{text}. {words.listing(results.also_on)} stand beside them and decide nothing"
    return f"{text}."


def warnings(results: Results) -> tuple[str, ...]:
    """What a reader must know before believing the table."""
    found = []
    if shared := sorted(set(results.choose_on) & set(results.report_on)):
        found.append(
            f"{words.listing(shared)} both chose the winners and compares them here: the winners' scores are too good, "
            "because the luckiest of many was picked."
        )
    elif results.choose_on and not results.report_on:
        found.append("Winners are compared on the tasks that chose them: their scores are too good.")
    return tuple(found)


def sentence(results: Results, text: str, answer: str = "") -> str:
    """An advisor's or a note's words as a sentence: without the leading "merge:", with a capital and a full stop.

    A name of a model keeps its first letter.
    """
    text = text.strip().removeprefix(f"{answer}:").strip() if answer else text.strip()
    if not text:
        return ""
    names = {model.name for model in results.models} | {row.task for row in results.rows}
    first = text.split()[0].rstrip(",:")
    named = any(text.startswith(name) for name in names) or any(sign in first for sign in "_/@.") or first[:1].isdigit()
    text = text if named else text[:1].upper() + text[1:]
    # Signs as print has them, and no line break between a number and what belongs to it.
    text = re.sub(r"(?<![\w.-])-(?=\d)", words.MINUS, text)
    text = re.sub(r"(?<=\d) (?=%)|(?<=\b[np]) (?=[=<])|(?<=\b[np] [=<]) (?=\d)", words.NO_BREAK, text)
    return text if text[-1] in ".!?" else f"{text}."
