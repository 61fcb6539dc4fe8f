"""Verbs of a recipe: run it, check it, say what it would do, print and compare its results."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ..errors import MixmergeError
from .common import say_isolation, use_of
from .models import plan_merge

if TYPE_CHECKING:
    from ..plan import Plan
    from ..recipe import Recipe
    from ..registry import Registry
    from ..store import Store


def _load(arguments: argparse.Namespace) -> tuple[Recipe, Registry, Store]:
    from .. import merging, recipe
    from ..paths import find_recipe
    from ..registry import Registry
    from ..store import Store

    if merging.is_one(arguments.recipe):
        hint = f"`mixmerge plan {arguments.recipe}` checks it, `mixmerge merge {arguments.recipe} OUT` merges"
        raise MixmergeError(f"{arguments.recipe} is a mergekit YAML and no recipe", hint=hint)
    registry = Registry(arguments.plugins)
    return recipe.load(find_recipe(arguments.recipe), registry), registry, Store(arguments.out / "store")


def recipe(arguments: argparse.Namespace) -> int:
    from .. import display, run

    say_isolation(arguments)
    recipe, registry, store = _load(arguments)
    use = use_of(registry, "executor", arguments.executor)
    command = run.worker_command(store, registry)
    shown = display.make()
    try:
        connect = partial(use.component.function, command, **use.parameters)
        outcome = run.run(recipe, registry, store, arguments.out / recipe.name, connect, shown)
    finally:
        shown.close()
    if not outcome.ran:
        print("nothing to do: every step is done", file=sys.stderr)
    for text in outcome.summary:
        print(text)
    if (models := arguments.out / recipe.name / "models").is_dir():
        print(f"models: {models}", file=sys.stderr)
    index = outcome.report / "index.html" if outcome.report else None
    print(index if index and index.is_file() else outcome.report or f"done: {arguments.out / recipe.name}")
    return 0


def check(arguments: argparse.Namespace) -> int:
    from ..plan import build
    from ..sources.spec import NAMES

    recipe, _, _ = _load(arguments)
    plan = build(recipe)
    print(f"{arguments.recipe}: good; {len(plan.runnable)} steps, {len(recipe.train)} trainings", end="")
    print(f", {sum(model.kind == 'merge' for model in plan.models)} merges")
    sources = [entry.source for entry in (recipe.base, *recipe.models.values())]
    sources += [spec.source for spec in recipe.data.values()]
    if any(source.startswith("hf:") or source in NAMES for source in sources):
        print("the hub is asked only when the recipe runs")
    if (
        recipe.advise
        and not recipe.recorded
        and (missing := [kind for kind in ("mixture", "merge") if kind not in {m.kind for m in plan.models}])
    ):
        hint = "train one, or name one under `models` with kind: mixture" if missing == ["mixture"] else "see `merge`"
        print(
            f"note: advice compares mixtures with merges, and the recipe has no {missing[0]}; {hint}", file=sys.stderr
        )
    return 0


def plan(arguments: argparse.Namespace) -> int:
    from .. import merging

    if merging.is_one(arguments.recipe):
        return plan_merge(arguments)
    if arguments.compat:
        raise MixmergeError(f"{arguments.recipe}: --compat is for a mergekit YAML", hint="leave it out for a recipe")
    from ..plan import build
    from ..run import current_plan, estimate_bytes, to_do

    recipe, _, store = _load(arguments)
    wrong: MixmergeError | None = None
    try:
        plan = current_plan(recipe, store)
    except MixmergeError as error:  # of what was scored so far; there is a plan all the same
        plan, wrong = build(recipe), error
    missing = to_do(plan, store)
    again = {step.id for step in missing if store.record(step.id)}
    needed = estimate_bytes(plan, missing, store) if missing else 0.0
    steps = [
        {
            "id": step.id,
            "kind": step.kind,
            "name": step.name,
            "state": "to do" if step.id in again else store.state(step.id),
        }
        for step in plan.runnable
    ]
    if arguments.json:
        print(json.dumps({"steps": steps, "later": plan.later, "disk_bytes": needed}, indent=1))
    else:
        _print_plan(plan, steps, len(missing), needed)
    if wrong:
        raise wrong
    return 0


def _print_plan(plan: Plan, steps: Sequence[Mapping[str, str]], missing: int, needed: float | None) -> None:
    from ..display import size
    from ..run import kept

    for step in steps:
        print(f"{step['id']}  {step['state']:6}  {step['name']}")
    for text in plan.later:
        print(f"{'':16}  later   {text}")
    merges = sum(model.kind == "merge" for model in plan.models)
    print(f"{missing} of {len(steps)} steps to do; {merges} merges, scored without being written; {kept(plan)} kept")
    about = "unknown until the base is fetched" if needed is None else f"about {size(needed)}"
    print(f"disk needed: {about} (float32 checkpoints, and the optimizer's states while training)")


def report(arguments: argparse.Namespace) -> int:
    from ..collect import collect
    from ..run import current_plan, publish, summary

    recipe, _, store = _load(arguments)
    plan = current_plan(recipe, store)
    found = collect(plan.manifest, store)
    experiments = [(part.name, row) for part in found.parts for row in part.rows] or [("", row) for row in found.rows]
    if arguments.json:
        keys = (
            "model",
            "kind",
            "task",
            "metric",
            "value",
            "stderr",
            "n",
            "k",
            "higher_is_better",
            "settings",
            "record",
        )
        named = [({"experiment": name} if name else {}, row) for name, row in experiments]
        print(json.dumps([{**name, **{key: getattr(row, key) for key in keys}} for name, row in named], indent=1))
        return 0
    if not experiments:
        raise MixmergeError("there are no results yet", hint=f"mixmerge recipe {arguments.recipe}")
    width = max(len(row.model) for _, row in experiments)
    for name, row in experiments:
        if row.primary:
            error = f" ± {row.stderr:.4g}" if row.stderr is not None else ""
            about = f"{name}  {row.model}" if name else f"{row.model:{width}}"
            print(f"{about}  {row.kind:9}  {row.task}  {row.metric} {row.value:.4g}{error}  (n = {row.n})")
    said = list(summary(plan, store))
    if not said and found.rows:  # of the results so far, where no report has been made of them yet
        said = [use.component.function(found, **use.parameters).headline for use in recipe.advise]
    for text in said:
        print(text)
    if folder := publish(plan, store, arguments.out / recipe.name):
        print(folder / "index.html" if (folder / "index.html").is_file() else folder)
    return 0


def compare(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from .. import versus
    from ..registry import Registry
    from ..results import across

    registry = Registry(arguments.plugins)
    a, b = (versus.load(text, registry, arguments.out) for text in (arguments.first, arguments.second))
    found = across(a, b)
    if arguments.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
        return 0
    for line in versus.lines(a, b, found):
        print(line)
    return 0
