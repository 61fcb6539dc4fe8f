"""One tensor of the base with the same tensor of every model, as diagnostics see it: walked through in small parts."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from ..types import Checkpoint, TensorStack
from .slabs import SLAB, Source

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PART = 1 << 15  # weights; their float64 values for a few models stay near the processor
HELD_BYTES = 320 << 20  # a tensor of all models up to this size is read once, a larger one in every pass over it

Statistic = Callable[["TensorPart"], Mapping[str, "Tensor"]]
"""float64 statistics of a part that add up over the parts of a tensor. Defined once, in a module, so that two
diagnostics that ask for the same share it; or a `functools.partial` of such a function."""

_local = threading.local()


class TensorPart:
    """Some consecutive weights of a tensor, flat. Good for as long as a statistic of it is computed: its memory is
    used again.

    view    the whole tensor
    start   the index of its first weight
    stored  base and models as they lie on disk, (n,) each, the base first; a merge is float32
    """

    def __init__(self, view: TensorView, start: int, stored: tuple[Tensor, ...]) -> None:
        self.view, self.start, self.stored = view, start, stored
        self._memo: dict[Any, Mapping[str, Tensor]] = {}

    @cached_property
    def base(self) -> Tensor:
        """float64 (n,)"""
        return _scratch("base", len(self.stored[0])).copy_(self.stored[0])

    @cached_property
    def deltas(self) -> Tensor:
        """float64 (models, n): model minus base, subtracted in float64."""
        found = _scratch("deltas", len(self.stored) - 1, len(self.stored[0]))
        base = self.base.numpy()
        for row, stored in zip(found, self.stored[1:], strict=True):
            values = row.copy_(stored).numpy()
            values -= base  # NumPy's takes half the time of torch's
        return found

    @cached_property
    def sums(self) -> Tensor:
        """float64 (models,): the sum of every model's deltas."""
        return self.deltas.sum(1)

    def once(self, statistic: Statistic) -> Mapping[str, Tensor]:
        """`statistic(self)`, computed once whoever asks."""
        key = identity(statistic)
        if key not in self._memo:
            self._memo[key] = statistic(self)
        return self._memo[key]


