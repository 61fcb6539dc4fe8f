"""The merges: how much of each expert's gain they keep, and every one of the sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mixmerge import Model, Results, Row
from mixmerge.results import best_by_method, experts_of, gain_kept, objective, primary_metric

from . import content, words


@dataclass(frozen=True)
class Kept:
    """How much of each expert's gain a model keeps: 1.0 is all of it. `error` is the model's own standard error on the
    same scale."""

    name: str
    model: str
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


def gained(results: Results) -> tuple[str, ...]:
    """The tasks on which an expert beats the base."""
    names = experts_of(results.models)
    return tuple(
        task
        for task in content.compared_on(results)
        if any(gain_kept(results, name, task) is not None for name in names)
    )


def gains(results: Results, lines: Sequence[content.Entries]) -> tuple[Kept, ...]:
    """One `Kept` for the mixtures and the merges of the table that have a share on every task with a gain."""
    found = []
    for entries in lines:
        line = entries.line
        if line.kind not in ("mixture", "merge", "model"):
            continue
        shares = [(task, gain_kept(results, line.model, task)) for task in content.compared_on(results)]
        known = tuple(
            (task, share, _share_error(results, line.model, task, share)) for task, share in shares if share is not None
        )
        if known:
            found.append(Kept(entries.name, line.model, line.kind, known))
    return tuple(found)


def _share_error(results: Results, model: str, task: str, share: float) -> float | None:
    metric = primary_metric(results.rows, task)
    rows = {row.model: row for row in results.rows if (row.task, row.metric) == (task, metric)}
    base = next((row for row in rows.values() if row.kind == "base"), None)
    row = rows[model]
    if base is None or row.stderr is None or not share or row.value == base.value:
        return None
    return abs(row.stderr * share / (row.value - base.value))


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


def sweep_heads(results: Results) -> tuple[content.Head, ...]:
    """Heads of the primary metrics of `choose_on`."""
    return tuple(found for task in results.choose_on if (found := content.primary_head(results, task)))


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


def score_text(row: Row | None, head: content.Head) -> str:
    """ "92.5 ± 2.9", or "–" for a score that is not there."""
    if row is None:
        return "–"
    error = f" ± {words.number(row.stderr * head.scale, head.digits)}" if row.stderr is not None else ""
    return words.number(row.value * head.scale, head.digits) + error
