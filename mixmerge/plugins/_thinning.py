"""What the built-in mergers do to a change before they combine it: masks by magnitude, by chance, by rank.

Everything here is rowwise and asks `t.total` for what it needs to know of the rest, and `t.once` for what the points of
a sweep share: masks, which are a quarter of the thinned changes. The loops are compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mixmerge import TensorStack

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

    from ._merge_kernels import Changes

Per = Literal["tensor", "model"]

_SMALL_L1 = 1e-7  # mergekit leaves a delta with a smaller L1 norm as it is


def each(value: Any, count: int) -> tuple[Any, ...]:
    """One value for every expert, from one for all or a list of them."""
    return tuple(value) if isinstance(value, list | tuple) else (value,) * count


# ---- by magnitude ---------------------------------------------------------------------------------------------------


def largest(t: TensorStack, *, density: tuple[float, ...], per: Per) -> Tensor:
    """bool (experts, *shape): the `density` of each expert's values with the largest magnitude, over the tensor or
    the model, at least one. Of those that are equal to the smallest that stays, every so manyth in memory order."""
    import torch

    from ._merge_kernels import trim

    least, kept, equal = t.once(partial(_least, density=density, per=per), per)
    earlier = [0] * len(least)
    if kept != equal and (per == "model" or not t.whole):
        earlier = t.before(partial(_count_equal, density=density, per=per), per).tolist()
    mask = torch.empty(t.deltas.shape, dtype=torch.bool)
    rows = zip(t.deltas, least, kept, equal, earlier, mask, strict=True)
    for delta, bound, staying, alike, before, row in rows:
        trim(_flat(delta), bound, staying, alike, before, _flat(row))
    return mask


def _least(t: TensorStack, *, density: tuple[float, ...], per: Per) -> tuple[list[int], list[int], list[int]]:
    """For each expert the smallest magnitude that stays, how many of the values equal to it do, and how many there
    are. Exact: the upper half of the magnitude's bits is counted first, then the lower half where the upper is the
    one sought."""
    lower = t.total(partial(_count_lower, density=density, per=per), per).numpy()
    found: tuple[list[int], list[int], list[int]] = ([], [], [])
    for (upper, wanted), counts in zip(t.once(partial(_bins, density=density, per=per), per), lower, strict=True):
        last, more = _from_top(counts, wanted)
        for column, value in zip(found, (upper << 16 | last, wanted - more, int(counts[last])), strict=True):
            column.append(value)
    return found


def _bins(t: TensorStack, *, density: tuple[float, ...], per: Per) -> list[tuple[int, int]]:
    """For each expert the upper half of the smallest magnitude that stays, and how many with that half do."""
    found = []
    for counts, share in zip(t.total(_count_upper, per).numpy(), density, strict=True):
        wanted = max(1, int(share * int(counts.sum())))
        upper, above = _from_top(counts, wanted)
        found.append((upper, wanted - above))
    return found


def _from_top(counts: numpy.ndarray[Any, Any], wanted: int) -> tuple[int, int]:
    """The bin in which the `wanted`-th largest lies, and how many lie above that bin."""
    import numpy

    reached = numpy.cumsum(counts[::-1])
    steps = min(int(numpy.searchsorted(reached, wanted)), len(counts) - 1)  # past the end: an empty tensor
    return len(counts) - 1 - steps, int(reached[steps] - counts[::-1][steps])


def _count_upper(t: TensorStack) -> Tensor:
    """int64 (experts, 32768): how many values have each upper half of a magnitude, which is a bfloat16's."""
    import numpy
    import torch

    from ._merge_kernels import count_upper

    counts = numpy.zeros((len(t.deltas), 1 << 15), dtype=numpy.int64)
    for delta, row in zip(t.deltas, counts, strict=True):
        count_upper(_flat(delta), row)
    return torch.from_numpy(counts)


def _count_lower(t: TensorStack, *, density: tuple[float, ...], per: Per) -> Tensor:
    """int64 (experts, 65536): the same of lower halves, where the upper half is that of the smallest that stays."""
    import numpy
    import torch

    from ._merge_kernels import count_lower

    bins = t.once(partial(_bins, density=density, per=per), per)
    counts = numpy.zeros((len(t.deltas), 1 << 16), dtype=numpy.int64)
    for delta, row, (upper, _) in zip(t.deltas, counts, bins, strict=True):
        count_lower(_flat(delta), upper, row)
    return torch.from_numpy(counts)


def _count_equal(t: TensorStack, *, density: tuple[float, ...], per: Per) -> Tensor:
    import torch

    from ._merge_kernels import count_equal

    least, _, _ = t.once(partial(_least, density=density, per=per), per)
    return torch.tensor([count_equal(_flat(delta), value) for delta, value in zip(t.deltas, least, strict=True)])


def _flat(tensor: Tensor) -> numpy.ndarray[Any, Any]:
    found: numpy.ndarray[Any, Any] = tensor.contiguous().reshape(-1).numpy()
    return found


# ---- by chance ------------------------------------------------------------------------------------------------------


def by_chance(t: TensorStack, *, density: tuple[float, ...]) -> Tensor:
    """bool (experts, *shape): each value with its expert's probability, taken to the nearest multiple of 1/65536."""
    import numpy
    import torch

    mask = numpy.empty((len(density), *t.shape), dtype=bool)
    for row, share in enumerate(density):
        if (limit := round(share * 65536)) < 65536:
            numpy.less(t.draws(row).numpy(), limit, out=mask[row, ...])
        else:
            mask[row] = True
    return torch.from_numpy(mask)


