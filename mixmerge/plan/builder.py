"""Builds the plan of an experiment, section by section of its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .. import sources
from ..errors import Problem, RecipeError
from ..reading import Use
from ..recipe import MergeEntry, Recipe, TrainEntry
from ..types import Point, Step, Trial, content_id
from .values import VIRTUAL, Decision, Plan, PlannedModel, plain


class Builder:
    def __init__(self, recipe: Recipe, decisions: Mapping[str, Decision]) -> None:
        self.recipe = recipe
        self.decisions = decisions
        self.steps: dict[str, Step] = {}
        self.models: list[PlannedModel] = []
        self.evaluations: list[tuple[str, str, str]] = []
        self.datasets: dict[str, str] = {}
        self.checks: dict[str, str] = {}
        self.exports: dict[str, str] = {}
        self.later: list[str] = []
        self.finished: set[str] = set()

    def plan(self) -> Plan:
        recipe = self.recipe
        self.base = self.source("base", recipe.base.source, recipe.base.revision, "")
        self.models.append(PlannedModel("base", "base", self.base))
        for name, entry in recipe.models.items():
            step = self.source(name, entry.source, entry.revision, self.base)
            if same := [model.name for model in self.models if model.step == step]:
                what = f"models.{name} holds the same weights as models.{same[0]}"
                raise RecipeError([Problem(str(recipe.path), what, "one of them was meant to be another")])
            self.models.append(PlannedModel(name, entry.kind, step, data=entry.data))
        for name, train in recipe.train.items():
            self.train(name, train)
        for model in tuple(self.models):
            self.evaluate(model, "choose_on")
            self.evaluate(model, "report_on")
        for name, merge in recipe.merge.items():
            self.merge(name, merge)
        self.diagnose()
        if not self.later:
            self.conclude()
        return Plan(
            recipe,
            self.steps,
            tuple(self.models),
            tuple(self.evaluations),
            self.exports,
            self.datasets,
            self.manifest(),
            tuple(self.later),
            tuple(self.checks.values()) if recipe.contamination.policy == "fail" else (),
        )

    def step(self, kind: str, name: str, use: Use | None = None, **given: Any) -> str:
        """Add a step, named by its content; returns its id. `matters`: what of the content counts, by default all."""
        body = {
            "kind": kind,
            "component": use.name if use else "",
            "version": use.component.identity if use else "",
            "parameters": plain(use.parameters) if use else {},
            "content": given.get("content", {}),
            "seed": given.get("seed", 0),
            "inputs": given.get("inputs", {}),
            "pins": given.get("pins", {}),
        }
        speed = use.component.speed if use else ()
        parameters = {key: value for key, value in body["parameters"].items() if key not in speed}
        step_id = content_id({**body, "parameters": parameters, "content": given.get("matters", body["content"])})
        self.steps.setdefault(step_id, Step(id=step_id, name=name, **body))
        return step_id

    # -- sections ----------------------------------------------------------------------------------------------

    def source(self, name: str, source: str, revision: str | None, base: str) -> str:
        pins = dict(sources.model_pins(source, revision))
        content: dict[str, Any] = {"source": source, "revision": revision}
        inputs = {"base": (base,)} if base else {}
        path = sources.local_directory(source)
        # Of a directory the pins tell what is in it, and where it lies does not matter.
        matters = {"adapter": path and sources.is_adapter(path)} if sources.is_directory(source) else content
        return self.step("source", f"fetch {name}", content=content, matters=matters, pins=pins, inputs=inputs)

    def dataset(self, name: str) -> str:
        spec = self.recipe.data[name]
        content = plain(asdict(spec))
        step = self.step(
            "data",
            f"load {name}",
            content=content,
            matters={**content, "source": sources.data_identity(spec.source)},
            pins=dict(sources.data_pins(spec)),
            seed=self.recipe.seed,
        )
        self.datasets[name] = step
        return step

    def check(self, name: str, data: str) -> str:
        """Compare a dataset with every evaluation set; "" when there is none, or nobody knows what they hold.

        Under `drop` its outcome is part of the training data. Otherwise nothing follows from it but what the report
        says, so that an older training stays.
        """
        entry, gate = self.recipe.eval, self.recipe.contamination
        if entry is None or entry.evaluator.component.contents is None:
            return ""
        known = entry.evaluator.component.contents_parameters
        given = {key: value for key, value in entry.evaluator.parameters.items() if key in known}
        self.checks[name] = self.step(
            "contamination",
            f"compare {name} with the evaluation sets",
            Use(entry.evaluator.component, given),
            content={"policy": gate.policy, "rules": list(gate.rules), "tasks": self.tasks()},
            inputs={"data": (data,)},
            pins={name: pin for pins in entry.pins.values() for name, pin in pins.items()},
        )
        return self.checks[name]

    def tasks(self) -> list[str]:
        entry = self.recipe.eval
        return list(dict.fromkeys([*entry.choose_on, *entry.report_on, *entry.also_on])) if entry else []

    def train(self, name: str, entry: TrainEntry) -> None:
        content: dict[str, Any] = {
            "shares": list(entry.shares.values()),
            "unit": entry.unit,
            "fraction": entry.fraction,
        }
        inputs = {"data": tuple(self.dataset(data) for data in entry.shares)}
        checks = tuple(map(self.check, entry.shares, inputs["data"]))
        if self.recipe.contamination.policy == "drop" and all(checks):
            inputs["contamination"] = checks
        if entry.unit == "tokens":
            inputs["base"] = (self.base,)
        mixture = self.step("mixture", f"mix data of {name}", content=content, inputs=inputs, seed=entry.seed)
        inputs = {"start": (self.base,), "mixture": (mixture,)}
        step = self.step("train", f"train {name}", entry.trainer, inputs=inputs, seed=entry.seed)
        self.models.append(PlannedModel(name, entry.kind, step, train=step, data=tuple(entry.shares)))

    def merge(self, group: str, entry: MergeEntry) -> None:
        decision = self.decisions.get(group, Decision())
        chosen, finished = self.points(entry, decision.trials)
        planned = [self.point(group, entry, point) for point in chosen]
        self.models += planned
        for model in planned:
            self.evaluate(model, "choose_on")
        if finished and len(planned) == 1:
            decision = Decision(decision.trials, planned[0].name, {planned[0].method: planned[0].name})
        if finished and (decision.winner or not self.scored):
            self.finished.add(group)
            self.finish(entry, planned, decision)
        elif self.recipe.eval:
            self.later.append(f"{group}: what the scores on choose_on ask for (report_on for the best of each method)")

    @property
    def scored(self) -> bool:
        return bool(self.recipe.eval and self.recipe.eval.choose_on)

    def finish(self, entry: MergeEntry, planned: Sequence[PlannedModel], decision: Decision) -> None:
        best = set(decision.by_method.values())
        keep = {
            "winner": {decision.winner},
            "best_of_each_method": best,
            "all": {model.name for model in planned},
            "none": set(),
        }[entry.keep]
        for model in planned:
            if model.name in best or not self.scored:
                self.evaluate(model, "report_on")
            if model.name in keep:
                inputs = {"model": (model.step,)}
                self.exports[model.name] = self.step("export", f"write {model.name}", inputs=inputs)

    def points(self, entry: MergeEntry, trials: Sequence[Trial]) -> tuple[list[dict[str, Any]], bool]:
        """Replay the strategy over the trials so far: the points it asked for, and whether it is finished."""
        if not entry.space:
            return [dict(entry.fixed)], True
        space = {key: [plain(value) for value in values] for key, values in entry.space.items()}
        original = {key: {_key(plain(value)): value for value in values} for key, values in entry.space.items()}
        known = {trial.point.key: trial for trial in trials}
        asked: list[Point] = []
        while True:
            scored = [known[point.key] for point in asked if point.key in known]
            waiting = len(scored) < len(asked)
            proposed = (
                []
                if waiting
                else entry.strategy.component.function(space, scored, entry.seed, **entry.strategy.parameters)
            )
            new = [point for point in proposed if point.key not in {known.key for known in asked}]
            asked += new
            if waiting or not new or not self.scored:
                break
        values = [
            {**entry.fixed, **{key: original[key][_key(value)] for key, value in point.values.items()}}
            for point in asked
        ]
        return values, not waiting

    def point(self, group: str, entry: MergeEntry, values: Mapping[str, Any]) -> PlannedModel:
        method: Use = values["method"]
        experts = {model.name: model.step for model in self.models}
        step = self.step(
            VIRTUAL,
            self.label(group, entry, values),
            method,
            content={"weights": list(values["weights"]), "whole": method.component.whole},
            inputs={"base": (self.base,), "experts": tuple(experts[name] for name in entry.experts)},
            seed=values["seed"],
        )
        settings = {key: plain(values[key]) for key in entry.space}
        name = self.steps[step].name
        return PlannedModel(name, "merge", step, "", group, _method(method), values["weights"], entry.experts, settings)

    def label(self, group: str, entry: MergeEntry, values: Mapping[str, Any]) -> str:
        """Such as `ties 0.3/0.7`: the group only where there are several, parameters where they tell points apart."""
        method: Use = values["method"]
        same = [_flat(use.parameters) for use in entry.space.get("method", []) if _method(use) == _method(method)]
        differing = [
            f"{key}={value}"
            for key, value in _flat(method.parameters).items()
            if any(other.get(key, _ABSENT) != value for other in same)
        ]
        detail = f"({', '.join(differing)})" if differing else ""
        weights = "/".join(_shown(weight) for weight in values["weights"])
        seed = f" seed {values['seed']}" if "seed" in entry.space else ""
        prefix = f"{group}: " if len(self.recipe.merge) > 1 else ""
        return f"{prefix}{_method(method)}{detail} {weights}{seed}"

    def evaluate(self, model: PlannedModel, on: str) -> None:
        """Score a model on the tasks of `choose_on`, or on those of `report_on` and `also_on` together."""
        entry = self.recipe.eval
        if entry is None:
            return
        keys = ("choose_on",) if on == "choose_on" else ("report_on", "also_on")
        tasks = [task for key in keys for task in getattr(entry, key)]
        if not tasks:
            return
        step = self.step(
            "evaluate",
            f"score {model.name} on {on}",
            entry.evaluator,
            content={"tasks": tasks},
            inputs={"model": (model.step,)},
            seed=self.recipe.seed,
            pins={name: pin for key in keys for name, pin in entry.pins[key].items()},
        )
        if (model.name, on, step) not in self.evaluations:
            self.evaluations.append((model.name, on, step))

    def diagnose(self) -> None:
        if not self.recipe.diagnose:
            return
        best = {name for decision in self.decisions.values() for name in decision.by_method.values()}
        chosen = [m for m in self.models if m.kind in ("expert", "mixture", "model")]
        self.measure("experts and mixtures", chosen)
        if winners := [m for m in self.models if m.kind == "merge" and m.name in best and m.group in self.finished]:
            self.measure("the best merge of each method", winners)

    def measure(self, what: str, models: Sequence[PlannedModel]) -> None:
        if not models:
            return
        diagnostics = [[use.name, use.component.identity, plain(use.parameters)] for use in self.recipe.diagnose]
        inputs = {"base": (self.base,), "models": tuple(model.step for model in models)}
        told = [{"kind": model.kind, "task": self.task(model)} for model in models]
        content = {"diagnostics": diagnostics, "models": told}
        self.step("diagnose", f"diagnose {what}", content=content, inputs=inputs)

    def task(self, model: PlannedModel) -> str:
        """Equal for trainings that differ in their seed alone; "" for what is not trained here."""
        if not model.train:
            return ""
        train = self.steps[model.train]
        mixture = self.steps[train.inputs["mixture"][0]]
        data = [plain(mixture.content), plain(mixture.inputs)]
        return content_id([data, train.component, train.version, train.parameters])

    def conclude(self) -> None:
        """Advice and report: functions of everything above, names included."""
        manifest = self.manifest()
        needs = (*(step for _, _, step in self.evaluations), *manifest["diagnoses"], *self.checks.values())
        inputs = {"records": tuple(dict.fromkeys(needs))}
        given = {"content": {"manifest": manifest}, "seed": self.recipe.seed}
        advice = [self.step("advise", f"advise: {use.name}", use, inputs=inputs, **given) for use in self.recipe.advise]
        for use in self.recipe.report:
            self.step("report", f"report: {use.name}", use, inputs={**inputs, "advice": tuple(advice)}, **given)

    def manifest(self) -> dict[str, Any]:
        return {
            "name": self.recipe.name,
            "seed": self.recipe.seed,
            "file": self.recipe.path.name,
            "text": self.recipe.text,
            "models": [plain(asdict(model)) for model in self.models],
            "evaluations": [list(evaluation) for evaluation in self.evaluations],
            "kept": list(self.exports),
            "diagnoses": [step.id for step in self.steps.values() if step.kind == "diagnose"],
            "datasets": dict(self.datasets),
            "contamination": {
                "policy": self.recipe.contamination.policy,
                "checks": dict(self.checks),
                "unknown": self.unknown(),
            },
            "choose_on": list(self.recipe.eval.choose_on) if self.recipe.eval else [],
            "report_on": list(self.recipe.eval.report_on) if self.recipe.eval else [],
            "also_on": list(self.recipe.eval.also_on) if self.recipe.eval else [],
            "limit": self.recipe.eval.evaluator.parameters.get("limit") if self.recipe.eval else None,
            "winners": {
                group: decision.winner for group, decision in sorted(self.decisions.items()) if decision.winner
            },
        }

    def unknown(self) -> str:
        """The evaluator that cannot say what its tasks hold, where rows are trained on that should be compared."""
        entry = self.recipe.eval
        return entry.evaluator.name if entry and self.datasets and not entry.evaluator.component.contents else ""


_ABSENT = object()


def _method(use: Use) -> str:
    """What a merge method goes by: its name, and the `method` that it is told to use, such as `mergekit slerp`."""
    told = use.parameters.get("method")
    return f"{use.name} {told}" if isinstance(told, str) else use.name


def _shown(weight: float) -> str:
    """As short as it can be and still tell it from others."""
    return f"{weight:g}" if float(f"{weight:g}") == weight else repr(weight)


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with those inside a mapping beside the others."""
    found: dict[str, Any] = {}
    for key, value in parameters.items():
        found |= value if isinstance(value, Mapping) else {key: value}
    return found


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
