"""The table in the paper's layout, and the series of the sweep plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..types import Model, Results, Row
from .paired import RESAMPLES, Comparison, compare, compare_average, compare_rows, compare_unpaired
from .rows import (
    EXPERTS,
    base_name,
    best_by_method,
    experts_of,
    find_row,
    finite,
    first_best,
    primary_metric,
    reference_row,
    relative_change,
    resolve,
)

Scores = Mapping[tuple[str, str, str], Row]


@dataclass(frozen=True)
class Column:
    """One metric of one task. `against` is the model whose score is the reference ("" when there is none)."""

    task: str
    metric: str
    higher_is_better: bool
    primary: bool
    against: str


@dataclass(frozen=True)
class Cell:
    """One score, `record` being the id of the step that gave it.

    change     relative change in percent, None without a reference
    best       the best single model of the column; `near_best`: its paired interval against the best includes zero
    """

    value: float
    stderr: float | None
    n: int
    k: int | None
    change: float | None
    best: bool = False
    near_best: bool = False
    record: str = ""


@dataclass(frozen=True)
class Line:
    """One row of the table. `model` is EXPERTS for the combined row; `kind` is a Kind, or "experts" for that row.

    cells      one per column, None where there is no score
    average    mean over the tasks of the relative change of the primary metric, percent; None unless all are there
    versus     that average against the experts (or the base), with its interval, paired where there are samples; None
               where no noise is known
    winner     whether this merge won its group on `choose_on`
    """

    model: str
    kind: str
    cells: tuple[Cell | None, ...]
    average: float | None = None
    versus: Comparison | None = None
    best: bool = False
    near_best: bool = False
    winner: bool = False
    group: str = ""
    method: str = ""
    weights: tuple[float, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """The paper's layout: base, experts together and one by one, mixtures, the best merge per method, references."""

    tasks: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class SeriesPoint:
    """`x` is the first weight; `value` and `stderr` in the metric's unit."""

    x: float
    value: float
    stderr: float | None
    n: int
    model: str
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Series:
    """One line of the sweep plot: a method with its other swept settings fixed, by ascending x."""

    label: str
    task: str
    metric: str
    points: tuple[SeriesPoint, ...]


def table(results: Results, tasks: Sequence[str], *, resamples: int = RESAMPLES) -> Table:
    """Scores on `tasks` in the paper's layout; see `Line`, `Cell` and `Column` for what each number is.

    Merges shown are the best of each method in each group (chosen on `choose_on`); a line without any score on `tasks`
    is left out. "Best" is among single models: neither the combined row of experts nor a reference competes, and the
    combined row takes its marks from the experts it is made of.
    """
    scores = {(row.model, row.task, row.metric): row for row in reversed(results.rows)}
    columns = tuple(_columns(results, tasks))
    lines = [_line(results, scores, columns, line, tasks) for line in _blank_lines(results)]
    lines = [line for line in lines if any(line.cells)]
    for index, column in enumerate(columns):
        lines = _mark_cells(results, lines, index, column, resamples)
    lines = [replace(line, **_versus(results, line, tasks, resamples)) for line in lines]
    return Table(tuple(tasks), columns, tuple(_mark_averages(results, lines, tasks, resamples)))


def sweep_series(
    results: Results, group: str, method: str, task: str, *, metric: str | None = None
) -> tuple[Series, ...]:
    """The scores of a method's merges by the first expert's share of the weights (`share`): one Series for each
    combination of the other settings.

    Merges without a score on `task` or without weights are left out; () when none is left.
    """
    wanted = metric or primary_metric(results.rows, task)
    scores = {row.model: row for row in results.rows if (row.task, row.metric) == (task, wanted)}
    found: dict[str, list[SeriesPoint]] = {}
    for model in results.models:
        row = scores.get(model.name)
        if row and model.weights and model.kind == "merge" and (model.group, model.method) == (group, method):
            point = SeriesPoint(share(model.weights), row.value, row.stderr, row.n, model.name, model.weights)
            found.setdefault(_series_label(results, model), []).append(point)
    return tuple(
        Series(label, task, wanted or "", tuple(sorted(points, key=lambda point: point.x)))
        for label, points in found.items()
    )


def share(weights: Sequence[float]) -> float:
    """The first weight's share of their sum, so that 1/1 stands where 0.5/0.5 does; itself where there is no sum to
    share, as with one expert or with weights under zero."""
    return weights[0] / sum(weights) if len(weights) > 1 and min(weights) >= 0 < sum(weights) else weights[0]


def sweeps(results: Results) -> tuple[tuple[str, str], ...]:
    """Every (merge group, method) of the experiment, in the order of the sweep."""
    return tuple(dict.fromkeys((model.group, model.method) for model in results.models if model.kind == "merge"))


def _columns(results: Results, tasks: Sequence[str]) -> Iterator[Column]:
    names = experts_of(results.models)
    for task in tasks:
        first = primary_metric(results.rows, task)
        by_metric = {row.metric: row for row in reversed(results.rows) if row.task == task}
        order = dict.fromkeys(row.metric for row in results.rows if row.task == task)
        for metric in sorted(order, key=lambda metric: metric != first):  # the primary metric leads its task
            reference = reference_row(results.rows, task, metric, names)
            better = by_metric[metric].higher_is_better
            yield Column(task, metric, better, metric == first, reference.model if reference else "")


