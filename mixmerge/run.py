"""Runs what is missing of a plan through an executor, and plans again until nothing is.

The only place that starts work. A step that is in the store is never run again; one that fails leaves its log, what
depends on it is left out, and the rest goes on.
"""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from . import checkpoint, sources
from .collect import collect, decide, read_advice
from .errors import MixmergeError, StepError, StoreError
from .hookspecs import Pool
from .plan import Decision, Plan, build, is_virtual
from .recipe import Recipe
from .registry import Registry
from .results import tally
from .store import Store
from .types import Advice, Record, Step

_FIRST = (
    *("source", "data", "contamination", "mixture", "train"),
    *("merge", "evaluate", "diagnose", "export", "record", "advise", "report"),
)
"""Among steps that could run: what others wait for comes first; among trainings, the one with the most rows."""


class Display(Protocol):
    """What the person at the terminal sees."""

    def planned(self, plan: Plan, missing: list[Step]) -> None: ...
    def started(self, step: Step) -> None: ...
    def finished(self, step: Step, record: Record | None, error: str) -> None: ...
    def tick(self, progress: Mapping[str, Mapping[str, object]]) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What a run came to. `ran` is how many steps it had to do; `report` the folder with the report, if any; `summary`
    the answers in a line each."""

    plan: Plan
    ran: int
    report: Path | None
    advice: tuple[Advice, ...]
    summary: tuple[str, ...] = ()


_BEFORE_GATES = ("source", "data", "contamination")

Connect = Callable[[], AbstractContextManager[Pool]]


def run(recipe: Recipe, registry: Registry, store: Store, home: Path, connect: Connect, display: Display) -> Outcome:
    """Run a recipe to its end and publish its report and kept models under `home`.

    Raises StoreError when another run holds the store, StepError when a step failed (after the others have ended).
    """
    ran = 0
    decisions: dict[str, Decision] = {}
    with store.lock(), ExitStack() as stack:
        pool: Pool | None = None
        while True:
            plan = build(recipe, decisions)
            missing = to_do(plan, store)
            if missing:
                _check_space(plan, missing, store)
                pool = pool or stack.enter_context(connect())
                ran += _Scheduler(plan, missing, registry, store, display).run(pool)
            decided = decide(plan, store)
            if decided == decisions or not plan.recipe.merge:
                break
            decisions = decided
        report = publish(plan, store, home)
    advice = tuple(read_advice(step, store) for step in plan.of_kind("advise"))
    return Outcome(plan, ran, report, advice, tuple(summary(plan, store)))


def current_plan(recipe: Recipe, store: Store) -> Plan:
    """The plan as far as what the store holds allows; runs nothing."""
    decisions: dict[str, Decision] = {}
    while True:
        plan = build(recipe, decisions)
        decided = decide(plan, store)
        if decided == decisions:
            return plan
        decisions = decided


def summary(plan: Plan, store: Store) -> Iterator[str]:
    """The answers in a line each; of recorded results those of every experiment, and what was doubted."""
    found = collect(plan.manifest, store)
    advice = [read_advice(step, store).headline for step in plan.of_kind("advise") if store.record(step.id)]
    names = [part.name for part in found.parts for _ in plan.recipe.advise]
    yield from (f"{name}: {text}" for name, text in zip(names, advice, strict=True)) if names else advice
    yield from (f"{what}: {count}" for what, count in tally(found))


def to_do(plan: Plan, store: Store) -> list[Step]:
    """Steps to run: those that are not done, done ones whose payload is gone and needed again, and models that lie
    elsewhere than they did."""
    wanted: dict[str, Step] = {}

    def want(step_id: str, needed: bool) -> None:
        step, record = plan.steps[step_id], store.record(step_id)
        done = record is not None and not _is_elsewhere(step, record, needed)
        if step_id in wanted or (done and not is_virtual(step)):
            return
        for ids in step.inputs.values():
            for other in ids:
                want(other, needed=True)
        wanted[step_id] = step

    for step in plan.runnable:
        want(step.id, needed=False)
    return [step for step in wanted.values() if not is_virtual(step)]


def _is_elsewhere(step: Step, record: Record, needed: bool) -> bool:
    """Whether a model that is used where it lies has moved since: a directory, whose place records and cards name; or
    the cache that it was fetched into, where it is `needed` there."""
    was = record.outcome.get("path") if step.kind == "source" else None
    if not was or not (needed or sources.is_directory(step.content["source"])):
        return False
    here = sources.local_directory(step.content["source"])
    return str(here.absolute()) != was if here else not Path(was).is_dir()


class _Scheduler:
    """Keeps every slot of the executor busy with steps whose inputs are there."""

    def __init__(self, plan: Plan, missing: list[Step], registry: Registry, store: Store, display: Display) -> None:
        self.plan, self.registry, self.store, self.display = plan, registry, store, display
        self.waiting = {step.id: step for step in missing}
        self.running: dict[Future[None], Step] = {}
        self.failed: dict[str, str] = {}
        self.done = 0

    def run(self, pool: Pool) -> int:
        for step in self.plan.steps.values():
            self.store.put_spec(step)
        self.display.planned(self.plan, list(self.waiting.values()))
        while self.waiting or self.running:
            self._start(pool)
            if not self.running:
                break
            ended, _ = wait(self.running, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in ended:
                self._end(future)
            self.display.tick({step.id: self.store.progress(step.id) for step in self.running.values()})
        if self.failed:
            raise self._failure()
        return self.done

    def _start(self, pool: Pool) -> None:
        ready = sorted((step for step in self.waiting.values() if self._is_ready(step)), key=self._order)
        for step in ready[: max(0, pool.slots - len(self.running))]:
            del self.waiting[step.id]
            self.display.started(step)
            self.registry.hooks.step_started(step=step)
            self.running[pool.submit(step.id)] = step

    def _is_ready(self, step: Step) -> bool:
        gates = () if step.kind in _BEFORE_GATES else self.plan.gates
        return all(self._is_there(needed) for ids in (*step.inputs.values(), gates) for needed in ids)

    def _is_there(self, step_id: str) -> bool:
        step = self.plan.steps[step_id]
        if is_virtual(step):
            return self._is_ready(step)
        unfinished = step_id in self.waiting or step_id in self.failed
        return not unfinished and all(step_id != running.id for running in self.running.values())

    def _order(self, step: Step) -> tuple[int, int]:
        mixture = self.store.record(step.inputs["mixture"][0]) if "mixture" in step.inputs else None
        return _FIRST.index(step.kind), -mixture.outcome["rows"] if mixture else 0

    def _end(self, future: Future[None]) -> None:
        step = self.running.pop(future)
        error = future.exception()
        if error is not None and not isinstance(error, MixmergeError):
            raise error
        self.store.forget(step.id)
        record = self.store.record(step.id) if error is None else None
        if record is None:
            self.failed[step.id] = self.store.failure(step.id) or str(error)
        else:
            self.done += 1
        message = self.failed.get(step.id, "")
        self.display.finished(step, record, message)
        self.registry.hooks.step_finished(step=step, record=record, error=message)

    def _failure(self) -> StepError:
        lines = [
            f"{self.plan.steps[step_id].name} failed: {error}\n  log: {self.store.log(step_id)}"
            for step_id, error in self.failed.items()
        ]
        left = f"; {len(self.waiting)} steps that need it were left out" if self.waiting else ""
        hint = f"mend it and run the same command again: what is done stays done{left}"
        return StepError("\n".join(lines), hint=hint)


def _check_space(plan: Plan, missing: list[Step], store: Store) -> None:
    """Refuse to start what cannot end. The estimate is only as good as `estimate_bytes`, so half of it must be free."""
    needed = estimate_bytes(plan, missing, store)
    folder = next(path for path in (store.root, *store.root.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if needed is not None and free < needed / 2:
        raise StoreError(
            f"the store {store.root} has {free / 1e9:.1f} GB free, and the plan needs about {needed / 1e9:.1f} GB",
            hint="free some, give --out on another disk, or keep fewer merges (`keep:`)",
        )


def estimate_bytes(plan: Plan, missing: list[Step], store: Store) -> float | None:
    """Disk that the missing steps will need at their peak: float32 checkpoints, what the hub sends (taken as 16-bit),
    and Adam's two states while training.

    None when the base's size cannot be known before it is fetched.
    """
    parameters = base_parameters(plan, store)
    if parameters is None:
        return None
    written = sum(step.kind in ("train", "export", "merge") for step in missing)
    to_keep = kept(plan) - len(plan.exports)
    fetched = sum(step.kind == "source" and str(step.content["source"]).startswith("hf:") for step in missing)
    given = [sources.local_directory(step.content["source"]) for step in missing if step.kind == "source"]
    written += sum(path is not None and sources.is_adapter(path) for path in given)
    training = 3 * any(step.kind == "train" for step in missing)
    return 4.0 * parameters * (written + to_keep + training) + 2.0 * parameters * fetched


def kept(plan: Plan) -> int:
    """How many merges will be written, as far as the plan knows them: those of entries that are not decided, too."""
    if not plan.later:
        return len(plan.exports)
    found = 0
    for group, entry in plan.recipe.merge.items():
        methods = [model.method for model in plan.models if model.group == group]
        found += {"none": 0, "winner": 1, "best_of_each_method": len(set(methods)), "all": len(methods)}[entry.keep]
    return found


def base_parameters(plan: Plan, store: Store) -> float | None:
    """The base's number of parameters: from its record or its files, else from its name (`-7B-`), else None."""
    if not plan.models:  # recorded results: nothing is held
        return 0.0
    record = store.record(plan.models[0].step)
    if record:
        return float(record.outcome["parameters"])
    if path := sources.local_directory(plan.recipe.base.source):
        layout = checkpoint.inspect(path)
        return float(sum(math.prod(layout.tensors[name].shape) for name in layout.names))
    found = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)([bBmM])(?![a-zA-Z])", plan.recipe.base.source)
    return float(found[1]) * (1e9 if found[2] in "bB" else 1e6) if found else None


def publish(plan: Plan, store: Store, home: Path) -> Path | None:
    """Copy the report to `home/report`, link what was trained and the kept merges under `home/models`, and return the
    report's folder."""
    reports = [step for step in plan.of_kind("report") if store.record(step.id)]
    trained = {model.name: model.train for model in plan.models if model.train}
    taken: set[str] = set()
    for name, step_id in {**trained, **plan.exports}.items():
        if store.record(step_id):
            folder = _folder(name)
            folder += f"_{step_id[:6]}" if folder in taken else ""
            taken.add(folder)
            link = home / "models" / folder
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(store.path(step_id))
    if not reports:
        return None
    for step in reports:
        shutil.copytree(store.path(step.id), home / "report", dirs_exist_ok=True)
    return home / "report"


def _folder(name: str) -> str:
    """A model's name without what shells, globs and lists of arguments take apart."""
    return re.sub(r"[^\w.+-]+", "_", name.replace("/", "-")).strip("_")


def worker_command(store: Store, registry: Registry) -> list[str]:
    """The command that a worker is started with; step ids go to its standard input."""
    plugins = [part for plugin in registry.requested for part in ("-p", plugin)]
    return [sys.executable, "-m", "mixmerge", *plugins, "worker", str(store.root)]
