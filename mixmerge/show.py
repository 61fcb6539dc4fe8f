"""`mixmerge show`: what a name stands for: a component, a task, a source of data, a model of a run, or a step."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from . import gate, sources
from .components import Component
from .display import seconds, size
from .errors import PluginError
from .registry import Registry
from .store import Store
from .types import Record, Step

_LEAST = 4
"""Digits of an id that are enough, as in git."""


def show(name: str, registry: Registry, store: Store, *, js: bool = False) -> str:
    """Everything that goes by this name, as text or as a JSON list of components and steps. PluginError for nothing."""
    components = [component for component in registry if component.name == name]
    tasks = dict(_tasks(registry))
    steps = list(_steps(name, store))
    if js:
        found = [*map(_component_json, components), *(_step_json(step, store) for step in steps)]
        if found:
            return json.dumps(found if len(found) > 1 else found[0], indent=1)
    texts = [*map(_component, components), sources.explain(name), tasks.get(name, "")]
    texts += [_step(step, store) for step in steps]
    if not any(texts):
        known = [*(component.name for component in registry), *tasks, *_models(store)]
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        hint += "`mixmerge plugins` and `mixmerge tasks` list names, `mixmerge plan` steps; runs are looked for in "
        raise PluginError(f"nothing is called {name!r}", hint=f"{hint}{store.root.parent} (--out)")
    return "\n\n".join(filter(None, texts))


# -- components and tasks ---------------------------------------------------------------------------------------


def _component(component: Component) -> str:
    lines = [f"{component.name} ({component.kind}, version {component.version}, plugin {component.plugin})"]
    lines += [f"source: {component.source}"] if component.source else []
    lines += ["", inspect.getdoc(component.function) or "no description", ""]
    for name, parameter in component.parameters.items():
        default = "required" if parameter.required else f"default {parameter.default!r}"
        lines.append(f"  {name}: {parameter.allowed}  ({default})")
    return "\n".join(lines).rstrip()


def _component_json(component: Component) -> dict[str, Any]:
    keys = ("kind", "name", "version", "plugin", "source", "summary")
    parameters = {
        name: {"allowed": one.allowed, **({} if one.required else {"default": one.default})}
        for name, one in component.parameters.items()
    }
    return {**{key: getattr(component, key) for key in keys}, "parameters": parameters}


def _tasks(registry: Registry) -> Iterator[tuple[str, str]]:
    for component in registry:
        for name, summary in component.tasks() if component.tasks else ():
            yield name, f"{name} (task of {component.name})\n\n{summary}\n\nfiles: see `mixmerge tasks --path`"


# -- steps ------------------------------------------------------------------------------------------------------


def _steps(name: str, store: Store) -> Iterator[Step]:
    """By id, by how it begins, or by the name of the step or of the model that it gives; the newest first."""
    steps = list(store.specs())
    if re.fullmatch(rf"[0-9a-f]{{{_LEAST},16}}", name) and (found := [s for s in steps if s.id.startswith(name)]):
        yield from found
        return
    named = [step for step in steps if name in (step.name, _model_name(step))]
    yield from sorted(named, key=lambda step: -record.finished if (record := store.record(step.id)) else 0.0)


def _model_name(step: Step) -> str:
    """Of the model, or the dataset, that a step gives; "" for other steps."""
    if step.kind == "merge":
        return step.name
    return step.name.partition(" ")[2] if step.kind in ("source", "data", "train", "export") else ""


def _models(store: Store) -> list[str]:
    return [name for step in store.specs() if (name := _model_name(step))]


def _step_json(step: Step, store: Store) -> dict[str, Any]:
    """The whole record, with where its payload (what the step made) and its log lie. Times are Unix seconds."""
    record = store.record(step.id)
    shown: dict[str, Any] = asdict(record) if record else {"step": asdict(step)}
    shown["step"]["content"].pop("manifest", None)
    shown |= {"state": store.state(step.id), "payload": str(store.path(step.id)), "log": str(store.log(step.id))}
    if failure := store.failure(step.id):
        shown["error"] = failure
    return shown


def _step(step: Step, store: Store) -> str:
    record = store.record(step.id)
    facts = {"state": _state(step, record, store)}
    if record:
        facts["directory"] = str(record.outcome.get("path") or store.path(step.id))
        facts["size"] = size(record.bytes)
    if store.log(step.id).is_file():
        facts["log"] = str(store.log(step.id))
    if step.component:
        facts["by"] = f"{step.component}, version {step.version}"
    facts["parameters"] = _listed(step.parameters)
    facts["about"] = _listed({key: value for key, value in step.content.items() if key != "manifest"})
    facts["seed"] = str(step.seed)
    facts["made from"] = ", ".join(_named(step_id, store) for ids in step.inputs.values() for step_id in ids)
    facts |= _outcome(step, record, store) if record else {}
    told = [f"  {key:10}  {value}" for key, value in facts.items() if value]
    return "\n".join([f"{step.name} ({step.kind} {step.id})", *told])


def _state(step: Step, record: Record | None, store: Store) -> str:
    if record:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.finished))
        return f"done, {when}, in {seconds(record.finished - record.started)} on {record.host}"
    if step.kind == "merge" and not step.content["whole"]:
        return "derived from its experts whenever it is needed; only what `keep` says is written"
    failure = store.failure(step.id)
    return f"failed: {failure}" if failure else store.state(step.id)


def _outcome(step: Step, record: Record, store: Store) -> dict[str, str]:
    outcome = dict(record.outcome)
    if step.kind == "contamination":
        shared = gate.told(outcome["sets"], outcome["rows"]) or ["nothing"]
        acts = {"warn": "are reported", "drop": "are left out of training", "fail": "would end the run"}
        rules, act = ", ".join(step.content["rules"]), acts[step.content["policy"]]
        return {
            "shared": "; ".join(shared),
            "in all": f"{outcome['acted_on']} of {outcome['rows']} rows, by {rules}: they {act}",
            "every hit": str(store.path(step.id) / gate.FILE),
        }
    return {"outcome": _listed({key: value for key, value in outcome.items() if key != "path"}, store)}


def _listed(values: Mapping[str, Any], store: Store | None = None) -> str:
    """`key: value, …` of what says something; what is in a mapping of step ids goes by the steps' names."""
    told = []
    for key, value in values.items():
        if value is None or value in ("", [], {}):
            continue
        if isinstance(value, Mapping):
            inner = {_named(name, store) if store else name: item for name, item in value.items()}
            value = f"{{{_listed(inner)}}}"
        elif isinstance(value, float):
            value = f"{value:.6g}"
        told.append(f"{key}: {value}")
    return ", ".join(told)


def _named(step_id: str, store: Store) -> str:
    """`train gen_expert (0123456789abcdef)`; anything else as it is."""
    known = (store.root / "specs" / f"{step_id}.json").is_file()
    return f"{store.spec(step_id).name} ({step_id})" if known else step_id
