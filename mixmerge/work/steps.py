"""How each kind of step is done, one function each."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from .. import checkpoint, gate, licences, recorded, results, samples, sources
from ..card import write_card, write_training_card
from ..collect import collect, read_advice, trained_on
from ..components import Component
from ..errors import CheckpointError, SourceError
from ..store import write_json
from ..types import Checkpoint, Kind, Mixture, Reading, Training
from .job import Job, Outcome, component_of
from .mixing import mixture


def _source(job: Job) -> Outcome:
    """A model as it is, or an adapter on the base: that is written, and so one model for whoever reads it."""
    name, base = job.step.name.removeprefix("fetch "), job.inputs("base")
    found = sources.resolve_model(
        job.step.content["source"], revision=job.step.content["revision"], adapters=bool(base)
    )
    if "sha256" in found.pins and dict(found.pins) != job.step.pins:
        raise SourceError(f"{found.path} is not what it was when the run began", hint="run the same command again")
    licence, data, path = found.licence, [dict(one) for one in found.data], found.path
    if found.adapter:
        start, path = job.checkpoint("base"), job.out
        shutil.rmtree(job.out, ignore_errors=True)  # `write` puts a whole directory in place at once
        checkpoint.write(Checkpoint(name, start.path, job.step.id, reading=Reading(adapter=found.path)), job.out)
        licence, data = licences.together([start.licence, found.licence]), [*map(dataclasses.asdict, start.data), *data]
    elif base:
        checkpoint.check_aligned(job.checkpoint("base").path, {name: path})
    layout = checkpoint.inspect(path)
    return {
        "path": "" if found.adapter else str(path.absolute()),  # "": in the store
        "label": found.label,
        "licence": licence,
        "data": data,
        "pins": dict(found.pins),
        "bytes": layout.bytes,
        "parameters": sum(math.prod(layout.tensors[name].shape) for name in layout.names),
    }


def _data(job: Job) -> Outcome:
    spec = sources.DataSpec(**job.step.content)
    found = sources.load_rows(spec, job.step.seed)
    with open(job.out / "rows.jsonl", "w", encoding="utf-8") as file:
        for row in found.rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return {"rows": len(found.rows), "licence": found.licence, "notes": list(found.notes), "source": spec.source}


def _contamination(job: Job) -> Outcome:
    data = job.inputs("data")[0]
    record = job.store.record(data)
    family = sources.source_name(record.outcome["source"]) if record else ""
    return gate.compare(job.step, job.component("evaluator"), job.store.path(data) / "rows.jsonl", family, job.out)


def _train(job: Job) -> Outcome:
    mixture = job.inputs("mixture")[0]
    record = job.store.record(mixture)
    assert record is not None
    data = Mixture(
        job.store.path(mixture) / "mixture.jsonl",
        record.outcome["rows"],
        record.outcome["counts"],
        record.outcome["licences"],
    )
    start = job.checkpoint("start")
    figures = job.component("trainer").function(start, data, job.out, job.step.seed, **job.step.parameters)
    checkpoint.check_aligned(start.path, {job.step.name: job.out})
    how = (job.step.component, job.step.parameters, job.step.seed)
    name = job.step.name.removeprefix("train ")
    write_training_card(name, start, trained_on(job.step.id, job.store), how, job.out)
    return {"figures": dict(figures), "counts": dict(data.counts), "licences": dict(data.licences)}


def _merge(job: Job) -> Outcome:
    """Only for mergers that need whole checkpoints; the others are never written to be read again."""
    base, experts = job.checkpoint("base"), job.checkpoints("experts")
    merge = job.component("merger").function
    merge(base, experts, job.step.content["weights"], job.out, job.step.seed, **job.step.parameters)
    checkpoint.check_aligned(base.path, {job.step.name: job.out})
    return {}


def _export(job: Job) -> Outcome:
    model = job.checkpoint("model")
    shutil.rmtree(job.out, ignore_errors=True)  # `write` puts a whole directory in place at once
    digest = checkpoint.write(model, job.out)
    write_card(model, job.out, digest)
    return {"digest": digest}


def _evaluate(job: Job) -> Outcome:
    model = job.checkpoint("model")
    evaluate = job.component("evaluator").function
    scores = evaluate(model, job.step.content["tasks"], job.out, job.step.seed, **job.step.parameters)
    write_json(job.out / "scores.json", [dataclasses.asdict(score) for score in scores])
    return {"scores": len(scores)}


def _diagnose(job: Job) -> Outcome:
    models = [
        _told(model, told, job)
        for model, told in zip(job.checkpoints("models"), job.step.content["models"], strict=True)
    ]
    observers = [
        observer(component_of(job.registry, "diagnostic", name, identity), parameters, models)
        for name, identity, parameters in job.step.content["diagnostics"]
    ]
    base, place = job.checkpoint("base"), job.registry.place
    try:
        measured = checkpoint.measure(base, models, observers, job.step.seed, place=place)
    except CheckpointError as error:  # findings go by id, and people by name
        named = {model.id: model.name for model in job.checkpoints("models")}
        message = re.sub("|".join(named) or "$^", lambda found: named[found[0]], error.message)
        raise CheckpointError(message, hint=error.hint) from error
    write_json(job.out / "measurements.json", [dataclasses.asdict(measurement) for measurement in measured])
    return {"measurements": len(measured)}


def _record(job: Job) -> Outcome:
    """Read what others recorded, sort it into experiments, and list what its figures do not support."""
    tables = recorded.from_json(job.step.content["tables"])
    paths = {file: Path(path) for file, path in job.step.content["paths"].items()}
    for file, path in paths.items():
        if recorded.pin(path) != job.step.pins[file]:
            raise SourceError(f"{path} changed while it was read", hint="run the same command again")
    lines = [line for table in tables for line in recorded.read_lines(table, paths[table.file])]
    by_name = {table.name: tuple(table.scores.values()) for table in tables}
    experiments = [dataclasses.asdict(one) for one in results.experiments(tables, lines, job.step.id)]
    doubts = [dataclasses.asdict(one) for one in results.audit(tables, lines)]
    write_json(job.out / "experiments.json", {"experiments": experiments, "doubts": doubts})
    printed = {
        "average": sum(line.average is not None for line in lines),
        "change": sum(len(line.changes) for line in lines),
        "count": sum(one.counted and one.task in line.values for line in lines for one in by_name[line.entry]),
    }
    names = [one["name"] for one in experiments]
    return {"lines": len(lines), "printed": printed, "experiments": names, "doubts": len(doubts)}


def _told(model: Checkpoint, told: Mapping[str, str], job: Job) -> Checkpoint:
    """Under its id for a name, with what the recipe and the record of its training say of it."""
    record = job.store.record(model.id)
    figures = record.outcome.get("figures", {}) if record else {}
    training = Training(figures.get("lr"), figures.get("steps"), told["task"])
    return dataclasses.replace(model, name=model.id, kind=cast(Kind, told["kind"]), training=training)


def observer(component: Component, parameters: Mapping[str, Any], models: Sequence[Checkpoint]) -> checkpoint.Observer:
    """A diagnostic ready to look at `models`."""
    finish = component.finish
    assert finish is not None
    if "about" in inspect.signature(finish).parameters:
        finish = partial(finish, about=models)
    return checkpoint.Observer(component.name, partial(component.function, **parameters), finish, component.totals)


def _advise(job: Job) -> Outcome:
    found = collect(job.step.content["manifest"], job.store)
    if found.parts:
        found = found.parts[job.step.content["experiment"]]
    advice = job.component("advisor").function(found, **job.step.parameters)
    write_json(job.out / "advice.json", dataclasses.asdict(advice))
    return {"answer": advice.answer, "headline": advice.headline}


def _report(job: Job) -> Outcome:
    found = collect(job.step.content["manifest"], job.store)
    advice = [read_advice(job.store.spec(step), job.store) for step in job.inputs("advice")]
    if found.parts:
        each = len(advice) // len(found.parts)
        parts = [dataclasses.replace(p, advice=advice[i * each : (i + 1) * each]) for i, p in enumerate(found.parts)]
        found = dataclasses.replace(found, parts=parts)
    else:
        found = dataclasses.replace(found, advice=advice, samples=samples.side_by_side(found, job.store))
    files = job.component("reporter").function(found, job.out, **job.step.parameters)
    return {"files": [str(Path(file).relative_to(job.out)) for file in files]}


DO: Mapping[str, Callable[[Job], Outcome]] = {
    "source": _source,
    "data": _data,
    "contamination": _contamination,
    "mixture": mixture,
    "train": _train,
    "merge": _merge,
    "export": _export,
    "evaluate": _evaluate,
    "diagnose": _diagnose,
    "record": _record,
    "advise": _advise,
    "report": _report,
}
