"""Verbs of models and outputs, without a recipe."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import MixmergeError
from .common import say_isolation, use_of

if TYPE_CHECKING:
    from ..merging import Merge, MergeFile


def merge(arguments: argparse.Namespace) -> int:
    from .. import merging
    from ..plugins.mergekit import hand_over

    if arguments.mergekit:
        hand_over(arguments.config, arguments.out, arguments.seed)
        print(arguments.out)
        return 0
    file, merge = _merge_of(arguments)
    for line in merge.lines:
        print(line, file=sys.stderr)
    digest = merging.write(merge, file, arguments.out, threads=arguments.threads)
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), "digest": digest, "does": merge.lines}, indent=1))
    else:
        print(arguments.out)
    return 0


def _merge_of(arguments: argparse.Namespace) -> tuple[MergeFile, Merge]:
    from .. import merging, recipe
    from ..plugins.mergekit import align_tokens, compat, parameters_of
    from ..registry import Registry

    if recipe.is_one(arguments.config) and not merging.is_one(arguments.config):
        hint = f"`mixmerge recipe {arguments.config}` runs it"
        raise MixmergeError(f"{arguments.config} is a recipe and no mergekit YAML", hint=hint)
    file = merging.read(arguments.config, parameters_of)
    exact, seed = getattr(arguments, "compat", False), getattr(arguments, "seed", 0)
    mergekit = merging.Mergekit(compat, align_tokens)
    return file, merging.prepare(file, Registry(arguments.plugins), mergekit, compat=exact, seed=seed)


def plan_merge(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from .. import merging
    from ..display import size

    arguments.config = arguments.recipe
    _, merge = _merge_of(arguments)
    found = merging.estimate(merge)
    if arguments.json:
        print(json.dumps({"does": merge.lines, **asdict(found)}, indent=1))
        return 0
    print("\n".join(merge.lines))
    print(f"reads {size(found.bytes_read)}, writes {size(found.bytes_written)}")
    print(f"memory: about {size(found.peak_bytes)} over the interpreter; about {found.seconds:.0f} s on one core")
    return 0


def diagnose(arguments: argparse.Namespace) -> int:
    from .. import diagnosis
    from ..registry import Registry

    registry = Registry(arguments.plugins)
    say = _counter("percent of the weights read")
    wanted = arguments.diagnostic or [*diagnosis.USUAL, *(["null"] if arguments.same_task else [])]
    found = diagnosis.diagnose(
        arguments.base,
        arguments.experts,
        [use_of(registry, "diagnostic", text) for text in wanted],
        same_task=arguments.same_task,
        place=registry.place,
        progress=lambda done, total: say(100 * done // total, 100),
    )
    print(json.dumps(found.plain) if arguments.json else "\n".join(diagnosis.table(found)))
    if arguments.out:
        from ..plugins.reporters.figures import layer_curves

        for path in diagnosis.write_figures(found, arguments.out, layer_curves):
            print(path, file=sys.stderr)
    return 0


def score(arguments: argparse.Namespace) -> int:
    from .. import scoring

    say_isolation(arguments)
    path = arguments.out or scoring.results_file(arguments.samples)
    writable = True
    try:
        scoring.require_writable(path)
    except MixmergeError as error:
        if arguments.out:
            raise
        writable = not arguments.samples.exists()  # then that is what is wrong
        if not writable:
            print(f"warning: results will only be printed: {error}", file=sys.stderr)
    scored = scoring.score(
        arguments.task,
        arguments.samples,
        data=arguments.data,
        workers=arguments.workers,
        sanitize=arguments.sanitize,
        progress=_counter("programs run"),
    )
    print(json.dumps(scored.summary) if arguments.json else "\n".join(scored.lines), flush=True)
    for note in scored.notes:
        print(f"note: {note}", file=sys.stderr)
    if writable:
        kept = scoring.write_results(scored, path)
        print(f"results: {path}" + (f" (what was there is now {kept.name})" if kept else ""), file=sys.stderr)
    return 0


def _counter(what: str) -> Callable[[int, int], None]:
    """Says how far something is, on stderr, every few seconds and at the end."""
    import time

    said = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said
        if done == total or time.monotonic() - said > 5:
            said = time.monotonic()
            print(f"{done} of {total} {what}", file=sys.stderr)

    return say
