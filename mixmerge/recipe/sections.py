"""A whole recipe, section by section: merges, evaluation and the gate here, what is trained in `training`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from .. import contamination, recorded
from ..errors import SourceError, suggest
from ..reading import At, Use, describe, dotted, listed, name_and_parameters
from .entries import EvalEntry, GateEntry, MergeEntry, ModelEntry, Recipe, RecordedEntry
from .training import TrainingSections

TASKS = ("choose_on", "report_on", "also_on")
SECTIONS = ("base", "seed", "data", "models", "train", "merge", "eval", "contamination", "diagnose", "advise", "report")
RECORDED_SECTIONS = ("seed", "results", "eval", "advise", "report")
"""Of a recipe whose scores were recorded by others: nothing is trained, merged or scored."""


class Sections(TrainingSections):
    """Reads the sections of a recipe, top to bottom."""

    def uses(self, kind: str, section: str, default: Sequence[str]) -> tuple[Use, ...]:
        value = self.sections.get(section, list(default))
        listed = value if isinstance(value, list) else [value]
        found = [self.use(kind, (section, index), item) for index, item in enumerate(listed)]
        return tuple(use for use in found if use)

    def recipe(self) -> Recipe:
        if isinstance(self.file.data, dict) and "results" in self.file.data:
            return self.recorded()
        self.sections = self.mapping((), self.file.data, SECTIONS, ["base"])
        self.seed = self.value(("seed",), self.sections.get("seed", 0), int, 0)
        before = len(self.problems)
        base = self.model(("base",), self.sections.get("base", ""), "base", ["model", "revision"])
        models = self.each("models", lambda at, entry, _: self.model(at, entry, "expert"))
        if base.source and len(self.problems) == before:
            self.fits(base, models)
        data = self.each("data", self.dataset)
        self.trained = [name for name in self.section("train") if name != "defaults"]
        if both := sorted(set(models) & set(self.trained)):
            self.problem(("train", both[0]), f"{both[0]!r} is the name of a model already", "rename one of them")
        self.merged_experts = self.experts_named()
        train = self.each("train", lambda at, entry, defaults: self.training(at, entry, defaults, data))
        merge = self.each("merge", self.merging)
        evaluation = self.evaluation(merge) if "eval" in self.sections else None
        gate = self.gate()
        self.guards(gate, evaluation)
        return Recipe(
            self.file.path.stem,
            self.file.path,
            self.file.text,
            base,
            self.seed,
            data,
            models,
            {name: entry for name, entry in train.items() if entry},
            {name: entry for name, entry in merge.items() if entry},
            evaluation,
            self.uses("diagnostic", "diagnose", []),
            self.uses("advisor", "advise", []),
            self.uses("reporter", "report", []),
            gate,
        )

    def recorded(self) -> Recipe:
        """A recipe of recorded results: `eval` may name tasks for choose_on and report_on, which are all by default."""
        self.sections = self.mapping((), self.file.data, RECORDED_SECTIONS)
        seed = self.value(("seed",), self.sections.get("seed", 0), int, 0)
        above: list[str] = []

        def read(at: At, entry: Any, defaults: dict[str, Any]) -> recorded.RecordedTable | None:
            found = recorded.read_entry(self, at, entry, defaults, above)
            above.append(str(at[-1]))
            return found

        tables = tuple(entry for entry in self.each("results", read).values() if entry)
        if not above:
            self.problem(("results",), "results names no table", "results: {NAME: {file: …, scores: {…}}}")
        known = list(dict.fromkeys(one.task for entry in tables for one in entry.scores.values()))
        given = self.mapping(("eval",), self.sections.get("eval", {}), ["choose_on", "report_on"])
        keys = ("choose_on", "report_on")
        tasks = {key: self.names(("eval", key), given.get(key, known), known, "task") for key in keys}
        return Recipe(
            self.file.path.stem,
            self.file.path,
            self.file.text,
            ModelEntry(""),
            seed,
            advise=self.uses("advisor", "advise", []),
            report=self.uses("reporter", "report", []),
            recorded=RecordedEntry(tables, tasks["choose_on"], tasks["report_on"]),
        )

    def merging(self, at: At, entry: Any, defaults: dict[str, Any]) -> MergeEntry | None:
        allowed = ["experts", "weights", "method", "sweep", "strategy", "keep", "seed"]
        before = len(self.problems)
        given = {**defaults, **self.mapping(at, entry, allowed)}
        known = {*self.trained, *self.section("models")}
        experts = self.names((*at, "experts"), given.get("experts", []), known, "expert")
        if len(experts) < 2 and len(self.problems) == before:
            self.problem(
                at, f"{dotted(at)} merges {_count(len(experts), 'expert')}", "name two or more under `experts`"
            )
        sweep = self.mapping((*at, "sweep"), given.get("sweep", {}), ["weights", "method", "seed"])
        space: dict[str, list[Any]] = {}
        for key in ("weights", "method"):
            places = [(*at, *under, key) for under, of in (((), given), (("sweep",), sweep)) if key in of]
            if len(places) != 1:
                what = "needs" if not places else "has, twice,"
                self.problem(at, f"{dotted(at)} {what} {key!r}", "under the entry (fixed) or under `sweep` (crossed)")
        for key, values in sweep.items():
            if not isinstance(values, list) or not values:
                self.problem((*at, "sweep", key), f"{dotted((*at, 'sweep', key))} is {describe(values)}", "a list")
            else:
                space[key] = self.swept(at, key, values, experts, defaults)
        if "sweep" in given and not sweep and len(self.problems) == before:
            self.problem((*at, "sweep"), f"{dotted((*at, 'sweep'))} is empty", "list `weights` and `method`")
        fixed: dict[str, Any] = {"seed": self.value((*at, "seed"), given.get("seed", self.seed), int, self.seed)}
        if "weights" in given:
            fixed["weights"] = self.weights((*at, "weights"), given["weights"], experts)
        if "method" in given:
            fixed["method"] = self.use("merger", (*at, "method"), given["method"], defaults.get("method"))
        strategy = self.use("strategy", (*at, "strategy"), given.get("strategy", "grid"))
        keep = self.value(
            (*at, "keep"),
            given.get("keep", "winner"),
            Literal["winner", "best_of_each_method", "all", "none"],
            "winner",
        )
        if len(self.problems) > before or strategy is None:
            return None
        self.combinations(at, {**{key: [value] for key, value in fixed.items()}, **space}, sweep)
        return MergeEntry(experts, space, fixed, strategy, keep, fixed["seed"])

    def combinations(self, at: At, values: Mapping[str, Sequence[Any]], sweep: Mapping[str, Any]) -> None:
        """Whether every method can do with every choice of weights."""
        for index, use in enumerate(values["method"]):
            place = (*at, "sweep", "method", index) if "method" in sweep else (*at, "method")
            for weights in values["weights"]:
                wrong = use.component.fits(weights, **use.parameters) if use.component.fits else ""
                if wrong:
                    self.problem(place, f"{use.name}: {wrong}", f"see `mixmerge show {use.name}`")

    def swept(
        self, at: At, key: str, values: list[Any], experts: tuple[str, ...], defaults: dict[str, Any]
    ) -> list[Any]:
        place = (*at, "sweep", key)
        if key == "weights":
            return [self.weights((*place, index), value, experts) for index, value in enumerate(values)]
        if key == "method":
            pairs = enumerate(values)
            return [self.use("merger", (*place, index), value, defaults.get("method")) for index, value in pairs]
        return [self.value((*place, index), value, int, 0) for index, value in enumerate(values)]

    def weights(self, at: At, value: Any, experts: tuple[str, ...]) -> tuple[float, ...]:
        numbers = value if isinstance(value, list) else []
        if not numbers or not all(isinstance(w, int | float) and not isinstance(w, bool) for w in numbers):
            self.problem(
                at, f"{dotted(at)} is {value!r}, not a list of numbers", "one weight per expert, such as [0.5, 0.5]"
            )
            return ()
        if experts and len(numbers) != len(experts):
            what = f"{dotted(at)} has {_count(len(numbers), 'weight')} for {_count(len(experts), 'expert')}"
            self.problem(at, what, f"in the order of experts: {', '.join(experts)}")
        if not all(math.isfinite(w) for w in numbers) or not any(numbers):
            self.problem(at, f"{dotted(at)} is {value!r}", "weights are finite numbers, and not all zero")
        return tuple(float(w) for w in numbers)

    def evaluation(self, merge: Mapping[str, Any]) -> EvalEntry | None:
        at = ("eval",)
        before = len(self.problems)
        given = self.mapping(at, self.sections["eval"], ["evaluator", *TASKS, "allow_overlap"])
        named = given.get("evaluator", "lm_eval")
        evaluator = self.use("evaluator", (*at, "evaluator"), named)
        tasks = {key: self.names((*at, key), given.get(key, []), None, "task") for key in TASKS}
        choose, report = tasks["choose_on"], tasks["report_on"]
        if not choose and not report and not any(given.get(key) for key in TASKS[:2]):
            self.problem(at, "eval names no task", "list tasks under `choose_on` and `report_on`; see `mixmerge tasks`")
        if not choose and any(math.prod(map(len, entry.space.values())) > 1 for entry in merge.values() if entry):
            self.problem(at, "eval has no choose_on, but a sweep has to be chosen from", "list tasks under `choose_on`")
        judge = evaluator or self.meant("evaluator", named)
        pins = {key: self.pins((*at, key), judge, tasks[key]) for key in TASKS}
        expanded = {key: tuple(task for task in found if not task.startswith(":")) for key, found in pins.items()}
        overlap = sorted(set(expanded["choose_on"]) & set(expanded["report_on"]))
        if overlap and not self.value((*at, "allow_overlap"), given.get("allow_overlap", False), bool, False):
            hint = "choose on other tasks (such as a _dev split), or say `allow_overlap: true`"
            self.problem((*at, "report_on"), f"{overlap[0]!r} is in choose_on and in report_on", hint)
        if evaluator is None or len(self.problems) > before:
            return None
        return EvalEntry(evaluator, **expanded, pins=pins)

    def gate(self) -> GateEntry:
        at = ("contamination",)
        value = self.sections.get("contamination", "warn")
        policy, given = name_and_parameters(value)
        policies = ("fail", "drop", "warn")
        if policy not in policies:
            hint = suggest(policy, policies) if policy else "write contamination: drop, or drop: {rules: [id, …]}"
            self.problem(at, f"contamination is {describe(value)}, not fail, drop or warn", hint)
            return GateEntry()
        given = self.mapping((*at, policy), given, ["rules"])
        rules = self.names(
            (*at, policy, "rules"), given.get("rules", list(contamination.ACTING)), contamination.RULES, "rule"
        )
        if not rules:
            self.problem((*at, policy, "rules"), "contamination names no rule", listed(contamination.RULES))
        return GateEntry(cast(Literal["fail", "drop", "warn"], policy), rules)

    def guards(self, gate: GateEntry, evaluation: EvalEntry | None) -> None:
        """What fails or drops has to know what the tasks hold."""
        if gate.policy == "warn" or evaluation is None or evaluation.evaluator.component.contents:
            return
        what = f"evaluator {evaluation.evaluator.name!r} cannot say what its tasks hold, so nothing can {gate.policy}"
        self.problem(("contamination",), what, "write contamination: warn, or give the evaluator a `contents=`")

    def meant(self, kind: str, value: Any) -> Use | None:
        """The component that a misspelt name probably means, so that what depends on it is checked all the same."""
        name, given = name_and_parameters(value)
        close = difflib.get_close_matches(name or "", self.registry.names(kind), 1)
        if not close:
            return None
        component = self.registry.get(kind, close[0])
        known = {key: value for key, value in given.items() if key in component.parameters}
        return None if component.problems(known) else Use(component, component.complete(known))

    def pins(self, at: At, evaluator: Use | None, tasks: tuple[str, ...]) -> Mapping[str, str]:
        """What each task consists of, groups expanded; the names alone where the evaluator cannot say."""
        if not tasks or evaluator is None or evaluator.component.pins is None:
            return dict.fromkeys(tasks, "")
        found: dict[str, str] = {}
        for index, task in enumerate(tasks):
            try:
                found |= evaluator.component.pins((task,), evaluator.parameters)
            except SourceError as error:
                self.problem((*at, index), error.message, error.hint)
                found[task] = ""
        return found


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
