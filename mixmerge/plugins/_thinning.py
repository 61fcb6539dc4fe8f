"""What the built-in mergers do to a change before they combine it: masks by magnitude, by chance, by rank.

Everything here is rowwise and asks `t.total` for what it needs to know of the rest. NumPy does the counting and the
comparisons, because its bool arrays are several times quicker than torch's on a processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mixmerge import TensorStack

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

Per = Literal["tensor", "model"]

_SMALL_L1 = 1e-7  # mergekit leaves a delta with a smaller L1 norm as it is


def each(value: Any, count: int) -> tuple[Any, ...]:
    """One value for every expert, from one for all or a list of them."""
    return tuple(value) if isinstance(value, list | tuple) else (value,) * count


# ---- by magnitude ---------------------------------------------------------------------------------------------------


def largest(t: TensorStack, *, density: tuple[float, ...], per: Per) -> Tensor:
    """bool (experts, *shape): the `density` of each expert's values with the largest magnitude, over the tensor or
    the model, at least one. Of those that are equal to the smallest that stays, every so manyth in memory order."""
    import numpy
    import torch

    least, kept, equal = t.once(partial(_least, density=density, per=per), per)
    earlier = [0] * len(least)
    if per == "model" or not t.whole:
        earlier = t.before(partial(_count_equal, density=density, per=per), per).tolist()
    mask = numpy.empty((len(t.deltas), t.base.numel()), dtype=bool)
    for row, magnitudes in enumerate(_magnitudes(t)):
        numpy.greater_equal(magnitudes, least[row], out=mask[row])
        if kept[row] < equal[row]:
            place = numpy.flatnonzero(magnitudes == least[row])
            # as many stay before the nth as its share of all, to the nearest: steps of 0 and 1 that reach the number
            number = numpy.arange(earlier[row], earlier[row] + len(place) + 1, dtype=numpy.float64)
            mask[row, place] = numpy.diff(numpy.floor(number * (kept[row] / equal[row]) + 0.5))
    return torch.from_numpy(mask).reshape(t.deltas.shape)


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

    found = []
    for delta in t.deltas:
        halves = delta.reshape(-1).numpy().view(numpy.uint32).astype("<u4", copy=False).view("<u2")[1::2]
        counts = numpy.bincount(halves, minlength=1 << 16)
        found.append(counts[: 1 << 15] + counts[1 << 15 :])  # whatever the sign
    return torch.from_numpy(numpy.stack(found))


def _count_lower(t: TensorStack, *, density: tuple[float, ...], per: Per) -> Tensor:
    """int64 (experts, 65536): the same of lower halves, where the upper half is that of the smallest that stays."""
    import numpy
    import torch

    bins = t.once(partial(_bins, density=density, per=per), per)
    counts = []
    for magnitudes, (upper, _) in zip(_magnitudes(t), bins, strict=True):
        lower = (magnitudes - (upper << 16)).view(numpy.uint32)
        counts.append(numpy.bincount(lower[lower < 1 << 16], minlength=1 << 16))
    return torch.from_numpy(numpy.stack(counts))


def _count_equal(t: TensorStack, *, density: tuple[float, ...], per: Per) -> Tensor:
    import numpy
    import torch

    least, _, _ = t.once(partial(_least, density=density, per=per), per)
    counts = [numpy.count_nonzero(bits == value) for bits, value in zip(_magnitudes(t), least, strict=True)]
    return torch.tensor(counts, dtype=torch.int64)


def _magnitudes(t: TensorStack) -> Sequence[numpy.ndarray[Any, Any]]:
    """The magnitudes of each expert's values as whole numbers in the same order: their bits without the sign."""
    import numpy

    return [delta.reshape(-1).numpy().view(numpy.int32) & 0x7FFFFFFF for delta in t.deltas]


# ---- by chance ------------------------------------------------------------------------------------------------------


def by_chance(t: TensorStack, *, density: tuple[float, ...]) -> Tensor:
    """bool (experts, *shape): each value with its expert's probability."""
    import torch

    return torch.stack([t.chosen(row, share) for row, share in enumerate(density)])


def by_rank(t: TensorStack, *, density: tuple[float, ...], epsilon: tuple[float, ...]) -> Tensor:
    """bool (experts, *shape): each value with the probability that its rank within its row gives."""
    import numpy
    import torch

    mask = numpy.empty(t.deltas.shape, dtype=bool)
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
    """`spread` laid out by the rank of each magnitude in its row; `number` is that of the first row.

    The key is the magnitude's first 16 bits, exponent and eight of its mantissa: NumPy sorts 16 bits by radix, three to
    twenty times quicker than wider ones. Equal keys are ranked from the left in even rows, from the right in odd ones.
    """
    import numpy
    import torch

    keys = ((rows.view(numpy.uint32) & 0x7FFFFFFF) >> 15).astype(numpy.uint16)
    odd = slice((number + 1) % 2, None, 2)
    keys[odd] = keys[odd, ::-1].copy()
    order = torch.from_numpy(numpy.argsort(keys, axis=1, kind="stable"))
    limits = torch.empty(rows.shape, dtype=torch.int16)  # torch scatters it five times as quickly as NumPy
    limits.scatter_(1, order, torch.from_numpy(spread.view(numpy.int16)).expand(rows.shape))
    found = limits.numpy().view(numpy.uint16)
    found[odd] = found[odd, ::-1].copy()
    return found


# ---- what is left ---------------------------------------------------------------------------------------------------


def kept(t: TensorStack, mask: partial[Tensor], rescale: str) -> Tensor:
    """Each expert's values where `mask` is true, zero elsewhere; with `rescale: l1` by the factor that gives them the
    L1 norm that the expert's change to the tensor had before."""
    import numpy
    import torch

    found = torch.from_numpy(t.once(mask).numpy().astype(numpy.float32)).mul_(t.deltas)
    if rescale == "l1":
        for delta, factor in zip(found, t.once(partial(_l1_factors, mask=mask), "tensor"), strict=True):
            delta *= factor
    return found


def _l1_factors(t: TensorStack, *, mask: partial[Tensor]) -> list[float]:
    had, has = t.total(partial(_l1_norms, mask=mask)).tolist()
    return [a / b if a >= _SMALL_L1 and b >= _SMALL_L1 else 1.0 for a, b in zip(had, has, strict=True)]


def _l1_norms(t: TensorStack, *, mask: partial[Tensor]) -> Tensor:
    """float64 (2, experts): before and after `mask`."""
    import numpy
    import torch

    norms = []
    for delta, stays in zip(t.deltas, t.once(mask), strict=True):
        magnitudes = delta.abs()
        had = float(magnitudes.sum())
        magnitudes *= torch.from_numpy(stays.numpy().astype(numpy.float32))
        norms.append((had, float(magnitudes.sum())))
    return torch.tensor(norms, dtype=torch.float64).T
