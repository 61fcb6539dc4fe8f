"""How each kind of step is done, and the worker: a process that does steps by id until its input ends."""

from __future__ import annotations

import ctypes
import dataclasses
import inspect
import json
import math
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from . import checkpoint, gate, recorded, results, samples, sources
from .card import write_card, write_training_card
from .collect import collect, licence_of, read_advice, trained_on
from .components import Component
from .errors import MixmergeError, PluginError, SourceError
from .registry import Registry
from .store import Store, write_json
from .types import Checkpoint, Derivation, Kind, Mixture, Reading, Record, Step, Training, content_id

Outcome = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """One step with what it needs: where to write (`out`), where its inputs lie, who does it."""

    step: Step
    store: Store
    registry: Registry
    out: Path

    def component(self, kind: str) -> Component:
        return _component(self.registry, kind, self.step.component, self.step.version)

    def inputs(self, role: str) -> tuple[str, ...]:
        return self.step.inputs.get(role, ())

    def checkpoint(self, role: str) -> Checkpoint:
        return load_checkpoint(self.inputs(role)[0], self.store, self.registry)

    def checkpoints(self, role: str) -> list[Checkpoint]:
        return [load_checkpoint(step_id, self.store, self.registry) for step_id in self.inputs(role)]


def _component(registry: Registry, kind: str, name: str, identity: str) -> Component:
    """The component that a step was planned with. PluginError when its plugin was edited since."""
    found = registry.get(kind, name)
    if found.identity != identity:
        what = f"plugin {found.plugin!r}: {kind} {name!r} is not what it was when the run began"
        raise PluginError(what, hint="run the same command again: it plans with the plugin as it is now")
    return found


def load_checkpoint(step_id: str, store: Store, registry: Registry) -> Checkpoint:
    """The model that a step stands for: stored by it, or derived by a merge that nobody wrote."""
    step = store.spec(step_id)
    name = step.name.removeprefix("fetch ").removeprefix("train ").removeprefix("write ")
    if step.kind == "merge" and not step.content["whole"]:
        return _derived(step, name, store, registry)
    record = store.record(step_id)
    if record is None:
        raise MixmergeError(f"{step.name} ({step_id}) is not there", hint="run the recipe again")
    path = Path(record.outcome.get("path") or store.path(step_id))
    return Checkpoint(name, path, step_id, licence=licence_of(step_id, store), data=trained_on(step_id, store))


def _derived(step: Step, name: str, store: Store, registry: Registry) -> Checkpoint:
    component = _component(registry, "merger", step.component, step.version)
    base = load_checkpoint(step.inputs["base"][0], store, registry)
    experts = tuple(load_checkpoint(step_id, store, registry) for step_id in step.inputs["experts"])
    first = {key: value for key, value in step.parameters.items() if key in component.prepare_parameters}
    rest = {key: value for key, value in step.parameters.items() if key not in first}
    prepare = partial(component.prepare, **first) if component.prepare else None
    derivation = Derivation(
        base,
        experts,
        tuple(step.content["weights"]),
        step.seed,
        partial(component.function, **rest),
        prepare,
        content_id([component.name, component.identity, first]) if prepare else "",
        component.name,
        dict(step.parameters),
        component.files,
    )
    return Checkpoint(name, base.path, step.id, derivation, base.licence, trained_on(step.id, store))


# -- one function per kind of step ------------------------------------------------------------------------------


