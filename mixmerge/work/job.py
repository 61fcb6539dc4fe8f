"""A step with what it needs: where its inputs lie, and the models that they stand for."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from ..collect import licence_of, trained_on
from ..components import Component
from ..errors import MixmergeError, PluginError
from ..registry import Registry
from ..store import Store
from ..types import Checkpoint, Derivation, Step, content_id

Outcome = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """One step with what it needs: where to write (`out`), where its inputs lie, who does it."""

    step: Step
    store: Store
    registry: Registry
    out: Path

    def component(self, kind: str) -> Component:
        return component_of(self.registry, kind, self.step.component, self.step.version)

    def inputs(self, role: str) -> tuple[str, ...]:
        return self.step.inputs.get(role, ())

    def checkpoint(self, role: str) -> Checkpoint:
        return load_checkpoint(self.inputs(role)[0], self.store, self.registry)

    def checkpoints(self, role: str) -> list[Checkpoint]:
        return [load_checkpoint(step_id, self.store, self.registry) for step_id in self.inputs(role)]


def component_of(registry: Registry, kind: str, name: str, identity: str) -> Component:
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
    component = component_of(registry, "merger", step.component, step.version)
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
    return Checkpoint(name, base.path, step.id, derivation, licence_of(step.id, store), trained_on(step.id, store))
