"""One tensor of a sweep, worked on part by part: what stays small, and in the processor's cache, whatever its size."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import CheckpointError, MixmergeError
from ..types import Extent, Statistic, TensorStack
from .rows import Part, Rows, Source, changed, no_weights
from .rows import part as part_of

if TYPE_CHECKING:
    from torch import Tensor

PART = 1 << 20
"""Elements of a part, but for rows that are longer. Sums over a tensor are rounded part by part, so this is part of
what a merge means: another number may give another last bit."""

HELD_BYTES = 320 << 20  # tensors of all models up to this size are read once; larger ones in each pass, part by part
_FEW = 4  # so many parts stay as they are between passes: some MB, which the last cache may still hold
PREFIXED = 1024  # so many values of a statistic are kept for every part, so that `before` can be told


def is_rowwise(function: Callable[..., Any] | None) -> bool:
    while isinstance(function, partial):
        function = function.func
    return function is None or getattr(function, "rowwise", False)


def cut(shape: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of rows of about PART elements; a vector and a scalar are one row."""
    if len(shape) < 2 or not shape[0]:
        return [(0, shape[0] if shape else 0)]
    width = 1
    for length in shape[1:]:
        width *= length
    step = max(1, PART // max(1, width))
    return [(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]


@dataclass(frozen=True)
class View:
    """What a merger sees: deltas after one preparation under one seed, or (key "") as they are."""

    seed: int = 0
    key: str = ""
    prepare: Callable[[TensorStack], Tensor] | None = field(default=None, compare=False)
    method: str = field(default="", compare=False)

    @property
    def raw(self) -> View:
        return View(self.seed, method=self.method)

    def of(self, method: str) -> View:
        return View(self.seed, self.key, self.prepare, method)


class Whole(Protocol):
    """The model around a tensor, for totals over all of it."""

    def total(self, view: View, statistic: Statistic, before: str | None) -> Tensor: ...
    def once(self, view: View, function: Statistic, stack: TensorStack) -> Any: ...


class Work:
    """One tensor while a sweep works on it: its parts, and what was computed once about them."""

    def __init__(self, source: Source, name: str, model: Whole, pool: Executor | None, cuts: Sequence[tuple[int, int]]):
        self.source, self.name, self.model, self.cuts, self._pool = source, name, model, cuts, pool
        self._holds = source.stored_bytes(name) <= HELD_BYTES
        self._held: dict[int, Rows] = {}  # what a survey read, for the passes that follow it
        self._raw: dict[int, Part] = {}
        self._prepared: dict[View, Tensor] = {}
        self._totals: dict[Hashable, tuple[Tensor, list[Any]]] = {}
        self._tensor_once: dict[Hashable, Any] = {}
        self._part_once: dict[int, dict[Hashable, Any]] = {}
        self._blocks: dict[Hashable, Any] = {}

    def stack(self, part: int, view: View) -> Part:
        """One part as `view` shows it, its weights unknown (NaN)."""
        found = changed(self._load(part), seed=view.seed, around=Around(self, view.raw, part))
        if view.prepare is None:
            return found
        if is_rowwise(view.prepare):
            deltas = _prepared(view, changed(found, rowwise=True))
        else:
            start, stop = self.cuts[part]
            deltas = self._whole(view)
            deltas = deltas[:, start:stop] if len(self.cuts) > 1 else deltas
        return changed(found, deltas=deltas, around=Around(self, view, part))

    def each(self, do: Callable[[int], Iterator[Any]]) -> Iterator[tuple[int, Any]]:
        """(part, each of what `do(part)` yields), in order. The first part goes before the others: it fills what the
        others share."""
        for value in do(0):
            yield 0, value
        if self._pool is None or len(self.cuts) < 3:
            for part in range(1, len(self.cuts)):
                for value in do(part):
                    yield part, value
            return
        waiting: deque[tuple[int, Any]] = deque()
        for part in range(1, len(self.cuts)):
            waiting.append((part, self._pool.submit(lambda part: list(do(part)), part)))
            if len(waiting) > 4:
                yield from self._finished(waiting)
        while waiting:
            yield from self._finished(waiting)

    @staticmethod
    def _finished(waiting: deque[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        part, future = waiting.popleft()
        for value in future.result():
            yield part, value

    def leave(self, part: int, *, done: bool) -> None:
        """Forget a part; its masks stay until the tensor is done, at one bit for each value. A few stay as they are."""
        if not done and len(self.cuts) <= _FEW:
            return
        raw, kept = self._raw.pop(part, None), self._part_once.pop(part, {})
        if done:
            self._held.pop(part, None)
            return
        if raw and self._holds:
            self._held[part] = raw.floats.stored
        fits = [key for key, value in kept.items() if _Bits.fits(value)]
        self._part_once[part] = {key: self._packed(key, part, kept[key]) for key in fits}

    def _packed(self, key: Hashable, part: int, value: Any) -> _Bits:
        """A mask at its place in one block for the whole tensor: small blocks that stay between large ones that go
        would leave holes in memory."""
        import numpy

        if isinstance(value, _Bits):
            return value
        bits = numpy.packbits(value.numpy())
        if key not in self._blocks:  # the first part is the largest
            self._blocks[key] = numpy.empty((len(self.cuts), len(bits)), dtype=numpy.uint8)
        self._blocks[key][part, : len(bits)] = bits
        return _Bits(self._blocks[key], part, tuple(value.shape))

    def total(self, view: View, statistic: Statistic, part: int) -> tuple[Tensor, list[Any]]:
        key = (view, identity(statistic))
        if key not in self._totals:
            if part:
                raise CheckpointError(
                    f"{view.method or 'a merger'} asks for a total of {self.name} that its first part did not ask for",
                    hint="ask in every part, for a function of the module or a functools.partial of one",
                )
            self._totals[key] = self._survey(view, statistic)
        return self._totals[key]

    def once(self, view: View, part: int, function: Statistic, stack: TensorStack, per: Extent) -> Any:
        key = (view, identity(function))
        memo = self._part_once.setdefault(part, {}) if per == "part" else self._tensor_once
        if key not in memo:
            memo[key] = function(changed(stack, weights=no_weights(len(stack.experts), stack.weights.ndim - 1)))
            _require_known(memo[key], f"what {view.method or 'a merger'} asks t.once for", stack.name)
        value = memo[key]
        if isinstance(value, _Bits):
            value = memo[key] = value.tensor()
        return value

    def _survey(self, view: View, statistic: Statistic) -> tuple[Tensor, list[Any]]:
        def measure(part: int) -> Iterator[Tensor]:
            yield statistic(self.stack(part, view))
            self.leave(part, done=False)

        before: list[Any] = []
        total = None
        for _, value in self.each(measure):
            total = value - value if total is None else total
            if value.numel() <= PREFIXED:
                before.append(total.tolist())  # Python's numbers do not lie between torch's large blocks
            total += value
        assert total is not None
        if total.is_floating_point() and total.isnan().any():
            raise CheckpointError(
                f"a statistic of {view.method or 'a merger'} is NaN at {self.name}",
                hint="a statistic may not look at t.weights: it holds for all points of a sweep",
            )
        return total, before

    def _load(self, part: int) -> Part:
        if part not in self._raw:
            (start, stop), whole = self.cuts[part], len(self.cuts) == 1
            stored = self._held.get(part) or Rows(self.source, self.name, start, None if whole else stop)
            shape = self.source.shape(self.name)
            self._raw[part] = part_of(
                self.source, self.name, stored, start, whole, shape if whole else (stop - start, *shape[1:])
            )
        return self._raw[part]

    def _whole(self, view: View) -> Tensor:
        """What a preparation that needs the whole tensor gives."""
        if view not in self._prepared:
            assert view.prepare is not None
            work = self if len(self.cuts) == 1 else Work(self.source, self.name, self.model, None, _one(self))
            found = changed(work._load(0), seed=view.seed, around=Around(work, view.raw, 0))
            self._prepared[view] = _prepared(view, found)
        return self._prepared[view]


@dataclass(frozen=True)
class Around:
    """`TensorStack.around`: where a part stands."""

    work: Work
    view: View
    part: int

    def total(self, statistic: Statistic, over: Extent, before: bool) -> Tensor:
        import torch

        work = self.work
        if over == "part":
            raise ValueError("a total is over a tensor or over the model")
        _require_named(statistic, self.view.method)
        earlier = []
        if over == "model":
            found = work.model.total(self.view, statistic, work.name if before else None)
            if not before:
                return found
            earlier = [found]
        total, prefixes = work.total(self.view, statistic, self.part)
        if not before:
            return total
        if not prefixes:
            raise CheckpointError(f"{work.name}: a statistic of {total.numel()} values is kept for no part")
        return sum(earlier, start=torch.tensor(prefixes[self.part], dtype=total.dtype))

    def once(self, function: Statistic, stack: TensorStack, per: Extent) -> Any:
        if per == "model":
            return self.work.model.once(self.view, function, stack)
        return self.work.once(self.view, self.part, function, stack, per)


def call(function: Callable[[TensorStack], Tensor], stack: Part, shape: Sequence[int], what: str) -> Tensor:
    """Call a part of a merger; other points of a sweep see the same stack, so it must stay as it is."""
    own = stack.__dict__.get("deltas", stack.weights)  # what a preparation gave
    before = own._version, stack.weights._version
    try:
        result = function(stack)
    except MixmergeError:
        raise
    except Exception as error:
        own_frame = traceback.extract_tb(error.__traceback__)[:2][-1]  # the first is this function's
        told = f"{what} failed at {stack.name}: {type(error).__name__}: {error}"
        raise CheckpointError(told, hint=f"see {own_frame.filename}, line {own_frame.lineno}") from error
    if not hasattr(result, "shape") or not hasattr(result, "detach"):
        raise CheckpointError(f"{what} gave {type(result).__name__} for {stack.name}, not a tensor")
    if not stack.floats.intact or (own._version, stack.weights._version) != before:
        raise CheckpointError(f"{what} changed its input in place at {stack.name}", hint="use x * y and not x.mul_(y)")
    if result.shape != tuple(shape):
        raise CheckpointError(f"{what} gave shape {tuple(result.shape)} for {stack.name}, not {tuple(shape)}")
    return result


def _prepared(view: View, stack: Part) -> Tensor:
    """The deltas that a preparation gives."""
    assert view.prepare is not None
    what = f"the first part of {view.method}"
    found = call(view.prepare, stack, _several(stack), what)
    _require_known(found, f"what {what} gives", stack.name)
    return found


def _require_known(value: Any, what: str, name: str) -> None:
    """Weights are NaN where they may not be looked at. A sum tells more quickly than a mask."""
    if hasattr(value, "is_floating_point") and value.is_floating_point() and value.detach().sum().isnan():
        raise CheckpointError(
            f"{what} is NaN at {name}", hint="it may not look at t.weights: it holds for all points of a sweep"
        )


def _require_named(statistic: Statistic, method: str) -> None:
    """A lambda is another function in every part, so that its total would be taken again in each, or be refused."""
    function: Any = statistic
    while isinstance(function, partial):
        function = function.func
    if getattr(function, "__name__", "") == "<lambda>":
        hint = "give it a name: a function of the module, or a functools.partial of one"
        raise CheckpointError(f"{method or 'a merger'} asks for the total of a lambda", hint=hint)


def _several(stack: Part) -> tuple[int, ...]:
    return (len(stack.experts), *stack.shape)


@dataclass(frozen=True)
class _Bits:
    """A bool tensor at one bit for each value."""

    block: Any  # uint8 (parts, bytes); a view of it for each part would be one small block more that stays
    part: int
    shape: tuple[int, ...]

    @staticmethod
    def fits(value: object) -> bool:
        import torch

        return isinstance(value, _Bits) or (isinstance(value, torch.Tensor) and value.dtype == torch.bool)

    def tensor(self) -> Tensor:
        import numpy
        import torch

        count = 1
        for length in self.shape:
            count *= length
        return torch.from_numpy(numpy.unpackbits(self.block[self.part], count=count).view(numpy.bool_)).reshape(
            self.shape
        )


def _one(work: Work) -> list[tuple[int, int]]:
    return [(0, work.cuts[-1][1])]


def identity(function: Any) -> Hashable:
    """What tells a function from another: the function, and for a `partial` its arguments too."""
    if isinstance(function, partial):
        arguments = (*function.args, *function.keywords.values())
        return (function.func, *function.keywords, *map(identity, arguments))
    return repr(function) if isinstance(function, list | dict) else function
