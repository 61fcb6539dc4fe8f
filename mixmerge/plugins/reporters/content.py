"""What a report says, before any format: the table's cells as text, the records behind them, models, diagnostics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mixmerge import Model, Record, Results, Row
from mixmerge.results import (
    EXPERTS,
    Cell,
    Column,
    Line,
    best_by_method,
    experts_of,
    gain_kept,
    objective,
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
    """One line of the table. `detail` says what the name leaves out; `kept` the share of the gain per task."""

    line: Line
    name: str
    kind: str
    detail: str
    cells: tuple[Entry | None, ...]
    average: str
    interval: str


@dataclass(frozen=True)
class Sheet:
    """The main table: `tasks` in order with the number of their columns."""

    tasks: tuple[tuple[str, int], ...]
    heads: tuple[Head, ...]
    lines: tuple[Entries, ...]
    counted: bool


def compared_on(results: Results) -> tuple[str, ...]:
    """The tasks of the main table: `report_on`, else `choose_on`, else whatever was scored."""
    return results.report_on or results.choose_on or tuple(dict.fromkeys(row.task for row in results.rows))


def sheet(results: Results, *, primary_only: bool = False) -> Sheet:
    """The table in the paper's layout with every number as text."""
    found = table(results, compared_on(results))
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
    return Sheet(tasks, heads, tuple(lines), counted)


def head(results: Results, column: Column) -> Head:
    """How to show a column; scale and decimals are those of all models on that task, so that tables agree."""
    rows = [row for row in results.rows if (row.task, row.metric) == (column.task, column.metric)]
    counted = bool(rows) and all(row.k is not None and 0 <= row.value <= 1 for row in rows)
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
    return Entries(line, short_name(line), kind, _detail(results, line), cells, average, interval)


def short_name(line: Line) -> str:
    """A merge is called by its method and weights, everything else by its name."""
    return "experts, each on its own task" if line.model == EXPERTS else line.model


def _detail(results: Results, line: Line) -> str:
    if line.model == EXPERTS:
        return ", ".join(dict.fromkeys(f"{one.against} on {one.task}" for one in _own_tasks(results)))
    if line.kind == "merge":
        return words.settings(line.settings)
    return ""


def _own_tasks(results: Results) -> Iterator[Column]:
    from mixmerge.results import best_expert

    for task in compared_on(results):
        if (metric := primary_metric(results.rows, task)) and (name := best_expert(results, task)):
            yield Column(task, metric, True, True, name)


@dataclass(frozen=True)
class Kept:
    """How much of each expert's gain a model keeps: 1.0 is all of it. `error` is the model's own standard error on the
    same scale."""

    name: str
    kind: str
    shares: tuple[tuple[str, float, float | None], ...]

    @property
    def worst(self) -> float:
        return min((share for _, share, _ in self.shares), default=math.nan)

    def text(self, task: str) -> str:
        """The share on `task` in percent, with its standard error."""
        for name, share, error in self.shares:
            if name == task:
                shown = f" ± {words.number(100 * error, 0)}" if error is not None else ""
                return f"{words.number(100 * share, 0)}{shown}"
        return "–"


def gains(results: Results, lines: Sequence[Entries]) -> tuple[Kept, ...]:
    """One `Kept` for the mixtures and the merges of the table that have a share on every task with a gain."""
    found = []
    for entries in lines:
        line = entries.line
        if line.kind not in ("mixture", "merge", "model"):
            continue
        shares = [(task, gain_kept(results, line.model, task)) for task in compared_on(results)]
        known = tuple(
            (task, share, _share_error(results, line.model, task, share)) for task, share in shares if share is not None
        )
        if known:
            found.append(Kept(entries.name, line.kind, known))
    return tuple(found)


def _share_error(results: Results, model: str, task: str, share: float) -> float | None:
    metric = primary_metric(results.rows, task)
    rows = {row.model: row for row in results.rows if (row.task, row.metric) == (task, metric)}
    base = next((row for row in rows.values() if row.kind == "base"), None)
    row = rows[model]
    if base is None or row.stderr is None or not share or row.value == base.value:
        return None
    return abs(row.stderr * share / (row.value - base.value))


# ---- the whole sweep ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SweepLine:
    """One merge with its scores on `choose_on`; `objective` is the mean relative change that winners are chosen by."""

    model: Model
    label: str
    scores: tuple[str, ...]
    records: tuple[str, ...]
    objective: str
    winner: bool
    of_method: bool


def sweep_heads(results: Results) -> tuple[Head, ...]:
    """Heads of the primary metrics of `choose_on`."""
    return tuple(found for task in results.choose_on if (found := primary_head(results, task)))


def sweep(results: Results) -> tuple[SweepLine, ...]:
    """Every merge that has a score on `choose_on`, in the order of the sweep."""
    heads = sweep_heads(results)
    rows = {(row.model, row.task, row.metric): row for row in results.rows}
    best = set(best_by_method(results.rows, results.models, results.choose_on).values())
    experts = experts_of(results.models)
    lines = []
    for model in results.models:
        found = [rows.get((model.name, one.task, one.metric)) for one in heads]
        if model.kind != "merge" or not any(found):
            continue
        value = objective(results.rows, model.name, results.choose_on, experts=experts) if all(found) else None
        scores = tuple(score_text(row, one) for row, one in zip(found, heads, strict=True))
        records = tuple(row.record if row else "" for row in found)
        won = model.name in results.winners.values()
        lines.append(SweepLine(model, model.name, scores, records, words.percent(value), won, model.name in best))
    return tuple(lines)


def score_text(row: Row | None, head: Head) -> str:
    """ "92.5 ± 2.9", or "–" for a score that is not there."""
    if row is None:
        return "–"
    error = f" ± {words.number(row.stderr * head.scale, head.digits)}" if row.stderr is not None else ""
    return words.number(row.value * head.scale, head.digits) + error


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
        return f"{text}. Winners were chosen on {chosen}; {compared}, compared here, had no say in the choice."
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
    return text if text[-1] in ".!?" else f"{text}."
