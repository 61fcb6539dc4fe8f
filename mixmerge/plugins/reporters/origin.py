"""Where results come from: notes, the recipe, hosts and times, pins, and the record behind every number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mixmerge import Model, Record, Results

from . import words

INHERITED = (
    "Licences are as the sources state them; a merge inherits those of its base and of its experts. No legal advice."
)


def notes(results: Results) -> tuple[str, ...]:
    """Facts that a table must carry."""
    found = results.provenance.get("notes", ())
    return (found,) if isinstance(found, str) else tuple(str(note) for note in found)


def recipe_text(results: Results) -> str:
    """The recipe as it was given, "" when it is not known."""
    for key in ("recipe_text", "text", "recipe"):
        value = results.provenance.get(key)
        if isinstance(value, Mapping):
            value = value.get("text")
        if isinstance(value, str) and "\n" in value.strip():
            return value.strip("\n") + "\n"
    return ""


def recipe_name(results: Results) -> str:
    """The recipe's file name or name."""
    for key in ("recipe_file", "file", "recipe_name", "recipe", "name"):
        value = results.provenance.get(key)
        if isinstance(value, Mapping):
            value = value.get("file") or value.get("name")
        if isinstance(value, str) and value and "\n" not in value:
            return value
    return results.name if results.name.endswith((".yaml", ".yml")) else f"{results.name}.yaml"


def facts(results: Results) -> tuple[tuple[str, str], ...]:
    """Provenance as label and text: recipe, seed, host, times, versions, and whatever else the run noted."""
    given = dict(results.provenance)
    if results.records:
        given.setdefault("host", words.listing(list(dict.fromkeys(record.host for record in results.records))))
    found = [("Recipe", recipe_name(results)), ("Seed", str(results.seed)), *_times(results)]
    if results.records:
        busy = sum(record.finished - record.started for record in results.records)
        found.append(("Work", f"{words.plural(len(results.records), 'step')}, {words.duration(busy)} added up"))
        if kept := sum(record.bytes for record in results.records):
            found.append(("Size", words.size(kept)))
    known = {
        "notes",
        "contamination",
        "recipe",
        "recipe_text",
        "recipe_file",
        "recipe_name",
        "text",
        "file",
        "name",
        "started",
        "finished",
    }
    found.extend(
        (key.replace("_", " ").capitalize(), _plain(value)) for key, value in given.items() if key not in known
    )
    return tuple(found)


def _times(results: Results) -> Iterator[tuple[str, str]]:
    """When the first step began and the last one ended: between them lie pauses, where a run was resumed."""
    started = results.provenance.get("started") or min((record.started for record in results.records), default=None)
    finished = results.provenance.get("finished") or max((record.finished for record in results.records), default=None)
    if isinstance(started, int | float):
        yield "Started", words.moment(started)
    if isinstance(finished, int | float):
        yield "Finished", words.moment(finished)
    if isinstance(started, int | float) and isinstance(finished, int | float):
        yield "From first to last", words.duration(finished - started)


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(part) for part in value)
    return words.figure(value)


def pins(results: Results) -> tuple[tuple[str, str], ...]:
    """Everything from outside that the experiment holds on to: revisions and checksums."""
    found: dict[tuple[str, str], None] = {}
    for record in results.records:
        step = record.step
        # A source's pins ("sha256") say nothing without its name; an evaluator's name what they pin.
        owner = f"{step.name}: " if step.kind in ("source", "data") else ""
        found.update({(f"{owner}{key}", str(value)): None for key, value in step.pins.items()})
    return tuple(sorted(found))


def record_facts(record: Record) -> tuple[tuple[str, str], ...]:
    """A record as label and text."""
    step = record.step
    found = [
        ("id", step.id),
        ("component", " ".join(filter(None, (step.component or "mixmerge itself", step.version)))),
        ("parameters", _json(step.parameters)),
        ("about", _json(step.content)),
        ("seed", str(step.seed)),
        ("inputs", "; ".join(f"{role}: {', '.join(ids)}" for role, ids in step.inputs.items())),
        ("pins", _plain(step.pins)),
        ("host", record.host),
        ("time", f"{words.moment(record.started)}, {words.duration(record.finished - record.started)}"),
        ("versions", _plain(record.versions)),
        ("outcome", _json(_without_samples(record.outcome))),
    ]
    return tuple((label, text) for label, text in found if text and text != "{}")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _without_samples(value: Any) -> Any:
    """Samples would fill the page; they stay with the record in the store."""
    if isinstance(value, Mapping):
        return {key: _without_samples(part) for key, part in value.items() if key != "samples"}
    return [_without_samples(part) for part in value] if isinstance(value, list | tuple) else value


def cells_of(results: Results, record: str) -> tuple[str, ...]:
    """The scores that a record stands behind, a sentence part each."""
    found = []
    for row in results.rows:
        if row.record == record:
            count = f"{row.k:,} of {row.n:,}" if row.k is not None else f"n = {row.n:,}"
            found.append(f"{row.model}, {row.task}, {row.metric}: {words.figure(row.value, 6)} ({count})")
    return tuple(found)


def setting_facts(model: Model) -> tuple[str, str, str]:
    """(data, training, licences) of one model as text."""
    data = ", ".join(f"{name}: {words.plural(count, 'example')}" for name, count in model.data.items())
    training = ", ".join(_training_figure(name, value) for name, value in model.training.items())
    return data, training, "; ".join(f"{name}: {licence or 'not stated'}" for name, licence in model.licences.items())


def datasets(results: Results) -> list[tuple[str, str, str, str, str]]:
    """(name, source, rows, used by, licence) of every dataset as text; merges use what their experts do."""
    used = {
        one.name: [(model, model.data[one.name]) for model in results.models if one.name in model.data]
        for one in results.datasets
    }
    return [
        (
            one.name,
            one.source,
            f"{one.rows:,}",
            ", ".join(f"{model.name}: {rows:,}" for model, rows in used[one.name]) or "–",
            one.licence or "not stated",
        )
        for one in results.datasets
    ]


def _training_figure(name: str, value: float) -> str:
    if name in ("seconds", "runtime_s", "train_runtime"):
        return f"took {words.duration(value)}"
    return f"{ {'lr': 'learning rate'}.get(name, name.replace('_', ' ')) } {words.figure(value)}"
