"""The built-in merge methods, with mergekit's meaning and defaults; what deviates from it and from the papers is named.

All work on one float32 tensor at a time. Each delta (expert minus base) is first thinned out by `prepare`, which does
not look at the weights, and the thinned deltas are then combined:

    linear        no thinning                                      weighted mean
    ties          trim: the largest magnitudes stay                sign election
    dare_linear   drop: each weight stays by chance                weighted sum
    dare_ties     drop                                             sign election
    della_linear  prune: by chance, large magnitudes more often    weighted sum
    della         prune                                            sign election

Random masks come from `t.generator(i)` alone: they depend on the step's seed, the expert and the tensor's name, and
every weight of a sweep sees the same mask. mergekit draws them from one global seed instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mixmerge import CheckpointError, Component, TensorStack, hookimpl, merger
from mixmerge.plugins.mergekit import config_file

if TYPE_CHECKING:
    from torch import Generator, Tensor

Density = Annotated[float, Field(gt=0, le=1)]
Epsilon = Annotated[float, Field(ge=0, lt=0.5)]
Rescale = Literal["l1", "density", "none"]

_SMALL_L1 = 1e-7  # mergekit leaves a delta with a smaller L1 norm as it is
_ZERO_SUM = 1e-8  # mergekit's bound under which a sum of weights counts as zero
_CHUNK = 1 << 16  # elements that are worked on at a time: with their 64-bit keys they fit the processor's cache


@merger(name="linear", version="1", source="arXiv:2203.05482, section 2; mergekit `linear`", files=config_file)
def linear(t: TensorStack, /, *, normalize: bool = True) -> Tensor:
    """Weighted average of the experts' weights ("model soup").

    normalize  divide by the sum of the weights. Without it, weights that do not sum to 1 scale the whole model and
               not only the change, as in mergekit, where the base takes no part in this method.

    Deviation from mergekit: weights that sum to zero are an error and not a division by zero.
    """
    change = (t.weights * t.deltas).sum(0)
    total = t.weights.sum(0)
    if normalize:
        return t.base + change / _nonzero(total, t)
    return total * t.base + change


def trim(t: TensorStack, /, *, density: Density, rescale: Literal["l1", "none"] = "none") -> Tensor:
    """Keep the `density` of each delta's values with the largest magnitude, at least one; float32 (experts, *shape).

    Among equal magnitudes the first in memory order stay.
    """
    import torch

    if density == 1:
        return t.deltas
    kept = torch.stack([delta * _largest(delta, density) for delta in t.deltas])
    return _matched_l1(kept, t.deltas) if rescale == "l1" else kept


def drop(t: TensorStack, /, *, density: Density, rescale: Rescale = "l1") -> Tensor:
    """Keep each value of each delta with probability `density`, then rescale; float32 (experts, *shape)."""
    import torch

    if density == 1:
        return t.deltas
    chance = torch.tensor(density).expand(t.base.shape)
    kept = torch.stack([_kept_by_chance(delta, chance, t.generator(row)) for row, delta in enumerate(t.deltas)])
    if rescale == "density":
        return kept / density
    return _matched_l1(kept, t.deltas) if rescale == "l1" else kept


def prune(t: TensorStack, /, *, density: Density, epsilon: Epsilon = 0.15, rescale: Rescale = "l1") -> Tensor:
    """Keep values by chance, those of large magnitude more often, then rescale; float32 (experts, *shape).

    Within each row (index along dimension 1; a vector is one row) the smallest magnitude stays with probability
    density - epsilon, the largest with density + epsilon, the ranks between them evenly spaced.
    """
    import torch

    kept = torch.empty_like(t.deltas)
    for row, delta in enumerate(t.deltas):
        chance = _keep_probability(delta, density, epsilon)
        kept[row] = _kept_by_chance(delta, chance, t.generator(row))
        if rescale == "density":
            kept[row] /= chance
    return _matched_l1(kept, t.deltas) if rescale == "l1" else kept


@merger(
    name="ties", version="1", source="arXiv:2306.01708, section 4; mergekit `ties`", prepare=trim, files=config_file
)
def ties(t: TensorStack, /, *, normalize: bool = True, scale: float = 1.0) -> Tensor:
    """TIES: trim each change to its largest values, elect a sign for each weight, average what agrees with it.

    density    fraction of each tensor's change that is kept, by magnitude. mergekit's default of 1 would trim nothing,
               so it must be given; the paper's default is 0.2, this experiment's paper uses 0.5
    normalize  divide by the weights of the experts that agree: where one expert is left, its weight cancels
    rescale    "l1" matches the L1 norm that the tensor had before trimming; mergekit and the paper do not rescale
    scale      factor on the merged change ("lambda" in the paper and in mergekit)

    Deviations from the paper, as in mergekit: magnitudes are ranked within a tensor and not over the whole model,
    experts have weights, and an exact tie of the election counts as positive.
    """
    return t.base.add(_elected(t, normalize), alpha=scale)


@merger(
    name="dare_linear",
    version="1",
    source="arXiv:2311.03099, section 3; mergekit `dare_linear`",
    prepare=drop,
    files=config_file,
)
def dare_linear(t: TensorStack, /, *, normalize: bool = False, scale: float = 1.0) -> Tensor:
    """DARE with task arithmetic: drop values of each change at random, rescale the rest, add them up weighted.

    density    probability with which a value stays (1 minus the paper's drop rate); must be given
    rescale    "l1" matches the L1 norm that the tensor had before the drop (mergekit); "density" divides by density
               (the paper, unbiased); "none" leaves what is left as it is
    normalize  divide by the sum of the weights; without it, as in mergekit, that sum scales the change
    scale      factor on the merged change ("lambda" in mergekit)
    """
    return t.base.add(_summed(t, normalize), alpha=scale)


@merger(
    name="dare_ties",
    version="1",
    source="arXiv:2311.03099, section 3; mergekit `dare_ties`",
    prepare=drop,
    files=config_file,
)
def dare_ties(t: TensorStack, /, *, normalize: bool = False, scale: float = 1.0) -> Tensor:
    """DARE with the sign election of TIES: drop at random, rescale, elect a sign, add up what agrees with it.

    density    probability with which a value stays (1 minus the paper's drop rate); must be given
    rescale    "l1" (mergekit), "density" (the paper) or "none", as for dare_linear
    normalize  divide by the weights of the experts that agree; mergekit does not for this method
    scale      factor on the merged change ("lambda" in mergekit)
    """
    return t.base.add(_elected(t, normalize), alpha=scale)


def _within(*, density: float, epsilon: float, **_: object) -> str:
    low, high = density - epsilon, density + epsilon
    if low > 0 and high < 1:
        return ""
    return f"density ± epsilon must lie in (0, 1), not {low:g} to {high:g}"


@merger(
    name="della",
    version="1",
    source="arXiv:2406.11617, section 3; mergekit `della`",
    prepare=prune,
    check=_within,
    files=config_file,
)
def della(t: TensorStack, /, *, normalize: bool = True, scale: float = 1.0) -> Tensor:
    """DELLA: drop values at random, small ones more often, rescale, elect a sign, average what agrees with it.

    density    mean probability with which a value stays (1 minus the paper's drop rate p); must be given
    epsilon    half the range of the probabilities: smallest value of a row density - epsilon, largest
               density + epsilon, both within (0, 1) (the paper's epsilon is the whole range)
    rescale    "l1" matches the L1 norm that the tensor had before (mergekit); "density" divides each value by the
               probability with which it stayed (the paper, unbiased); "none" leaves what is left as it is
    normalize  divide by the weights of the experts that agree: where one expert is left, its weight cancels
    scale      factor on the merged change ("lambda" in the paper and in mergekit)

    Deviations from mergekit: equal magnitudes are ranked in memory order, density 1 is refused rather than a silent
    no-op, and a row of one value stays with probability density (mergekit divides by zero).
    """
    return t.base.add(_elected(t, normalize), alpha=scale)


@merger(
    name="della_linear",
    version="1",
    source="arXiv:2406.11617, section 3; mergekit `della_linear`",
    prepare=prune,
    check=_within,
    files=config_file,
)
def della_linear(t: TensorStack, /, *, normalize: bool = False, scale: float = 1.0) -> Tensor:
    """DELLA without the sign election: drop at random, small values more often, rescale, add up weighted.

    density, epsilon, rescale  as for della
    normalize  divide by the sum of the weights; without it, as in mergekit, that sum scales the change
    scale      factor on the merged change ("lambda" in mergekit)
    """
    return t.base.add(_summed(t, normalize), alpha=scale)


def _summed(t: TensorStack, normalize: bool) -> Tensor:
    change = (t.weights * t.deltas).sum(0)
    return change / _nonzero(t.weights.sum(0), t) if normalize else change


def _elected(t: TensorStack, normalize: bool) -> Tensor:
    """For each weight the sum, or weighted mean, of the changes whose sign is that of the weighted sum."""
    import torch

    merged = torch.empty(t.base.numel())
    deltas, weights = t.deltas.reshape(len(t.deltas), -1), t.weights.reshape(-1, 1)
    # A part at a time stays in the processor's cache, which makes this quicker.
    for part, out in zip(torch.split(deltas, _CHUNK, dim=1), torch.split(merged, _CHUNK), strict=True):
        votes = weights * part
        positive = votes.sum(0) >= 0
        agree = torch.where(positive, votes > 0, votes < 0)
        torch.sum(votes * agree, 0, out=out)
        if normalize:
            total = (weights * agree).sum(0)
            total[total == 0] = 1  # nobody is left there: the change is zero, and stays it
            out /= total
    return merged.reshape(t.base.shape)


def _nonzero(total: Tensor, t: TensorStack) -> Tensor:
    if total.abs().max() < _ZERO_SUM:
        weights = ", ".join(f"{weight:g}" for weight in t.weights.flatten().tolist())
        raise CheckpointError(f"the weights {weights} sum to zero", hint="give other weights, or normalize: false")
    return total


def _kept_by_chance(delta: Tensor, chance: Tensor, generator: Generator) -> Tensor:
    """`delta` with each value kept with its probability and zero otherwise, a part at a time."""
    import torch

    kept = torch.empty(delta.numel())
    parts = (torch.split(flat, _CHUNK) for flat in (delta.flatten(), chance.flatten(), kept))
    for values, chances, out in zip(*parts, strict=True):
        torch.mul(values, torch.rand(values.shape, generator=generator) < chances, out=out)
    return kept.reshape(delta.shape)


def _matched_l1(kept: Tensor, before: Tensor) -> Tensor:
    """Rescale each delta to the L1 norm that it had before, as mergekit does."""
    for new, old in zip(kept, before, strict=True):
        had, has = (x.abs().sum() for x in (old, new))
        if had >= _SMALL_L1 and has >= _SMALL_L1:
            new *= had / has
    return kept


def _largest(delta: Tensor, density: float) -> Tensor:
    """A mask over the `density` of values with the largest magnitude; the first in memory order among equals."""
    import numpy
    import torch

    magnitudes = delta.abs().flatten()
    if not magnitudes.numel():
        return torch.ones_like(delta, dtype=torch.bool)
    count = max(1, int(density * magnitudes.numel()))
    # NumPy's selection is exact, and much quicker than sorting or torch.kthvalue.
    least = float(numpy.partition(magnitudes.numpy(), -count)[-count])
    mask = magnitudes > least
    equal = (magnitudes == least).nonzero().flatten()
    mask[equal[: count - int(mask.sum())]] = True
    return mask.reshape(delta.shape)


def _keep_probability(delta: Tensor, density: float, epsilon: float) -> Tensor:
    """For each value the probability with which DELLA keeps it, by the rank of its magnitude within its row."""
    import torch

    if delta.ndim < 2:
        return _by_rank(delta.reshape(1, -1), density, epsilon).reshape(delta.shape)
    turned = delta.movedim(1, -1)
    chances: Tensor = _by_rank(turned.reshape(-1, delta.shape[1]), density, epsilon)
    return torch.movedim(chances.reshape(turned.shape), -1, 1)


def _by_rank(rows: Tensor, density: float, epsilon: float) -> Tensor:
    import torch

    width = rows.shape[1]
    if width < 2:
        return torch.full_like(rows, density)
    chances = torch.empty_like(rows)
    column = torch.arange(width)
    spread = (density - epsilon) + torch.arange(width, dtype=torch.float32) / (width - 1) * 2 * epsilon
    step = max(1, _CHUNK // width)
    for start in range(0, len(rows), step):
        # Magnitude and place in one integer: no two keys are equal, so that any sort gives the same order on any
        # machine, and NumPy's integer sort is several times quicker than a stable sort of floats.
        bits = rows[start : start + step].abs().contiguous().view(torch.int32)
        keys = bits.to(torch.int64).mul_(1 << 32).add_(column)
        keys.numpy().sort(axis=1)
        places = keys.bitwise_and_((1 << 32) - 1)
        chances[start : start + step].scatter_(1, places, spread.expand(places.shape))
    return chances


@hookimpl
def register_mergers() -> Sequence[Component]:
    return [linear, ties, dare_linear, dare_ties, della, della_linear]