def by_rank(t: TensorStack, *, density: tuple[float, ...], epsilon: tuple[float, ...]) -> Tensor:
    """bool (experts, *shape): each value with the probability that its rank within its row gives."""
    import numpy
    import torch

    mask = numpy.empty((len(density), *t.shape), dtype=bool)
    for row, (share, spread) in enumerate(zip(density, epsilon, strict=True)):
        numpy.less(t.draws(row).numpy(), _limits(t, row, share, spread), out=mask[row, ...])
    return torch.from_numpy(mask)


def chances(t: TensorStack, *, density: tuple[float, ...], epsilon: tuple[float, ...]) -> Tensor:
    """float32 (experts, *shape): the probability with which `by_rank` keeps each value."""
    import numpy
    import torch

    rows = zip(density, epsilon, strict=True)
    found = [_limits(t, row, share, spread).astype(numpy.float32) for row, (share, spread) in enumerate(rows)]
    return torch.from_numpy(numpy.stack(found)) / 65536


def _limits(t: TensorStack, expert: int, density: float, epsilon: float) -> numpy.ndarray[Any, Any]:
    """uint16 (*shape): the probability of staying, in multiples of 1/65536, by rank within a row.

    A row runs along dimension 1; a vector is one row.
    """
    import numpy

    delta = t.deltas[expert]
    turned = delta.reshape(1, -1) if delta.ndim < 2 else delta.movedim(1, -1)
    width = turned.shape[-1]
    if width < 2 or not turned.numel():
        return numpy.full(delta.shape, round(density * 65536), dtype=numpy.uint16)
    rows = turned.reshape(-1, width).contiguous().numpy()
    number = t.start * (len(rows) // max(1, len(delta)) if delta.ndim > 2 else 1)
    limits = _ranked(rows, number, _spread(width, density, epsilon)).reshape(turned.shape)
    return limits.reshape(delta.shape) if delta.ndim < 2 else numpy.moveaxis(limits, -1, 1)


def _spread(width: int, density: float, epsilon: float) -> numpy.ndarray[Any, Any]:
    import numpy

    share = density - epsilon + numpy.arange(width) / (width - 1) * 2 * epsilon
    return numpy.rint(share * 65536).astype(numpy.uint16)


def _ranked(rows: numpy.ndarray[Any, Any], number: int, spread: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    """`spread` laid out by the rank of each magnitude in its row; `number` is that of the first row."""
    import numpy

    from ._merge_kernels import ranked

    limits = numpy.empty(rows.shape, dtype=numpy.uint16)
    ranked(rows, number % 2, spread, limits)
    return limits


# ---- what is left ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """What is left of each expert's change: (models[i] - origin) * factors[i] where masks[i], 0 elsewhere.

    It is not computed: the loop that combines the changes does that as it goes, from what is stored.

    origin   (*shape)
    models   (*shape) for each expert
    masks    bool (experts, *shape)
    factors  one for each expert
    """

    origin: Tensor
    models: Sequence[Tensor]
    masks: Tensor
    factors: Sequence[float]

    @property
    def raw(self) -> Changes:
        """As the compiled loops take it."""
        import numpy

        from mixmerge.checkpoint.kernels import raw, raws

        masks = self.masks.reshape(len(self.factors), -1).numpy()
        return raw(self.origin), raws(self.models), masks, numpy.array(self.factors, dtype=numpy.float32)


def trimmed(t: TensorStack, density: Any, rescale: str, per: Per) -> Kept:
    """TIES: the largest magnitudes."""
    return _kept(t, partial(largest, density=each(density, len(t.experts)), per=per), rescale)


def dropped(t: TensorStack, density: Any, rescale: str) -> Kept:
    """DARE: by chance."""
    shares = each(density, len(t.experts))
    found = _kept(t, partial(by_chance, density=shares), rescale)
    return replace(found, factors=[1 / share for share in shares]) if rescale == "density" else found


def pruned(t: TensorStack, density: Any, epsilon: Any, rescale: str) -> Kept:
    """DELLA: by chance, large magnitudes more often."""
    import torch

    shares, spreads = (each(value, len(t.experts)) for value in (density, epsilon))
    found = _kept(t, partial(by_rank, density=shares, epsilon=spreads), rescale)
    if rescale != "density":
        return found
    changes = t.deltas / t.once(partial(chances, density=shares, epsilon=spreads))
    return replace(found, origin=torch.zeros(t.shape), models=tuple(changes))


def _kept(t: TensorStack, mask: partial[Tensor], rescale: str) -> Kept:
    """Each expert's change where `mask` is true; with `rescale: l1` by the factor that gives it the L1 norm that the
    expert's change to the tensor had before."""
    factors = t.once(partial(_l1_factors, mask=mask), "tensor") if rescale == "l1" else [1.0] * len(t.experts)
    origin, models = t.operands
    return Kept(origin, models, t.once(mask), factors)


def _l1_factors(t: TensorStack, *, mask: partial[Tensor]) -> list[float]:
    had, has = t.total(partial(_l1_norms, mask=mask)).tolist()
    return [a / b if a >= _SMALL_L1 and b >= _SMALL_L1 else 1.0 for a, b in zip(had, has, strict=True)]


def _l1_norms(t: TensorStack, *, mask: partial[Tensor]) -> Tensor:
    """float64 (2, experts): before and after `mask`."""
    import torch

    from mixmerge.checkpoint.kernels import raw, raws

    from ._merge_kernels import norms

    origin, models = t.operands
    start = raw(origin)
    found = [norms(start, one, _flat(stays)) for one, stays in zip(raws(models), t.once(mask), strict=True)]
    return torch.tensor(found, dtype=torch.float64).T
