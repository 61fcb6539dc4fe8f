"""A merge method in a package of its own: `pip install` it, and `mixmerge show median_delta` knows it."""

from typing import Annotated

from pydantic import Field

from mixmerge import TensorStack, hookimpl, merger


@merger(name="median_delta", version="1", source="the coordinate-wise median of Yin et al. 2018, arXiv:1803.01498")
def median_delta(t: TensorStack, *, scale: Annotated[float, Field(gt=0)] = 1.0):
    """The weighted median of the experts' changes, weight by weight: one expert far off moves nothing.

    Sorted by size, each change carries its expert's weight; taken is the one in the middle of all weight, or the mean
    of two when the middle falls between them (so two experts of equal weight give their mean). Weights are not
    negative.
    """
    changes, order = t.deltas.sort(dim=0)
    carried = t.weights.expand_as(t.deltas).gather(0, order).cumsum(0)
    half = 0.5 * carried[-1:]
    below = (carried < half).sum(0, keepdim=True)
    above = (carried <= half).sum(0, keepdim=True).clamp(max=len(changes) - 1)
    return t.base + scale * (changes.gather(0, below) + changes.gather(0, above))[0] / 2


@hookimpl
def register_mergers():
    return [median_delta]