class TensorView:
    """What `observe` is given: one floating-point tensor of the base with the same tensor of every model.

    name     the tensor's name in the checkpoint
    shape    of the tensor
    models   the models, in the order of `deltas`
    seed     of the step

    `total` and `peaks` look at float64 parts of it, and never hold the whole; several diagnostics share a pass.
    `base` and `deltas` are the whole tensor in float32, for what cannot be done part by part: so far this is a
    `TensorStack`, and has all that one has. Views of different tensors are observed in several threads at once.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        models: tuple[Checkpoint, Sequence[Checkpoint]],
        sources: Sequence[Source],
        seed: int = 0,
    ) -> None:
        """`models`: the base and the others; `sources`: the tensor of each, the base's first."""
        base, others = models
        self.name, self.shape, self.models, self.seed = name, shape, tuple(others), seed
        self.experts = tuple(model.id for model in others)
        self._labels = (base.name, *(model.name for model in others))
        self._sources = sources
        self._count = math.prod(shape)
        self._held: dict[int, list[Tensor]] = {}
        self._totals: dict[Any, dict[str, Tensor]] = {}
        self._finite = False

    @property
    def count(self) -> float:
        """The number of weights, as a float64 would hold it."""
        return float(self._count)

    @property
    def cost(self) -> int:
        """Bytes that the stored tensors take in memory, about."""
        width = sum(source.itemsize for source in self._sources)
        return width * (self._count if self._holds else min(self._count, SLAB))

    def total(self, statistic: Statistic) -> Mapping[str, Tensor]:
        """The sum of `statistic(part)` over all parts of this tensor, key by key; computed once whoever asks.

        Raises CheckpointError naming tensor and model when a value is not finite.
        """
        self.gather([statistic])
        return self._totals[identity(statistic)]

    def gather(self, statistics: Iterable[Statistic]) -> None:
        """Compute several totals in one pass; `total` then has them."""
        missing = [one for one in statistics if identity(one) not in self._totals]
        if not missing:
            return
        totals: dict[Any, dict[str, Tensor]] = {identity(one): {} for one in missing}
        for part in self._parts():
            self._require_finite(part)
            for statistic in missing:
                add(totals[identity(statistic)], part.once(statistic))
        self._finite = True
        self._totals |= totals

    @cached_property
    def peaks(self) -> Tensor:
        """float64 (models,): the largest absolute delta in the whole tensor, 0 in an empty one."""
        import torch

        peaks = torch.zeros(len(self.models), dtype=torch.float64)
        # In memory of its own: a statistic that asks is in the middle of a part.
        with _aside("peaks"):
            for part in self._parts():
                if part.deltas.numel():
                    values = part.deltas.numpy()
                    for row, (high, low) in enumerate(zip(values.max(1), values.min(1), strict=True)):
                        peaks[row] = max(float(peaks[row]), float(high), -float(low))
        return peaks

    def rows(self, weights: int = 1 << 20) -> Iterator[Tensor]:
        """The deltas again, about `weights` of them for each model at a time: float64 (models, rows, *shape[1:])."""
        width = math.prod(self.shape[1:])
        step = max(1, weights // max(1, width))
        for start in range(0, self.shape[0], step):
            stop = min(start + step, self.shape[0])
            stored = tuple(source.read(start * width, stop * width) for source in self._sources)
            found = [one.double() for one in stored]
            for source, one in zip(self._sources, stored, strict=True):
                source.release(one)
            deltas = [(one - found[0]).reshape(stop - start, *self.shape[1:]) for one in found[1:]]
            yield _stacked(deltas)

    # -- the whole tensor, as a TensorStack ------------------------------------------------------------------------

    @cached_property
    def stack(self) -> TensorStack:
        """Base and deltas whole, in float32, as mergers see them; every weight is 1."""
        import torch

        base = torch.empty(self._count, dtype=torch.float32)
        deltas = torch.empty(len(self.models), self._count, dtype=torch.float32)
        for start, slab in self._slabs():
            here = slice(start, start + len(slab[0]))
            base[here] = slab[0]
            for row, stored in zip(deltas, slab[1:], strict=True):
                torch.sub(stored.to(torch.float32), base[here], out=row[here])
        for label, tensor in zip(self._labels, (base, *deltas), strict=True):
            if not torch.isfinite(tensor.sum()):  # much quicker than a mask; a sum that overflows is looked at again
                self._raise_not_finite(label, int((~torch.isfinite(tensor)).sum()))
        ones = torch.ones(len(self.models), *[1] * len(self.shape))
        return TensorStack(
            self.name, base.reshape(self.shape), deltas.reshape(-1, *self.shape), ones, self.experts, self.seed
        )

    @property
    def base(self) -> Tensor:
        """float32 (*shape)"""
        return self.stack.base

    @property
    def deltas(self) -> Tensor:
        """float32 (models, *shape)"""
        return self.stack.deltas

    @property
    def weights(self) -> Tensor:
        """float32 (models, 1, …): ones."""
        return self.stack.weights

    def generator(self, model: int) -> torch.Generator:
        """As `TensorStack.generator`: depends on the seed, the model's id and the tensor's name alone."""
        import torch

        nothing = torch.empty(0)
        return TensorStack(self.name, nothing, nothing, nothing, self.experts, self.seed).generator(model)

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def _holds(self) -> bool:
        return self._count * sum(source.itemsize for source in self._sources) <= HELD_BYTES

    def _parts(self) -> Iterator[TensorPart]:
        for start, slab in self._slabs():
            length = len(slab[0])
            for first in range(0, max(1, length), PART):
                stored = tuple(tensor[first : first + PART] for tensor in slab)
                yield TensorPart(self, start + first, stored)

    def _slabs(self) -> Iterator[tuple[int, list[Tensor]]]:
        for start in range(0, max(1, self._count), SLAB):
            slab = self._held.get(start)
            if slab is None:
                slab = [source.read(start, min(start + SLAB, self._count)) for source in self._sources]
                if self._holds:
                    self._held[start] = slab
            yield start, slab
            if not self._holds:
                self._release(slab)

    def close(self) -> None:
        """Give memory back; totals stay."""
        for slab in self._held.values():
            self._release(slab)
        self._held.clear()
        self.__dict__.pop("stack", None)

    def _release(self, slab: Sequence[Tensor]) -> None:
        for source, tensor in zip(self._sources, slab, strict=True):
            source.release(tensor)

    def _require_finite(self, part: TensorPart) -> None:
        import torch

        if self._finite or torch.isfinite(part.sums).all():
            return
        for label, stored in zip(self._labels, part.stored, strict=True):
            if count := int((~torch.isfinite(stored)).sum()):
                self._raise_not_finite(label, count)

    def _raise_not_finite(self, label: str, count: int) -> None:
        if count:
            raise CheckpointError(
                f"{label}: {count} of {self._count} values of {self.name} are NaN or infinite",
                hint="a training run that diverged, or a broken file",
            )


def identity(function: Any) -> Any:
    """What tells a function from another: the function itself, for a `partial` its arguments too."""
    if isinstance(function, partial):
        given = (*function.args, *sorted(function.keywords.items()))
        return (identity(function.func), *(repr(value) for value in given))
    return function


def add(total: dict[str, Tensor], statistics: Mapping[str, Tensor]) -> None:
    """Add statistics to a total, key by key."""
    for key, value in statistics.items():
        total[key] = total[key] + value if key in total else value


def _scratch(what: str, *shape: int) -> Tensor:
    """float64 memory that this thread uses again and again: fresh memory would cost more than the arithmetic."""
    import torch

    kept = _local.__dict__.setdefault("memory", {})
    key = (getattr(_local, "aside", ""), what, shape[:-1])
    if key not in kept or kept[key].shape[-1] < shape[-1]:
        kept[key] = torch.empty(*shape[:-1], max(shape[-1], PART), dtype=torch.float64)
    found: Tensor = kept[key][..., : shape[-1]]
    return found


class _aside:
    """Scratch memory under another name for the length of a block."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self.before = getattr(_local, "aside", "")
        _local.aside = self.name

    def __exit__(self, *_: object) -> None:
        _local.aside = self.before


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack(list(tensors))
