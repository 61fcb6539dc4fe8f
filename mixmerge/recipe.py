"""A recipe file becomes a Recipe, or one RecipeError with every problem in it.

Five rules: sections are written in the order data flows (no other is refused); wherever a component goes, write `name`
or `name: {parameter: value}`; everything under `sweep:` is crossed; `defaults` fills in what an entry leaves out; no
templating, no environment variables, no code.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from . import checkpoint, contamination, recorded, sources, yamlfile
from .errors import CheckpointError, RecipeError, SourceError, suggest
from .reading import At, Reader, Use, describe, dotted, listed, name_and_parameters
from .registry import Registry
from .types import Kind

TASKS = ("choose_on", "report_on", "also_on")
SECTIONS = ("base", "seed", "data", "models", "train", "merge", "eval", "contamination", "diagnose", "advise", "report")
RECORDED_SECTIONS = ("seed", "results", "eval", "advise", "report")
"""Of a recipe whose scores were recorded by others: nothing is trained, merged or scored."""


@dataclass(frozen=True)
class ModelEntry:
    """`base:` or an entry of `models:`: where a model comes from."""

    source: str
    revision: str | None = None
    kind: Kind = "base"
    data: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainEntry:
    """An entry of `train:`.

    shares    dataset to `None` (`all`: every row) or its share of the mixture, in `unit`; shares add up to 1
    fraction  of each dataset, taken before mixing; subsets are nested: 25 % lies within 50 %
    """

    shares: Mapping[str, float | None]
    unit: Literal["examples", "tokens"]
    fraction: float
    trainer: Use
    seed: int
    kind: Kind


@dataclass(frozen=True)
class MergeEntry:
    """An entry of `merge:`. `space` holds every swept key with its values; `fixed` the others."""

    experts: tuple[str, ...]
    space: Mapping[str, Sequence[Any]]
    fixed: Mapping[str, Any]
    strategy: Use
    keep: Literal["winner", "best_of_each_method", "all", "none"]
    seed: int


@dataclass(frozen=True)
class EvalEntry:
    """`eval:`.

    choose_on  tasks that winners are chosen on: every model is scored on them, every merge too
    report_on  tasks that the answer is given on: base, experts, mixtures and the best merge of each method
    also_on    tasks that are shown beside them (such as held-out loss) and decide nothing; the same models
    pins       key of `eval:` to the content of its tasks, as the evaluator's `pins` gives it
    """

    evaluator: Use
    choose_on: tuple[str, ...]
    report_on: tuple[str, ...]
    also_on: tuple[str, ...]
    pins: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class GateEntry:
    """`contamination:`: what becomes of training rows that share something with an evaluation set.

    policy  fail: nothing is trained; drop: those rows are left out; warn: the report says so
    rules   that fail and drop go by; all are counted
    """

    policy: Literal["fail", "drop", "warn"] = "warn"
    rules: tuple[str, ...] = contamination.ACTING


@dataclass(frozen=True)
class RecordedEntry:
    """`results:`, with the tasks that `eval` names: all of them unless it does."""

    tables: tuple[recorded.RecordedTable, ...]
    choose_on: tuple[str, ...]
    report_on: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """A whole recipe, validated. `name` is the file's stem, `text` the file."""

    name: str
    path: Path
    text: str
    base: ModelEntry
    seed: int
    data: Mapping[str, sources.DataSpec] = field(default_factory=dict)
    models: Mapping[str, ModelEntry] = field(default_factory=dict)
    train: Mapping[str, TrainEntry] = field(default_factory=dict)
    merge: Mapping[str, MergeEntry] = field(default_factory=dict)
    eval: EvalEntry | None = None
    diagnose: tuple[Use, ...] = ()
    advise: tuple[Use, ...] = ()
    report: tuple[Use, ...] = ()
    contamination: GateEntry = GateEntry()
    recorded: RecordedEntry | None = None