def _source(job: Job) -> Outcome:
    """A model as it is, or an adapter on the base: that is written, and so one model for whoever reads it."""
    name, base = job.step.name.removeprefix("fetch "), job.inputs("base")
    found = sources.resolve_model(
        job.step.content["source"], revision=job.step.content["revision"], adapters=bool(base)
    )
    licence, path = found.licence, found.path
    if found.adapter:
        start, path = job.checkpoint("base"), job.out
        shutil.rmtree(job.out, ignore_errors=True)  # `write` puts a whole directory in place at once
        checkpoint.write(Checkpoint(name, start.path, job.step.id, reading=Reading(adapter=found.path)), job.out)
        licence = licence or start.licence
    elif base:
        checkpoint.check_aligned(job.checkpoint("base").path, {name: path})
    layout = checkpoint.inspect(path)
    return {
        "path": "" if found.adapter else str(path.absolute()),  # "": in the store
        "label": found.label,
        "licence": licence,
        "data": [dict(one) for one in found.data],
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


def _mixture(job: Job) -> Outcome:
    """Without the rows that the gate leaves out: nested subsets by a prefix of each dataset's own seeded order, shares
    of them, then one seeded shuffle."""
    content, mixed, counts = job.step.content, [], {}
    measure = _token_counter(job) if content["unit"] == "tokens" else (lambda row: 1)
    parts, licences = [], {}
    checks = dict(zip(job.inputs("data"), job.inputs("contamination"), strict=False))
    dropped = {data: gate.dropped(job.store, check) for data, check in checks.items()}
    for data in job.inputs("data"):
        rows = list(_lines(job.store.path(data) / "rows.jsonl"))
        rows = [row for number, row in enumerate(rows) if number not in dropped.get(data, ())]
        if not rows:
            raise SourceError(
                "every row of a dataset shares something with an evaluation set, so none is left to train on",
                hint="see `contamination` in the report, and narrow it: contamination: {drop: {rules: [id, solution]}}",
            )
        random.Random(f"{job.store.spec(data).seed}/{data}").shuffle(rows)
        kept = rows[: max(1, round(len(rows) * content["fraction"]))]
        parts.append([(measure(row), {**row, "data": data}) for row in kept])
        record = job.store.record(data)
        licences[data] = str(record.outcome["licence"]) if record else ""
    shares = content["shares"]
    sizes = [sum(size for size, _ in part) for part in parts]
    whole = min((size / share for size, share in zip(sizes, shares, strict=True) if share), default=0.0)
    for data, part, share in zip(job.inputs("data"), parts, shares, strict=True):
        taken = part if share is None else _prefix(part, whole * share)
        counts[data] = len(taken)
        mixed += [row for _, row in taken]
    random.Random(f"{job.step.seed}/mixture").shuffle(mixed)
    if not mixed:
        raise SourceError("the mixture is empty", hint="raise `fraction`, or give the datasets other shares")
    with open(job.out / "mixture.jsonl", "w", encoding="utf-8") as file:
        for row in mixed:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    left_out = {"dropped": {data: len(found) for data, found in dropped.items()}} if dropped else {}
    return {"rows": len(mixed), "counts": counts, "licences": licences, **left_out}


def _prefix(part: list[tuple[int, dict[str, Any]]], size: float) -> list[tuple[int, dict[str, Any]]]:
    """The longest prefix whose sizes add up to at most `size` (with half a unit of tolerance for rounding)."""
    total, kept = 0, 0
    for amount, _ in part:
        if total + amount > size + 0.5:
            break
        total, kept = total + amount, kept + 1
    return part[:kept]


def _token_counter(job: Job) -> Callable[[Mapping[str, Any]], int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(job.checkpoint("base").path / "tokenizer.json"))

    def count(row: Mapping[str, Any]) -> int:
        prompt = row["prompt"]
        text = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
        return len(tokenizer.encode(text + row["completion"]).ids)

    return count


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


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
        observer(_component(job.registry, "diagnostic", name, identity), parameters, models)
        for name, identity, parameters in job.step.content["diagnostics"]
    ]
    base, place = job.checkpoint("base"), job.registry.place
    measured = checkpoint.measure(base, models, observers, job.step.seed, place=place)
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


_DO: Mapping[str, Callable[[Job], Outcome]] = {
    "source": _source,
    "data": _data,
    "contamination": _contamination,
    "mixture": _mixture,
    "train": _train,
    "merge": _merge,
    "export": _export,
    "evaluate": _evaluate,
    "diagnose": _diagnose,
    "record": _record,
    "advise": _advise,
    "report": _report,
}


def perform(step: Step, store: Store, registry: Registry) -> Record:
    """Do one step and commit it. What the step raises is kept beside its log and raised again."""
    started = time.time()
    out = store.begin(step)
    try:
        outcome = _DO[step.kind](Job(step, store, registry, out))
        return store.commit(step, started, outcome)
    except OSError as error:
        explained = store.explain(error) if error.errno else error
        store.fail(step, str(explained))
        raise explained from error
    except Exception as error:
        store.fail(step, str(error) if isinstance(error, MixmergeError) else f"{type(error).__name__}: {error}")
        raise


# -- the worker -------------------------------------------------------------------------------------------------


def work(store: Store, registry: Registry, ids: Iterable[str], reply: Callable[[str], None]) -> None:
    """Do the steps whose ids come in, one line each; reply `done` or `failed` for each. Output goes to its log."""
    for line in ids:
        step_id = line.strip()
        if not step_id:
            continue
        step = store.spec(step_id)
        store.begin(step)
        reply(_logged(step, store, registry))


def _logged(step: Step, store: Store, registry: Registry) -> str:
    sys.stdout.flush()
    sys.stderr.flush()
    with open(store.work(step.id) / "log.txt", "a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            perform(step, store, registry)
        except Exception:
            traceback.print_exc()
            return f"failed {step.id}"
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
    return f"done {step.id}"


def main(store: Path, plugins: tuple[str, ...]) -> None:
    """`mixmerge worker`: step ids on standard input, replies on standard output. Ends with its parent."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the run decides what ends
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    work(Store(store), Registry(plugins), sys.stdin, lambda line: print(line, file=replies, flush=True))
