"""The whole plugin API, on one page.

A plugin is a module that implements any of these hooks with `@hookimpl`; `pip install` makes it known through the
entry point group `mixmerge`, and `mixmerge -p FILE.py` through its path. A hook returns a list of components: functions
decorated with `@trainer`, `@merger` and so on. Positional parameters are supplied by mixmerge and fixed per kind;
keyword-only parameters are what a recipe may set. What a component gave is kept for as long as its name and `version`
stay, and the source of its plugin where `-p` named that or it was installed from a folder; so raise `version` when what
a published component gives changes.

Signatures, by kind (`/` ends the positional part):

    trainer            train(start: Checkpoint, data: Mixture, out: Path, seed: int, /, *, …) -> Mapping[str, float]
                       writes a checkpoint directory into `out` and returns figures (loss, steps, tokens, seconds)
    merger             merge(t: TensorStack, /, *, …) -> Tensor            shape t.shape, float32 or already t.dtype
                       with `prepare=`: prepare(t, /, *, …) -> Tensor      shape of t.deltas; must not look at t.weights
                       either may be `@rowwise`: it then gets some rows at a time, which keeps memory small and is what
                       makes the built-in ones quick; `t.total`, `t.before`, `t.once` and `t.draws` tell it of the rest.
                       A statistic of `t.total` is a function of the module or a functools.partial of one, no lambda.
                       t.base and t.deltas are computed, and t.stored is read, only when they are asked for; a compiled
                       loop that takes t.operands needs no deltas. `help(mixmerge.TensorStack)` has them all:
                         t.total(f), t.before(f)   the sum of f(part) over a tensor's parts, over those before this
                         t.once(f)                 f(part), computed once for all points of a sweep: a mask, say
                         t.draws(i)                uint16 (*shape), a random number for each element, the same for all
                         t.chosen(i, probability)  bool (*shape), from such numbers
                         t.operands                (origin, models): the tensors that t.deltas are differences of
                       with `fits=`: fits(weights, /, *, …) -> str: what is wrong with the parameters for these
                       weights, one for each expert, or ""; a recipe then says so before anything runs
    checkpoint_merger  merge(base: Checkpoint, experts: Sequence[Checkpoint], weights: Sequence[float], out: Path,
                       seed: int, /, *, …) -> None
    evaluator          evaluate(model: Checkpoint, tasks: Sequence[str], out: Path, seed: int, /, *, …)
                       -> Sequence[Score]; files left in `out` are kept with the record, and of `samples_TASK.jsonl`
                       (lm-eval's log, in the order of `Score.samples`) a few are shown side by side in reports
                       with `pins=`: pins(tasks, parameters) -> Mapping[str, str]: what each task consists of, groups
                       expanded, and other facts under keys with a leading ":"; raises SourceError on an unknown task
                       with `tasks=`: tasks() -> Sequence[(name, one line about it)] that come with it
                       with `contents=`: contents(tasks, /, *, …) -> Mapping[str, Sequence[Document] | str]: for each
                       task its documents, which training data is compared with, or why they cannot be had; its
                       keyword-only parameters are those of `evaluate` that decide what the tasks hold
    diagnostic         observe(t: TensorView, /, *, …) -> Mapping[str, Tensor]
                       float64 statistics that add up over the tensors of a group; t.deltas has one row per model, as
                       in a TensorStack, and t.total(statistic) sums up small TensorParts without holding the whole
                       with `finish=`: finish(sums, models, /) -> Iterable[(metric, models, value)] for one group;
                       one that takes `about` is given the models themselves, Sequence[Checkpoint]
                       with `totals=`: the statistics it will ask for, so that all diagnostics share one pass
    strategy           propose(space: Mapping[str, Sequence], trials: Sequence[Trial], seed: int, /, *, …)
                       -> Sequence[Point]; [] = finished; called again with the trials so far
    advisor            advise(results: Results, /, *, …) -> Advice
    executor           connect(worker: Sequence[str], /, *, …) -> a context manager of `Pool`
    reporter           report(results: Results, out: Path, /, *, …) -> Sequence[Path]
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

import pluggy

from .components import Component
from .types import Record, Step

hookspec = pluggy.HookspecMarker("mixmerge")
hookimpl = pluggy.HookimplMarker("mixmerge")


class Pool(Protocol):
    """What an executor gives: a place that runs steps. `slots` is how many at a time."""

    slots: int

    def submit(self, step_id: str) -> Future[None]:
        """Run one step. The future holds a StepError when the step failed, and is cancellable until it starts."""


@hookspec
def register_trainers() -> Sequence[Component]:  # type: ignore[empty-body]
    """Ways to turn a checkpoint and data into another checkpoint."""


@hookspec
def register_mergers() -> Sequence[Component]:  # type: ignore[empty-body]
    """Ways to combine experts into one model."""


@hookspec
def register_evaluators() -> Sequence[Component]:  # type: ignore[empty-body]
    """Ways to score a model on tasks."""


@hookspec
def register_diagnostics() -> Sequence[Component]:  # type: ignore[empty-body]
    """Figures about the weights; all of a recipe share one pass over the checkpoints."""


@hookspec(firstresult=True)
def place_tensor(name: str) -> str | None:
    """Where a tensor of an architecture sits that mixmerge does not know, told from its name: "layer 3", "embeddings",
    "head" or "norm" (the final one). None for any other name: then the next plugin is asked, and mixmerge last."""


@hookspec
def register_strategies() -> Sequence[Component]:  # type: ignore[empty-body]
    """Ways to walk through a sweep; `grid` is the default."""


@hookspec
def register_advisors() -> Sequence[Component]:  # type: ignore[empty-body]
    """Mix, merge or undecided, with the evidence."""


@hookspec
def register_executors() -> Sequence[Component]:  # type: ignore[empty-body]
    """Places that run steps; `local` is the default."""


@hookspec
def register_reporters() -> Sequence[Component]:  # type: ignore[empty-body]
    """Ways to write results down."""


@hookspec
def step_started(step: Step) -> None:
    """A step begins. For observers: trackers, notifiers. Called in the process that was started by the user."""


@hookspec
def step_finished(step: Step, record: Record | None, error: str) -> None:
    """A step ended: `record` is None and `error` says why when it failed."""
