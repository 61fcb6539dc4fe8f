"""Diagnostics in one pass: every tensor is read once for all models and all observers."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..types import Checkpoint, Measurement
from .layout import FLOATS, Layout, inspect, require_same_tensors
from .names import layer_of, type_of
from .parts import identity
from .slabs import Files, InMemory, Source
from .stream import by_family, merged
from .view import Statistic, TensorView, add

if TYPE_CHECKING:
    from torch import Tensor

Finding = tuple[str, tuple[str, ...], float]
"""(metric, the model or pair of models it is about, value)."""

_AHEAD_BYTES = 900 << 20  # stored weights in memory at a time, of all tensors that are worked on
_EXPECTED_BYTES = 500 << 20  # what the disk fetches meanwhile; in the system's cache, not in this process
_INLINE = 1 << 18  # weights; smaller tensors are not worth a thread
_KINDS = ("embeddings", "norm", "head", "other", "layers", "all")


@dataclass(frozen=True)
class Observer:
    """A diagnostic with its parameters bound.

    observe  gives statistics of one tensor that add up over tensors
    finish   turns their sums over one group of tensors into findings
    totals   what `observe` will ask `t.total` for: one pass then serves all observers
    """

    name: str
    observe: Callable[[TensorView], Mapping[str, Tensor]]
    finish: Callable[[Mapping[str, Tensor], Sequence[str]], Iterable[Finding]]
    totals: Sequence[Statistic] = ()


def measure(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    observers: Sequence[Observer],
    seed: int = 0,
    *,
    place: Callable[[str], str] = layer_of,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """What every observer finds about `models` against `base`, for each group of tensors.

    Groups: each layer ("layer 3"), "embeddings", "head", "norm", "other", "layers" (all layers, without embeddings,
    head and final norm), "all", each type of a layer's tensors ("type self_attn.q_proj"), and "tensor NAME" for each
    tensor that `place` knows no place for. A tied head is part of the embeddings.

    One pass over the stored files, in threads; memory of about a gigabyte whatever the models' size, plus what an
    observer itself holds, plus one tensor of every merge in float32. The findings do not depend on the number of
    threads. `progress` is told (bytes of the base done, bytes in all). Raises CheckpointError when a model does not fit
    the base or a value is not finite.
    """
    seen: dict[Any, int] = {}
    slots = [seen.setdefault(identity(observer.observe), len(seen)) for observer in observers]
    distinct = [observers[slots.index(slot)] for slot in range(len(seen))]
    sums: list[dict[str, dict[str, Tensor]]] = [{} for _ in distinct]
    for name, found in _observed(base, models, distinct, seed, progress):
        for total, statistics in zip(sums, found, strict=True):
            for group in _groups(name, place(name)):
                add(total.setdefault(group, {}), statistics)
    names = [model.name for model in models]
    return [
        Measurement(observer.name, metric, group, about, value)
        for observer, slot in zip(observers, slots, strict=True)
        for group, statistics in sorted(sums[slot].items(), key=lambda item: _place(item[0]))
        for metric, about, value in observer.finish(statistics, names)
    ]


Found = list[Mapping[str, "Tensor"]]


def _observed(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    observers: Sequence[Observer],
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[str, Found]]:
    """(tensor, what each observer saw in it), in sorted order; several tensors are worked on at once."""
    layout, done = inspect(base.path), 0
    waiting: deque[tuple[str, int, Future[Found]]] = deque()

    def first() -> tuple[str, Found]:
        nonlocal done
        name, _, future = waiting.popleft()
        found = future.result()
        done += layout.tensors[name].bytes
        if progress:
            progress(done, layout.bytes)
        return name, found

    with Files() as files, _threads() as pool:
        try:
            for view in _expected(_views(base, layout, models, files, seed)):
                while waiting and sum(cost for _, cost, _ in waiting) + view.cost > _AHEAD_BYTES:
                    yield first()
                waiting.append((view.name, view.cost, _start(pool, partial(_observe, view, observers), view)))
            while waiting:
                yield first()
        finally:
            for _, _, future in waiting:
                future.cancel()


def _expected(views: Iterable[TensorView]) -> Iterator[TensorView]:
    """The same views, each told to the disk some hundred megabytes before it is worked on."""
    ahead: deque[TensorView] = deque()
    for view in views:
        view.expect()
        ahead.append(view)
        while sum(one.cost for one in ahead) > _EXPECTED_BYTES:
            yield ahead.popleft()
    yield from ahead


def _observe(view: TensorView, observers: Sequence[Observer]) -> Found:
    try:
        view.gather(statistic for observer in observers for statistic in observer.totals)
        return [observer.observe(view) for observer in observers]
    finally:
        view.close()


def _start(pool: ThreadPoolExecutor, work: Callable[[], Found], view: TensorView) -> Future[Found]:
    if view.cost > _INLINE:
        return pool.submit(work)
    future: Future[Found] = Future()
    future.set_result(work())
    return future


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Two threads more than processors, since some wait for the disk; libraries use one thread within each."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with threadpool_limits(1):
            with ThreadPoolExecutor(available + 2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield pool
    finally:
        torch.set_num_threads(before)


def _views(
    base: Checkpoint, layout: Layout, models: Sequence[Checkpoint], files: Files, seed: int
) -> Iterator[TensorView]:
    """Every floating-point tensor, in sorted order."""
    layouts = [layout if model.derivation else inspect(model.path) for model in models]
    for model, other in zip(models, layouts, strict=True):
        require_same_tensors(base.name, layout, model.name, other)
    computed = _Derived(models)
    for name in layout.names:
        made = computed.next(name)
        if layout.tensors[name].dtype not in FLOATS:
            continue
        sources: list[Source] = [files.source(layout.tensors[name])]
        for index, other in enumerate(layouts):
            sources.append(InMemory(made[index]) if index in made else files.source(other.tensors[name]))
        yield TensorView(name, layout.tensors[name].shape, (base, models), sources, seed)


class _Derived:
    """The merges among the models as they are written, those of one family computed together, one tensor after the
    other."""

    def __init__(self, models: Sequence[Checkpoint]) -> None:
        self._families = [
            (rows, merged([found for row in rows if (found := models[row].derivation)]))
            for rows in by_family(models).values()
        ]

    def next(self, name: str) -> dict[int, Tensor]:
        """Index of the model to its tensor; names must come in sorted order."""
        found: dict[int, Tensor] = {}
        for rows, stream in self._families:
            for at, tensors in stream:
                if at == name:
                    found.update(zip(rows, tensors, strict=True))
                    break
        return found


def _groups(name: str, place: str) -> tuple[str, ...]:
    if place.startswith("layer "):
        return (place, "layers", "all", f"type {type_of(name)}")
    return (place, "all", f"tensor {name}") if place == "other" else (place, "all")


def _place(group: str) -> tuple[int, int, str]:
    """Layers by number, then kinds in a fixed order, then types, then single tensors."""
    if group.startswith("layer "):
        return (0, int(group.removeprefix("layer ")), "")
    if group in _KINDS:
        return (1, _KINDS.index(group), "")
    return (2 if group.startswith("type ") else 3, 0, group)
