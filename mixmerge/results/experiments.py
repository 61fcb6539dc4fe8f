"""Recorded lines to experiments: what stands for the base, the experts, the mixtures and the merges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..recorded import RecordedLine, RecordedTable, ScoreColumn
from ..types import Model, Row, content_id

GROUP = "merged"

HALF_A_DIGIT = 0.0005 + 1e-9
"""Counted scores are printed with three decimals: farther off, a score is no k of n, and none is made up for it."""


@dataclass(frozen=True)
class Experiment:
    """One experiment of recorded tables: its models and their scores, none with samples."""

    name: str
    models: tuple[Model, ...]
    rows: tuple[Row, ...]


def experiments(tables: Sequence[RecordedTable], lines: Sequence[RecordedLine], record: str) -> list[Experiment]:
    """One for each experiment of each entry, in the order of the lines; `record` is the step that read them.

    Of lines about the same model the first counts. A merge without weights is left out where the same method has merges
    with weights: it quotes one of them. Base, experts and mixtures of an entry that lies `behind` another are that
    other's; its experiments carry the entry's name too.
    """
    found = []
    for table in tables:
        own = [line for line in lines if line.entry == table.name]
        for name in dict.fromkeys(line.experiment for line in own):
            chosen = [line for line in own if line.experiment == name]
            if table.behind:
                others = [line for line in lines if (line.entry, line.experiment) == (table.behind, name)]
                chosen = [line for line in others if line.kind != "merge"] + chosen
            title = f"{name} ({table.name.replace('_', ' ')})" if table.behind else name
            found.append(_experiment(title, tables, chosen, record))
    return found


def _experiment(name: str, tables: Sequence[RecordedTable], lines: Sequence[RecordedLine], record: str) -> Experiment:
    swept = {line.method for line in lines if line.weights}
    lines = [line for line in lines if line.kind != "merge" or line.weights or line.method not in swept]
    experts = tuple(dict.fromkeys(owner for line in lines for owner in line.owners.values()))
    columns = {table.name: {one.task: one for one in table.scores.values()} for table in tables}
    models: dict[str, Model] = {}
    rows: list[Row] = []
    for line in sorted(lines, key=lambda line: ("base", "experts", "mixture", "merge").index(line.kind)):
        new = [model for model in _models(name, line, experts) if model.name not in models]
        models |= {model.name: model for model in new}
        rows += [row for model in new for row in _rows(model, line, columns[line.entry], record)]
    return Experiment(name, tuple(models.values()), tuple(rows))


def _models(experiment: str, line: RecordedLine, experts: tuple[str, ...]) -> Iterator[Model]:
    if line.kind == "experts":
        for owner in dict.fromkeys(line.owners.values()):
            yield Model(owner, "expert", content_id([experiment, owner]))
        return
    settings = {"method": line.method, "weights": list(line.weights), **line.settings} if line.kind == "merge" else {}
    yield Model(
        line.name,
        line.kind,
        content_id([experiment, line.name]),
        group=GROUP if line.kind == "merge" else "",
        method=line.method if line.kind == "merge" else "",
        weights=line.weights,
        experts=experts if line.kind == "merge" else (),
        settings=settings,
    )


def _rows(model: Model, line: RecordedLine, columns: Mapping[str, ScoreColumn], record: str) -> Iterator[Row]:
    for task, value in line.values.items():
        if model.kind == "expert" and line.owners.get(task) != model.name:
            continue
        column = columns[task]
        counted = column.counted and column.n > 0
        k = round(value * column.n)
        yield Row(
            model.name,
            model.kind,
            task,
            column.metric,
            value,
            math.sqrt(value * (1 - value) / column.n) if counted and 0 <= value <= 1 else None,
            column.n,
            k if counted and abs(k / column.n - value) <= HALF_A_DIGIT else None,
            column.higher_is_better,
            True,
            (),
            model.settings,
            record,
        )