def _blank_lines(results: Results) -> Iterator[Line]:
    by_name = {model.name: model for model in results.models}
    experts = experts_of(results.models)
    shown = best_by_method(results.rows, results.models, results.choose_on)
    rest = [model for model in results.models if model.name not in experts]
    yield from (_model_line(results, model) for model in rest if model.kind == "base")
    if experts:
        yield Line(EXPERTS, "experts", ())
    yield from (_model_line(results, by_name[name]) for name in experts)
    yield from (_model_line(results, model) for model in rest if model.kind == "mixture")
    yield from (_model_line(results, model) for model in rest if model.kind == "model")
    yield from (_model_line(results, by_name[name]) for name in shown.values())
    references = dict.fromkeys(row.model for row in results.rows if row.kind == "reference")
    yield from (Line(name, "reference", ()) for name in references)


def _model_line(results: Results, model: Model) -> Line:
    return Line(
        model.name,
        model.kind,
        (),
        winner=model.name in results.winners.values(),
        group=model.group,
        method=model.method,
        weights=model.weights,
        settings=model.settings,
    )


def _series_label(results: Results, model: Model) -> str:
    like = (model.kind, model.group, model.method)
    all_settings = [
        _other_settings(other) for other in results.models if (other.kind, other.group, other.method) == like
    ]
    own = _other_settings(model)
    varied = [key for key, value in own.items() if any(other.get(key) != value for other in all_settings)]
    return f"{model.method}({', '.join(f'{key}={own[key]}' for key in varied)})" if varied else model.method


def _other_settings(model: Model) -> dict[str, Any]:
    """Settings that are neither the weights nor the method, with a swept method's own parameters among them."""
    others = {key: value for key, value in model.settings.items() if key not in ("weights", "method")}
    method = model.settings.get("method")  # a name, or {name: {parameter: value}}
    parameters = next(iter(method.values()), None) if isinstance(method, Mapping) else None
    return {**parameters, **others} if isinstance(parameters, Mapping) else others


def _line(results: Results, scores: Scores, columns: Sequence[Column], line: Line, tasks: Sequence[str]) -> Line:
    names = experts_of(results.models)
    cells: list[Cell | None] = []
    for column in columns:
        name = resolve(results, line.model, column.task)
        row = scores.get((name, column.task, column.metric)) if name else None
        cells.append(_cell(row, reference_row(results.rows, column.task, column.metric, names)) if row else None)
    primary = [cell for cell, column in zip(cells, columns, strict=True) if cell and column.primary]
    known = [cell.change for cell in primary if cell.change is not None]
    average = sum(known) / len(known) if known and len(known) == len(tasks) else None
    return replace(line, cells=tuple(cells), average=average)


def _cell(row: Row, reference: Row | None) -> Cell:
    change = relative_change(row, reference) if reference else None
    return Cell(row.value, row.stderr, row.n, row.k, change, record=row.record)


def _mark_cells(results: Results, lines: list[Line], index: int, column: Column, resamples: int) -> list[Line]:
    sign = 1 if column.higher_is_better else -1
    values = finite(
        {line.model: sign * cell.value for line in lines if _competes(line) and (cell := line.cells[index])}
    )
    best = first_best(values)
    if best is None:
        return lines

    def near(name: str) -> bool:
        pair = compare(results, name, best, column.task, metric=column.metric, resamples=resamples)
        if pair is None:
            rows = [find_row(results.rows, one, column.task, column.metric) for one in (name, best)]
            pair = compare_rows(rows[0], rows[1]) if rows[0] and rows[1] else None
        return pair is not None and not pair.decided

    near_best = {name for name, value in values.items() if value == values[best] or near(name)}
    marked = []
    for line in lines:
        cell, name = line.cells[index], resolve(results, line.model, column.task)
        if cell and name in values:
            cell = replace(cell, best=values[name] == values[best], near_best=name in near_best)
        marked.append(replace(line, cells=(*line.cells[:index], cell, *line.cells[index + 1 :])))
    return marked


def _versus(results: Results, line: Line, tasks: Sequence[str], resamples: int) -> dict[str, Any]:
    against = EXPERTS if experts_of(results.models) else base_name(results.rows)
    if line.average is None or not against or line.model == against:
        return {}
    return {"versus": _average(results, line.model, against, tasks, resamples)}


def _average(results: Results, a: str, b: str, tasks: Sequence[str], resamples: int) -> Comparison | None:
    paired = compare_average(results, a, b, tasks, resamples=resamples)
    return paired or compare_unpaired(results, a, b, tasks)


def _mark_averages(results: Results, lines: list[Line], tasks: Sequence[str], resamples: int) -> Iterator[Line]:
    values = finite({line.model: line.average for line in lines if _competes(line) and line.average is not None})
    best = first_best(values)
    for line in lines:
        if best is None or line.model not in values:
            yield line
            continue
        pair = _average(results, line.model, best, tasks, resamples)
        is_best = values[line.model] == values[best]
        yield replace(line, best=is_best, near_best=is_best or (pair is not None and not pair.decided))


def _competes(line: Line) -> bool:
    return line.kind not in ("experts", "reference")
