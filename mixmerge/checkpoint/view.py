"""One tensor of the base with the same tensor of every model, as diagnostics see it: walked through in small parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, PluginError
from ..types import Checkpoint, TensorStack
from .parts import HELD_BYTES, identity
from .scratch import Slab, space
from .slabs import SLAB, Source

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

PART = 1 << 20  # weights: threads hand over to each other between parts, which costs where parts are small

Statistic = Callable[["TensorPart"], Mapping[str, Any]]
"""Statistics of a part that add up over the parts of a tensor: numbers, NumPy arrays or tensors of float64. Defined
once, in a module, so that two diagnostics that ask for it share it; or a `functools.partial` of such a function."""


class TensorPart:
    """Some consecutive weights of a tensor, flat. Good for as long as a statistic of it is computed: its memory is
    used again.

    view   the whole tensor
    start  the index of its first weight
    raw    base and models, (n,) each, the base first: exactly what is stored, as NumPy has it (float32, float64, uint16
           for the bits of bfloat16); float16 comes as float32
    """

    def __init__(self, view: TensorView, start: int, slab: Slab, here: slice, room: NDArray[np.float64]) -> None:
        self.view, self.start = view, start
        self.raw = tuple(array[here] for array in slab.arrays)
        self._slab, self._here, self._room = slab, here, room
        self._memo: dict[Any, Mapping[str, Any]] = {}

    @property
    def stored(self) -> tuple[Tensor, ...]:
        """Base and models as they lie on disk, (n,) each, the base first; a merge is float32."""
        return tuple(tensor[self._here] for tensor in self._slab.tensors)

    @cached_property
    def base(self) -> Tensor:
        """float64 (n,)"""
        return self.stored[0].double()

    @cached_property
    def deltas(self) -> Tensor:
        """float64 (models, n): model minus base, subtracted in float64."""
        import torch

        return torch.from_numpy(self.rows)

    @cached_property
    def rows(self) -> NDArray[np.float64]:
        """`deltas` as NumPy has them; the same memory."""
        from .kernels import subtract

        deltas = self._room[:, : len(self.raw[0])]
        for one, row in zip(self.raw[1:], deltas, strict=True):
            subtract(self.raw[0], one, row)
        return deltas

    @cached_property
    def sums(self) -> NDArray[np.float64]:
        """float64 (models,): the sum of every model's deltas."""
        import numpy as np

        from .kernels import summed

        return np.array([summed(self.raw[0], one) for one in self.raw[1:]], dtype=np.float64)

    def once(self, statistic: Statistic) -> Mapping[str, Any]:
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
        self._held: dict[int, Slab] = {}
        self._totals: dict[Any, dict[str, Tensor]] = {}
        self._finite = self._walking = False

    @property
    def count(self) -> float:
        """The number of weights, as a float64 would hold it."""
        return float(self._count)

    @property
    def cost(self) -> int:
        """Bytes that the stored tensors take in memory, about."""
        width = sum(source.itemsize for source in self._sources)
        return width * (self._count if self._holds else min(self._count, SLAB))

    def expect(self) -> None:
        """Let the disk fetch what will be read soon."""
        for source in self._sources:
            source.expect()

    def total(self, statistic: Statistic) -> Mapping[str, Tensor]:
        """The sum of `statistic(part)` over all parts of this tensor, key by key; computed once whoever asks.

        Raises CheckpointError naming tensor and model when a value is not finite.
        """
        self.gather([statistic])
        return self._totals[identity(statistic)]

    def gather(self, statistics: Iterable[Statistic]) -> None:
        """Compute several totals in one pass; `total` then has them."""
        missing = list({key: one for one in statistics if (key := identity(one)) not in self._totals}.values())
        if not missing:
            return
        if self._walking:
            raise PluginError(f"a statistic of a part of {self.name} asks for a total", hint="ask in `observe`")
        totals: dict[Any, dict[str, Any]] = {identity(one): {} for one in missing}
        self._walking = True  # the parts share their memory
        for part in self._parts():
            self._require_finite(part)
            for statistic, total in zip(missing, totals.values(), strict=True):
                add(total, part.once(statistic))
        self._finite, self._walking = True, False
        self._totals |= {key: {name: _tensor(sum_) for name, sum_ in total.items()} for key, total in totals.items()}

    @cached_property
    def peaks(self) -> Tensor:
        """float64 (models,): the largest absolute delta in the whole tensor, 0 in an empty one."""
        import numpy as np
        import torch

        from .kernels import largest

        peaks = np.zeros(len(self.models))
        for part in self._parts():
            peaks = np.maximum(peaks, [largest(part.raw[0], one) for one in part.raw[1:]])
        return torch.from_numpy(peaks)

    def rows(self, weights: int = 1 << 20) -> Iterator[Tensor]:
        """The deltas again, about `weights` of them for each model at a time: float64 (models, rows, *shape[1:])."""
        import torch

        width = math.prod(self.shape[1:])
        step = max(1, weights // max(1, width))
        for start in range(0, self.shape[0], step):
            stop = min(start + step, self.shape[0])
            stored = tuple(source.read(start * width, stop * width) for source in self._sources)
            found = [one.double() for one in stored]
            for source, one in zip(self._sources, stored, strict=True):
                source.release(one)
            deltas = [(one - found[0]).reshape(stop - start, *self.shape[1:]) for one in found[1:]]
            yield torch.stack(deltas)

    # -- the whole tensor, as a TensorStack ------------------------------------------------------------------------

    @cached_property
    def stack(self) -> TensorStack:
        """Base and deltas whole, in float32, as mergers see them; every weight is 1."""
        import torch

        base = torch.empty(self._count, dtype=torch.float32)
        deltas = torch.empty(len(self.models), self._count, dtype=torch.float32)
        for start, slab in self._slabs():
            here = slice(start, start + len(slab.tensors[0]))
            base[here] = slab.tensors[0]
            for row, stored in zip(deltas, slab.tensors[1:], strict=True):
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
        room = space(len(self.models), min(PART, self._count))
        for start, slab in self._slabs():
            length = len(slab.tensors[0])
            for first in range(0, max(1, length), PART):
                yield TensorPart(self, start + first, slab, slice(first, first + PART), room)

    def _slabs(self) -> Iterator[tuple[int, Slab]]:
        for start in range(0, max(1, self._count), SLAB):
            slab = self._held.get(start)
            if slab is None:
                stop = min(start + SLAB, self._count)
                slab = Slab([source.read(start, stop) for source in self._sources])
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

    def _release(self, slab: Slab) -> None:
        for source, tensor in zip(self._sources, slab.tensors, strict=True):
            source.release(tensor)

    def _require_finite(self, part: TensorPart) -> None:
        import torch

        if self._finite or math.isfinite(part.sums.sum()):
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


def add(total: dict[str, Any], statistics: Mapping[str, Any]) -> None:
    """Add statistics to a total, key by key."""
    for key, value in statistics.items():
        total[key] = total[key] + value if key in total else value


def _tensor(value: Any) -> Tensor:
    import torch

    return torch.as_tensor(value, dtype=torch.float64)
