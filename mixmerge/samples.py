"""A few samples with what the models wrote, out of the logs that an evaluator left beside its scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .results import best_expert, best_mixture, find_row
from .results import winner_of as winner
from .store import Store
from .types import Results, Row, Sample, Written

PER_TASK = 6
LONGEST = 1_500
"""Characters of a text that are kept; what was left out is said."""


def side_by_side(results: Results, store: Store) -> tuple[Sample, ...]:
    """At most PER_TASK samples of each task of `report_on`: where the winning merge and the best mixture differ most,
    either way, then one that all models fail and one that all get right.

    Shown are base, the task's best expert, the mixture and the winner, as far as each has a log and a score for every
    sample; () for tasks with fewer than two of them.
    """
    return tuple(sample for task in results.report_on for sample in _of_task(results, store, task))


def _of_task(results: Results, store: Store, task: str) -> Iterator[Sample]:
    rows = [row for name in _models(results, task) if (row := find_row(results.rows, name, task)) and row.samples]
    files = {row.model: store.path(row.record) / f"samples_{task}.jsonl" for row in rows if row.record}
    rows = [row for row in rows if row.model in files and files[row.model].is_file()]
    if len(rows) < 2 or len({len(row.samples) for row in rows}) > 1:
        return
    chosen = _chosen(rows)
    logs = {row.model: _lines(files[row.model], set(chosen)) for row in rows}
    for index, why in chosen.items():
        said = [(row, logs[row.model][index]) for row in rows if index in logs[row.model]]
        answers = tuple(
            Written(row.model, _shortened(text), row.samples[index], _verdict(log), row.record)
            for row, log in said
            if (text := _text(log)) is not None
        )
        if len(answers) > 1:
            log = said[0][1]
            yield Sample(
                task, rows[0].metric, _name(log), why, _shortened(_prompt(log)), _shortened(_target(log)), answers
            )


def _models(results: Results, task: str) -> tuple[str, ...]:
    """Base, best expert, best mixture, winner: the last two are the ones that are compared."""
    base = next((model.name for model in results.models if model.kind == "base"), None)
    groups = dict.fromkeys(model.group for model in results.models if model.kind == "merge")
    won = [name for group in groups if (name := winner(results, group))]
    return tuple(
        dict.fromkeys(name for name in (base, best_expert(results, task), best_mixture(results), *won) if name)
    )


def _chosen(rows: Sequence[Row]) -> dict[int, str]:
    """Samples by number with the reason why; `rows` end with the two models that are compared."""
    first, second = rows[-2], rows[-1]
    sign = 1 if first.higher_is_better else -1
    ahead = [sign * (b - a) for a, b in zip(first.samples, second.samples, strict=True)]
    found: dict[int, str] = {}
    for better, worse, way in ((second.model, first.model, -1), (first.model, second.model, 1)):
        order = sorted(range(len(ahead)), key=lambda index: (way * ahead[index], index))
        found |= {i: f"{better} does better than {worse}" for i in order[:2] if way * ahead[i] < 0}
    worst = [max(sign * row.samples[i] for row in rows) for i in range(len(ahead))]
    best = [min(sign * row.samples[i] for row in rows[1:]) for i in range(len(ahead))]
    for values, extreme, why in (
        (worst, min(worst), "no model does well"),
        (best, max(best), "all but the base do well"),
    ):
        if (index := values.index(extreme)) not in found and len(found) < PER_TASK:
            found[index] = why
    return found


def _lines(path: Path, wanted: set[int]) -> dict[int, Mapping[str, Any]]:
    """The logged samples of these numbers, counted within the first filter, as `Score.samples` are."""
    found: dict[int, Mapping[str, Any]] = {}
    first, number = None, 0
    with open(path, encoding="utf-8") as file:
        for line in file:
            log = json.loads(line)
            first = log.get("filter") if first is None else first
            if log.get("filter") != first:
                continue
            if number in wanted:
                found[number] = log
            number += 1
            if len(found) == len(wanted):
                break
    return found


def _text(log: Mapping[str, Any]) -> str | None:
    """The first generation as the model wrote it; None where the task has none, such as a loss."""
    with suppress(KeyError, IndexError, TypeError):
        text = log["resps"][0][0]
        return text if isinstance(text, str) else None
    return None


def _prompt(log: Mapping[str, Any]) -> str:
    with suppress(KeyError, IndexError, TypeError):
        arguments = log["arguments"]
        first = arguments[0] if isinstance(arguments, list) else next(iter(arguments.values()))
        return str(first[0] if isinstance(first, list) else first["arg_0"])
    return ""


def _target(log: Mapping[str, Any]) -> str:
    target = log.get("target")
    return target if isinstance(target, str) else ""


def _name(log: Mapping[str, Any]) -> str:
    doc = log.get("doc")
    own = next((doc[key] for key in ("task_id", "id") if key in doc), None) if isinstance(doc, Mapping) else None
    return str(own if own is not None else log.get("doc_id", ""))


def _verdict(log: Mapping[str, Any]) -> str:
    """What a judge of programs said, where the task's filter keeps it."""
    with suppress(KeyError, IndexError):
        found = log["filtered_resps"][0]
        found = found[0] if isinstance(found, list) else found
        if isinstance(found, Mapping):
            status = found.get("status")
            words = [] if status in (None, "", "ok") else [str(status)]
            words += [
                f"{key} {found[key]}" for key in ("base", "plus") if found.get(key)
            ]  # EvalPlus' two sets of tests
            told = [", ".join(words), str(found.get("detail") or "")]
            return _shortened(": ".join(filter(None, told)), 160)
    return ""


def _shortened(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest:,} more characters)"
