"""`mixmerge compare A B`: two recipes, or two runs, and what they both scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from . import recipe, results
from .collect import collect
from .errors import MixmergeError, StoreError
from .paths import find_recipe
from .registry import Registry
from .run import current_plan
from .store import Store
from .types import Results


def load(text: str, registry: Registry, out: Path) -> Results:
    """The results of a recipe (its file, run under `out`), or of a run (its folder, such as runs/quickstart).

    `#NAME` at the end names an experiment of recorded results. Raises MixmergeError where there is nothing to compare.
    """
    place, _, part = text.partition("#")
    path = Path(place)
    if path.is_dir():
        found = _of_run(path)
    else:
        entry = recipe.load(find_recipe(path), registry)
        found = collect(current_plan(entry, Store(out / "store")).manifest, Store(out / "store"))
    if found.parts:
        known = {one.name: one for one in found.parts}
        if part not in known:
            what = f"no experiment is called {part!r}" if part else f"{place} holds {len(known)} experiments"
            raise MixmergeError(f"{what}", hint=f"name one: {place}#NAME, with {', '.join(known)}")
        return known[part]
    if not found.rows:
        raise MixmergeError(f"{place} has no results yet", hint=f"mixmerge recipe {place}")
    return found


def _of_run(folder: Path) -> Results:
    """Of the newest report of a run: the step that wrote it knows what it was about."""
    store = Store(folder.parent / "store")
    steps = [store.spec(path.stem) for path in (store.root / "specs").glob("*.json")]
    reports = [step for step in steps if step.kind == "report" and step.content["manifest"]["name"] == folder.name]
    records = [record for step in reports if (record := store.record(step.id))]
    if not records:
        raise StoreError(
            f"{folder} is no finished run", hint="give the recipe's file, or a folder such as runs/quickstart"
        )
    newest = max(records, key=lambda record: record.finished)
    return collect(newest.step.content["manifest"], store)


def lines(a: Results, b: Results, found: Iterable[results.Across]) -> Iterator[str]:
    """What `results.across` found, as text: a block per pair of models, A minus B."""
    found = list(found)
    if not found:
        known = [", ".join(one.report_on or one.choose_on) or "none" for one in (a, b)]
        yield f"nothing to compare: A reports on {known[0]}, B on {known[1]}"
        return
    yield f"A: {a.name} (seed {a.seed}); B: {b.name} (seed {b.seed}); positive: A is better"
    for names in dict.fromkeys((one.a, one.b) for one in found):
        yield names[0] if names[0] == names[1] else f"{names[0]} (A's winner) and {names[1]} (B's winner)"
        yield from (f"  {_line(one)}" for one in found if (one.a, one.b) == names)
    total = sum(one.versus is not None for one in found)
    yield f"p after Holm's correction over {total} comparisons; * where it is under 0.05"


def _line(one: results.Across) -> str:
    task = one.task or "mean over tasks, points of relative change"
    scores = f"{one.values[0]:.4g} and {one.values[1]:.4g}, " if one.values else ""
    if one.versus is None or one.holm_p is None:
        return f"{task}: {scores}no interval ({one.why or 'no standard errors'})"
    pair = one.versus
    how = f"not paired: {one.why}" if one.why else f"n = {pair.n}, paired"
    interval = f"{pair.difference:+.3g} ({100 * pair.level:g} % interval {pair.low:+.3g} to {pair.high:+.3g}; {how})"
    return f"{task}: {scores}{interval}, p = {one.holm_p:.2g}{' *' if one.holm_p < 0.05 else ''}"
