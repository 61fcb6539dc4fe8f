"""The built-in merge methods, as published, with mergekit's defaults; what deviates from either is named.

All compute in float32 from whatever is stored, and the result is rounded once, when it is written. Each delta (expert
minus base) is thinned out by a mask, which does not look at the weights, and what it leaves is combined:

    linear        no thinning                                      weighted mean
    ties          trim: the largest magnitudes stay                sign election
    dare_linear   drop: each weight stays by chance                weighted sum
    dare_ties     drop                                             sign election
    della_linear  prune: by chance, large magnitudes more often    weighted sum
    della         prune                                            sign election

The points of a sweep share masks (`t.once`) and not thinned deltas (`prepare`): the loop that combines subtracts and
masks as it goes, from what is stored. Random masks come from `t.draws(i)` alone: they depend on the step's seed, the
expert's place and the tensor's name, and every weight of a sweep sees the same mask. mergekit draws them from one
global seed instead. Probabilities are taken to the nearest multiple of 1/65536.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def _fits(weights: Sequence[float], /, *, normalize: bool, **settings: Any) -> str:
    for name, value in settings.items():
        if isinstance(value, list | tuple) and len(value) != len(weights):
            return f"{name} has {len(value)} values, and there are {len(weights)} experts"
    return _zero_sum(weights) if normalize else ""


def _zero_sum(weights: Sequence[float]) -> str:
    if abs(sum(weights)) >= _ZERO_SUM:
        return ""
    return f"the weights {', '.join(f'{weight:g}' for weight in weights)} sum to zero, and it divides by that sum"


@merger(
    name="linear", version="3", source="arXiv:2203.05482, section 2; mergekit `linear`", fits=_fits, files=config_file
)
@rowwise
def linear(t: TensorStack, /, *, normalize: bool = True) -> Tensor:
    """Weighted average of the experts' weights ("model soup").

    normalize  divide by the sum of the weights. Without it, weights that do not sum to 1 scale the whole model and
               not only the change, as in mergekit, where the base takes no part in this method.

    Deviation from mergekit: weights that sum to zero are an error and not a division by zero.
    """
    from mixmerge.checkpoint.kernels import raws

    from ._merge_kernels import averaged

    found, out = _result(t)
    share = 1.0 if normalize else float(t.weights.sum())
    averaged(raws(t.expert_weights), _weights(t, 1 / _total(t) if normalize else 1.0), share, out)
    return found


@merger(name="ties", version="4", source="arXiv:2306.01708, section 4; mergekit `ties`", fits=_fits, files=config_file)
@rowwise
def ties(
    t: TensorStack,
    /,
    *,
    density: Density,
    rescale: Literal["l1", "none"] = "none",
    per: thinning.Per = "tensor",
    normalize: bool = True,
    scale: float = 1.0,
) -> Tensor:
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
    return _elected(t, thinning.trimmed(t, density, rescale, per), normalize, scale)


@merger(
    name="dare_linear",
    version="5",
    source="arXiv:2311.03099, section 3; mergekit `dare_linear`",
    fits=_fits,
    files=config_file,
)
@rowwise
def dare_linear(
    t: TensorStack,
    /,
    *,
    density: Density,
    rescale: Rescale = "l1",
    normalize: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """DARE with task arithmetic: drop values of each change at random, rescale the rest, add them up weighted.

    density    probability with which a value stays (1 minus the paper's drop rate), one for all experts or a list in
               their order; must be given
    rescale    "l1" matches the L1 norm that the tensor had before the drop (mergekit since 0.1.0); "density" divides
               by density (the paper, unbiased); "none" leaves what is left as it is
    normalize  divide by the sum of the weights; without it, as in mergekit, that sum scales the change
    scale      factor on the merged change ("lambda" in mergekit)
    """
    return _summed(t, thinning.dropped(t, density, rescale), normalize, scale)


@merger(
    name="dare_ties",
    version="5",
    source="arXiv:2311.03099, section 3; mergekit `dare_ties`",
    fits=_fits,
    files=config_file,
)
@rowwise
def dare_ties(
    t: TensorStack,
    /,
    *,
    density: Density,
    rescale: Rescale = "l1",
    normalize: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """DARE with the sign election of TIES: drop at random, rescale, elect a sign, add up what agrees with it.

    density    probability with which a value stays (1 minus the paper's drop rate), one for all experts or a list in
               their order; must be given
    rescale    "l1" (mergekit), "density" (the paper) or "none", as for dare_linear
    normalize  divide by the weights of the experts that agree; mergekit does not for this method
    scale      factor on the merged change ("lambda" in mergekit)
    """
    return _elected(t, thinning.dropped(t, density, rescale), normalize, scale)


def _within(*, density: Any, epsilon: Any, **_: object) -> str:
    shares, spreads = ([value] if isinstance(value, float | int) else value for value in (density, epsilon))
    count = max(len(shares), len(spreads))
    for share, spread in zip(shares * (count // len(shares)), spreads * (count // len(spreads)), strict=False):
        low, high = share - spread, share + spread
        if low <= 0 or high >= 1:
            return f"density ± epsilon must lie in (0, 1), not {low:g} to {high:g} (epsilon is {spread:g})"
    return ""


@merger(
    name="della",
    version="5",
    source="arXiv:2406.11617, section 3; mergekit `della`",
    check=_within,
    fits=_fits,
    files=config_file,
)
@rowwise
def della(
    t: TensorStack,
    /,
    *,
    density: Density,
    epsilon: Epsilon = 0.15,
    rescale: Rescale = "l1",
    normalize: bool = True,
    scale: float = 1.0,
) -> Tensor:
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
    return _elected(t, thinning.pruned(t, density, epsilon, rescale), normalize, scale)


@merger(
    name="della_linear",
    version="5",
    source="arXiv:2406.11617, section 3; mergekit `della_linear`",
    check=_within,
    fits=_fits,
    files=config_file,
)
@rowwise
def della_linear(
    t: TensorStack,
    /,
    *,
    density: Density,
    epsilon: Epsilon = 0.15,
    rescale: Rescale = "l1",
    normalize: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """DELLA without the sign election: drop at random, small values more often, rescale, add up weighted.

    density, epsilon, rescale  as for della
    normalize  divide by the sum of the weights; without it, as in mergekit, that sum scales the change
    scale      factor on the merged change ("lambda" in mergekit)
    """
    return _summed(t, thinning.pruned(t, density, epsilon, rescale), normalize, scale)


def _summed(t: TensorStack, changes: thinning.Kept, normalize: bool, scale: float) -> Tensor:
    from ._merge_kernels import summed

    found, out = _result(t)
    summed(_base(t), changes.raw, _weights(t, scale / _total(t) if normalize else scale), out)
    return found


def _elected(t: TensorStack, changes: thinning.Kept, normalize: bool, scale: float) -> Tensor:
    from ._merge_kernels import elected

    found, out = _result(t)
    elected(_base(t), changes.raw, _weights(t), normalize, scale, out)
    return found


def _base(t: TensorStack) -> Any:
    """For compiled loops; as it is stored, since it need not become float32 first."""
    from mixmerge.checkpoint.kernels import raw

    return raw(t.stored[0] if t.stored else t.base)


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
    if wrong := _zero_sum(weights):
        raise CheckpointError(wrong, hint="give other weights, or normalize: false")
    return float(sum(weights))


@hookimpl
def register_mergers() -> Sequence[Component]:
    return [linear, ties, dare_linear, dare_ties, della, della_linear]