def load(path: Path, registry: Registry) -> Recipe:
    """Read and validate a recipe. Raises RecipeError with every problem found, in the order of the file."""
    reader = _Sections(yamlfile.read(path), registry)
    recipe = reader.recipe()
    if reader.problems:
        raise RecipeError([problem for _, problem in sorted(reader.problems, key=lambda pair: pair[0])])
    return recipe


class _Sections(Reader):
    """Reads the sections of a recipe, top to bottom."""

    def uses(self, kind: str, section: str, default: Sequence[str]) -> tuple[Use, ...]:
        value = self.sections.get(section, list(default))
        listed = value if isinstance(value, list) else [value]
        found = [self.use(kind, (section, index), item) for index, item in enumerate(listed)]
        return tuple(use for use in found if use)

    # -- sections ----------------------------------------------------------------------------------------------

    def recipe(self) -> Recipe:
        if isinstance(self.file.data, dict) and "results" in self.file.data:
            return self.recorded()
        self.sections = self.mapping((), self.file.data, SECTIONS, ["base"])
        self.seed: int = self.value(("seed",), self.sections.get("seed", 0), int, 0)
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

    def section(self, name: str) -> dict[str, Any]:
        return self.mapping((name,), self.sections[name]) if name in self.sections else {}

    def each(self, section: str, read: Callable[[At, Any, dict[str, Any]], Any]) -> dict[str, Any]:
        """Every entry of a section, with the section's `defaults`."""
        entries = self.section(section)
        defaults = self.mapping((section, "defaults"), entries.pop("defaults", {}))
        for name in entries:
            if not name.replace("_", "").replace("-", "").replace(".", "").isalnum() or name == "base":
                self.problem((section, name), f"{name!r} cannot be a name", "letters, digits, _ - . and not 'base'")
        return {name: read((section, name), entry, defaults) for name, entry in entries.items()}

    def model(self, at: At, entry: Any, kind: Kind, allowed: Sequence[str] | None = None) -> ModelEntry:
        allowed = allowed or ["model", "revision", "kind", "data"]
        given = {"model": entry} if isinstance(entry, str) else self.mapping(at, entry, allowed, ["model"])
        found = ModelEntry(
            self.value((*at, "model"), given.get("model", ""), str, ""),
            self.value((*at, "revision"), given.get("revision"), str | None, None),
            self.value(
                (*at, "kind"),
                given.get("kind", kind),
                Literal["expert", "mixture", "model"] if kind != "base" else Kind,
                kind,
            ),
            self.names((*at, "data"), given.get("data", []), None, "dataset"),
        )
        if found.source:
            try:
                sources.model_pins(found.source, found.revision)
                path = sources.local_directory(found.source)
                if path and kind == "base" and sources.is_adapter(path):
                    what = f"{found.source} is a LoRA adapter, and a base is a whole model"
                    self.problem((*at, "model"), what, "give the model that it was trained on, and it under `models:`")
            except SourceError as error:
                self.problem((*at, "model"), error.message, error.hint)
        return found

    def fits(self, base: ModelEntry, models: Mapping[str, ModelEntry]) -> None:
        """Check what is on this machine already: whole, and aligned with the base."""
        base_path = sources.local_directory(base.source)
        for at, entry in ((("base",), base), *((("models", name), entry) for name, entry in models.items())):
            path = sources.local_directory(entry.source)
            try:
                if path and sources.is_adapter(path):
                    if base_path:
                        checkpoint.check_adapter(path, checkpoint.inspect(base_path))
                elif path and base_path and path != base_path:
                    checkpoint.check_aligned(base_path, {str(at[-1]): path})
                elif path:
                    checkpoint.inspect(path)
            except CheckpointError as error:
                self.problem((*at, "model"), error.message, error.hint)

    def dataset(self, at: At, entry: Any, defaults: dict[str, Any]) -> sources.DataSpec | None:
        allowed = [spec.name for spec in fields(sources.DataSpec)]
        before = len(self.problems)
        given = self.mapping(at, {"source": entry} if isinstance(entry, str) else entry, allowed)
        given = {**defaults, **given}
        if "source" not in given and len(self.problems) == before:
            self.problem(at, f"{dotted(at)} needs 'source'", "such as hf:OWNER/NAME or a path")
        hints = _hints(sources.DataSpec)
        for key, value in given.items():
            self.value((*at, key), value, hints[key], None, sources.ALLOWED.get(key, ""))
        if len(self.problems) > before:
            return None
        spec = sources.DataSpec(**given)
        problems = sources.check_data(spec)
        for key, what, hint in problems:
            self.problem((*at, key) if key in given else (*at, "source"), what, hint)
        return None if problems else spec

    def experts_named(self) -> set[str]:
        """Every name that a merge lists under `experts`; `train` needs it to tell experts from mixtures."""
        entries = self.sections.get("merge")
        listed = (
            [entry.get("experts") for entry in entries.values() if isinstance(entry, dict)]
            if isinstance(entries, dict)
            else []
        )
        return {name for names in listed if isinstance(names, list) for name in names if isinstance(name, str)}

    def training(self, at: At, entry: Any, defaults: dict[str, Any], data: Mapping[str, Any]) -> TrainEntry | None:
        allowed = ["data", "unit", "fraction", "trainer", "seed", "kind"]
        given = self.mapping(at, entry, allowed)
        merged = {**defaults, **given}
        for key in ("data", "trainer"):
            if key not in merged:
                self.problem(at, f"{dotted(at)} needs {key!r}", listed(allowed))
        trainer = (
            self.use("trainer", (*at, "trainer"), merged["trainer"], defaults.get("trainer"))
            if ("trainer" in merged)
            else None
        )
        shares = self.shares((*at, "data"), merged.get("data", {}), data)
        kind = (
            "expert" if at[-1] in self.merged_experts or (not self.merged_experts and len(shares) == 1) else "mixture"
        )
        fraction = self.value((*at, "fraction"), merged.get("fraction", 1.0), float, 1.0)
        if not 0 < fraction <= 1:
            self.problem((*at, "fraction"), f"{dotted((*at, 'fraction'))} is {fraction}, not within (0, 1]")
        if trainer is None or not shares:
            return None
        return TrainEntry(
            shares,
            self.value((*at, "unit"), merged.get("unit", "examples"), Literal["examples", "tokens"], "examples"),
            fraction,
            trainer,
            self.value((*at, "seed"), merged.get("seed", self.seed), int, self.seed),
            self.value((*at, "kind"), merged.get("kind", kind), Literal["expert", "mixture"], kind),
        )

    def shares(self, at: At, value: Any, data: Mapping[str, Any]) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for name, share in self.mapping(at, value).items():
            if name not in data:
                self.problem((*at, name), f"no dataset is called {name!r}", suggest(name, data))
            if share == "all":
                found[name] = None
            elif isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1:
                found[name] = float(share)
            else:
                self.problem((*at, name), f"{dotted((*at, name))} is {share!r}", "allowed: all, or a share in (0, 1]")
        given = [share for share in found.values() if share is not None]
        if given and len(given) < len(found):
            self.problem(at, f"{dotted(at)} mixes `all` with shares", "give every dataset a share, or every one `all`")
        elif given and not math.isclose(sum(given), 1, abs_tol=1e-6):
            hint = "shares are parts of the mixture; for less data use `fraction`"
            self.problem(at, f"the shares of {dotted(at)} add up to {sum(given):g}, not 1", hint)
        return found

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
        return MergeEntry(experts, space, fixed, strategy, keep, fixed["seed"])

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


def _hints(cls: type) -> dict[str, Any]:
    import typing

    return typing.get_type_hints(cls, include_extras=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
