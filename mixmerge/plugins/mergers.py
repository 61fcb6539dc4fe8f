"""The built-in merge methods, as published, with mergekit's defaults; what deviates from either is named.

All compute in float32 from whatever is stored, and the result is rounded once, when it is written. Each delta (expert
minus base) is first thinned out by `prepare`, which does not look at the weights, and the thinned deltas are then
combined:

    linear        no thinning                                      weighted mean
    ties          trim: the largest magnitudes stay                sign election
    dare_linear   drop: each weight stays by chance                weighted sum
    dare_ties     drop                                             sign election
    della_linear  prune: by chance, large magnitudes more often    weighted sum
    della         prune                                            sign election

Random masks come from `t.draws(i)` alone: they depend on the step's seed, the expert's place and the tensor's name, and
every weight of a sweep sees the same mask. mergekit draws them from one global seed instead. Probabilities are taken to
the nearest multiple of 1/65536.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mixmerge import CheckpointError, Component, TensorStack, hookimpl, merger, rowwise
from mixmerge.plugins import _thinning as thinning
from mixmerge.plugins.mergekit import config_file

if TYPE_CHECKING:
    from torch import Tensor

Share = Annotated[float, Field(gt=0, le=1)]
Density = Share | list[Share]
HalfRange = Annotated[float, Field(ge=0, lt=0.5)]
Epsilon = HalfRange | list[HalfRange]
Rescale = Literal["l1", "density", "none"]

_ZERO_SUM = 1e-8  # mergekit's bound under which a sum of weights counts as zero


@merger(name="linear", version="3", source="arXiv:2203.05482, section 2; mergekit `linear`", files=config_file)
@rowwise
def linear(t: TensorStack, /, *, normalize: bool = True) -> Tensor:
    """Weighted average of the experts' weights ("model soup").

    normalize  divide by the sum of the weights. Without it, weights that do not sum to 1 scale the whole model and
               not only the change, as in mergekit, where the base takes no part in this method.

    Deviation from mergekit: weights that sum to zero are an error and not a division by zero.
    """
    from mixmerge.checkpoint.kernels import raw

    from ._merge_kernels import averaged

    experts = t.expert_weights
    if len({expert.dtype for expert in experts}) > 1:
        experts = tuple(expert.float() for expert in experts)
    found, out = _result(t)
    share = 1.0 if normalize else float(t.weights.sum())
    averaged(tuple(map(raw, experts)), _weights(t, 1 / _total(t) if normalize else 1.0), share, out)
    return found


@rowwise
def trim(
    t: TensorStack, /, *, density: Density, rescale: Literal["l1", "none"] = "none", per: thinning.Per = "tensor"
) -> Tensor:
    """Keep the `density` of each delta's values with the largest magnitude, at least one; float32 (experts, *shape).

    Of values equal to the smallest that stays, every so manyth stays, evenly spread in memory order.
    """
    mask = partial(thinning.largest, density=thinning.each(density, len(t.deltas)), per=per)
    return thinning.kept(t, mask, rescale)


@rowwise
def drop(t: TensorStack, /, *, density: Density, rescale: Rescale = "l1") -> Tensor:
    """Keep each value of each delta with probability `density`, then rescale; float32 (experts, *shape)."""
    import torch

    shares = thinning.each(density, len(t.deltas))
    found = thinning.kept(t, partial(thinning.by_chance, density=shares), rescale)
    if rescale == "density":
        found /= torch.tensor(shares).reshape(t.weights.shape)
    return found


@rowwise
def prune(t: TensorStack, /, *, density: Density, epsilon: Epsilon = 0.15, rescale: Rescale = "l1") -> Tensor:
    """Keep values by chance, those of large magnitude more often, then rescale; float32 (experts, *shape).

    Within each row (index along dimension 1; a vector is one row) the smallest magnitude stays with probability
    density - epsilon, the largest with density + epsilon, the ranks between them evenly spaced. Magnitudes are
    compared to nine significant bits; equal ones are ranked from the left in even rows, from the right in odd ones.
    """
    shares, spreads = (thinning.each(value, len(t.deltas)) for value in (density, epsilon))
    found = thinning.kept(t, partial(thinning.by_rank, density=shares, epsilon=spreads), rescale)
    if rescale == "density":
        found /= thinning.chances(t, density=shares, epsilon=spreads)
    return found


@merger(
    name="ties", version="3", source="arXiv:2306.01708, section 4; mergekit `ties`", prepare=trim, files=config_file
)
@rowwise
def ties(t: TensorStack, /, *, normalize: bool = True, scale: float = 1.0) -> Tensor:
    """TIES: trim each change to its largest values, elect a sign for each weight, average what agrees with it.

    density    fraction of the change that is kept, by magnitude; one for all experts, or a list in their order.
               mergekit's default of 1 would trim nothing, so a recipe must give it; the paper's default is 0.2, this
               experiment's paper uses 0.5
    per        what that fraction is of: each "tensor", as in mergekit, or the whole "model", as in the paper (which
               reads the model four times instead of once)
    normalize  divide by the weights of the experts that agree: where one expert is left, its weight cancels
    rescale    "l1" matches the L1 norm that the tensor had before trimming; mergekit and the paper do not rescale
    scale      factor on the merged change ("lambda" in the paper and in mergekit)

    Among magnitudes equal to the smallest that is kept (a sixth of the values can be, between bfloat16 models), those
    that stay are spread evenly in memory order; mergekit leaves it to an unstable sort. Deviations from the paper, as
    in mergekit: experts have weights, and an exact tie of the election counts as positive.
    """
    return _elected(t, normalize, scale)


@merger(
    name="dare_linear",
    version="4",
    source="arXiv:2311.03099, section 3; mergekit `dare_linear`",
    prepare=drop,
    files=config_file,
)
@rowwise
def dare_linear(t: TensorStack, /, *, normalize: bool = False, scale: float = 1.0) -> Tensor:
    """DARE with task arithmetic: drop values of each change at random, rescale the rest, add them up weighted.

    density    probability with which a value stays (1 minus the paper's drop rate), one for all experts or a list in
               their order; must be given
    rescale    "l1" matches the L1 norm that the tensor had before the drop (mergekit since 0.1.0); "density" divides
               by density (the paper, unbiased); "none" leaves what is left as it is
    normalize  divide by the sum of the weights; without it, as in mergekit, that sum scales the change
    scale      factor on the merged change ("lambda" in mergekit)
    """
    return _summed(t, normalize, scale)


@merger(
    name="dare_ties",
    version="4",
    source="arXiv:2311.03099, section 3; mergekit `dare_ties`",
    prepare=drop,
    files=config_file,
)
@rowwise
def dare_ties(t: TensorStack, /, *, normalize: bool = False, scale: float = 1.0) -> Tensor:
    """DARE with the sign election of TIES: drop at random, rescale, elect a sign, add up what agrees with it.

    density    probability with which a value stays (1 minus the paper's drop rate), one for all experts or a list in
               their order; must be given
    rescale    "l1" (mergekit), "density" (the paper) or "none", as for dare_linear
    normalize  divide by the weights of the experts that agree; mergekit does not for this method
    scale      factor on the merged change ("lambda" in mergekit)
    """
    return _elected(t, normalize, scale)


def _within(*, density: Any, epsilon: Any, **_: object) -> str:
    shares, spreads = ([value] if isinstance(value, float | int) else value for value in (density, epsilon))
    count = max(len(shares), len(spreads))
    for share, spread in zip(shares * (count // len(shares)), spreads * (count // len(spreads)), strict=False):
        low, high = share - spread, share + spread
        if low <= 0 or high >= 1:
            return f"density ± epsilon must lie in (0, 1), not {low:g} to {high:g}"
    return ""


@merger(
    name="della",
    version="4",
    source="arXiv:2406.11617, section 3; mergekit `della`",
    prepare=prune,
    check=_within,
    files=config_file,
)
@rowwise
def della(t: TensorStack, /, *, normalize: bool = True, scale: float = 1.0) -> Tensor:
    """DELLA: drop values at random, small ones more often, rescale, elect a sign, average what agrees with it.

    density    mean probability with which a value stays (1 minus the paper's drop rate p), one for all experts or a
               list in their order; must be given
    epsilon    half the range of the probabilities: smallest value of a row density - epsilon, largest
               density + epsilon, both within (0, 1) (the paper's epsilon is the whole range)
    rescale    "l1" matches the L1 norm that the tensor had before (mergekit); "density" divides each value by the
               probability with which it stayed (the paper, unbiased); "none" leaves what is left as it is
    normalize  divide by the weights of the experts that agree: where one expert is left, its weight cancels
    scale      factor on the merged change ("lambda" in the paper and in mergekit)

    Magnitudes are ranked by their first nine significant bits (in mergekit's bfloat16 there are eight, and ranks
    themselves are rounded to eight); equal ones from the left in even rows, from the right in odd ones. Deviations
    from mergekit: density 1 is refused rather than a silent no-op, and a row of one value stays with probability
    density (mergekit divides by zero).
    """
    return _elected(t, normalize, scale)


@merger(
    name="della_linear",
    version="4",
    source="arXiv:2406.11617, section 3; mergekit `della_linear`",
    prepare=prune,
    check=_within,
    files=config_file,
)
@rowwise
def della_linear(t: TensorStack, /, *, normalize: bool = False, scale: float = 1.0) -> Tensor:
    """DELLA without the sign election: drop at random, small values more often, rescale, add up weighted.

    density, epsilon, rescale  as for della
    normalize  divide by the sum of the weights; without it, as in mergekit, that sum scales the change
    scale      factor on the merged change ("lambda" in mergekit)
    """
    return _summed(t, normalize, scale)


def _summed(t: TensorStack, normalize: bool, scale: float) -> Tensor:
    from mixmerge.checkpoint.kernels import raw

    from ._merge_kernels import summed

    found, out = _result(t)
    base = raw(t.stored[0] if t.stored else t.base.contiguous())  # as it is stored: it need not become float32 first
    deltas = t.deltas.contiguous().reshape(len(t.deltas), -1).numpy()
    summed(base, deltas, _weights(t, scale / _total(t) if normalize else scale), out)
    return found


def _elected(t: TensorStack, normalize: bool, scale: float) -> Tensor:
    from ._merge_kernels import elected

    found, out = _result(t)
    elected(*_flat(t), _weights(t), normalize, scale, out)
    return found


def _flat(t: TensorStack) -> tuple[Any, Any]:
    """Base and deltas for compiled loops."""
    return t.base.contiguous().reshape(-1).numpy(), t.deltas.contiguous().reshape(len(t.deltas), -1).numpy()


def _weights(t: TensorStack, factor: float = 1.0) -> Any:
    weights = t.weights.numpy().reshape(-1)
    return (weights.astype("float64") * factor).astype("float32")


def _result(t: TensorStack) -> tuple[Tensor, Any]:
    """Memory for the result, as a tensor and for compiled loops: in the dtype it will have, if they can round to it."""
    import torch

    from mixmerge.checkpoint.kernels import raw

    found = torch.empty(t.shape, dtype=torch.bfloat16 if t.dtype == "bfloat16" else torch.float32)
    return found, raw(found)


def _total(t: TensorStack) -> float:
    weights = t.weights.numpy().reshape(-1).tolist()
    total = sum(weights)
    if abs(total) < _ZERO_SUM:
        shown = ", ".join(f"{weight:g}" for weight in weights)
        raise CheckpointError(f"the weights {shown} sum to zero", hint="give other weights, or normalize: false")
    return float(total)


@hookimpl
def register_mergers() -> Sequence[Component]:
    return [linear, ties, dare_linear, dare_ties, della, della_linear]
