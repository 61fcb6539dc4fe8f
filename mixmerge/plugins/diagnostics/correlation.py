"""Whether two models moved the same way, and what two runs of one task give for that."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from mixmerge import Checkpoint, TensorPart, TensorView, diagnostic

from .sums import Finding, Sums, moments, number, products

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_VARIANCE = 1e-12  # of the mean square; less is rounding, and a correlation of it noise
_PLOTTED = 0.3  # of a tensor's largest change: what the paper's programs keep


def signs(part: TensorPart) -> Sums:
    """For every two models, the number of weights that both changed, and of those moved in the same direction."""
    import numpy
    import torch

    rows = part.deltas.numpy()
    agree, oppose = numpy.zeros((2, len(rows), len(rows)))
    product = numpy.empty(rows.shape[1])
    for i, j in combinations(range(len(rows)), 2):
        numpy.multiply(rows[i], rows[j], out=product)
        agree[i, j] = numpy.count_nonzero(product > 0)
        oppose[i, j] = numpy.count_nonzero(product < 0)
    return {"agree": torch.from_numpy(agree), "both": torch.from_numpy(agree + oppose)}


def plotted(part: TensorPart) -> Sums:
    """As `moments`, of deltas that are zero where they are under 30 % of their tensor's largest."""
    import torch

    kept = torch.empty_like(part.deltas)
    for row, delta, peak in zip(kept, part.deltas, part.view.peaks.tolist(), strict=True):
        # hardshrink keeps what is over its bound: the next number below keeps what is at least 30 %.
        row.copy_(torch.nn.functional.hardshrink(delta, math.nextafter(_PLOTTED * peak, 0.0)))
    return {"sums": kept.sum(1), "products": products(kept)}


def _finish(sums: Sums, models: Sequence[str], /) -> Iterable[Finding]:
    count = float(sums["count"])
    if not count:
        return
    squares = sums["products"].diagonal()
    for i, j in combinations(range(len(models)), 2):
        pair = (models[i], models[j])
        if (value := _pearson(count, sums["sums"], sums["products"], (i, j))) is not None:
            yield "pearson", pair, value
        if squares[i] > 0 and squares[j] > 0:
            yield "cosine", pair, _bounded(sums["products"][i, j] / (squares[i] * squares[j]).sqrt())
        if both := float(sums["both"][i, j]):
            yield "sign_agreement", pair, float(sums["agree"][i, j]) / both
        if (value := _pearson(count, sums["plotted_sums"], sums["plotted_products"], (i, j))) is not None:
            yield "pearson_plotted", pair, value


def _pearson(count: float, sums: Tensor, products: Tensor, pair: tuple[int, int]) -> float | None:
    i, j = pair
    means, squares = sums / count, products.diagonal() / count
    variances = squares - means.square()
    if any(not variances[k] > _LEAST_VARIANCE * squares[k] for k in pair):
        return None
    covariance = products[i, j] / count - means[i] * means[j]
    return _bounded(covariance / (variances[i] * variances[j]).sqrt())


def _bounded(value: Tensor) -> float:
    """Rounding may carry a correlation past its bounds by some 1e-16."""
    return min(1.0, max(-1.0, float(value)))


@diagnostic(
    name="correlation",
    version="2",
    source="arXiv:2601.21115, equation 1; sign agreement: arXiv:2306.01708, section 3",
    finish=_finish,
    totals=(moments, signs, plotted),
)
def correlation(t: TensorView, /) -> Sums:
    """Whether two models moved the same way: one figure for every pair, over all parameters of a group.

    pearson          Pearson correlation of the two changes, in [-1, 1] (equation 1); left out where a change does not
                     vary
    cosine           the same without subtracting the means; left out where a model did not move
    sign_agreement   of the weights that both changed, the fraction that they moved in the same direction; 0.5 is what
                     chance gives
    pearson_plotted  what the paper's programs plotted, which its equation does not say: Pearson after every change
                     under 30 % of the model's largest in that tensor is set to zero
    """
    return {
        "count": number(t.count),
        **t.total(moments),
        **t.total(signs),
        **{f"plotted_{key}": value for key, value in t.total(plotted).items()},
    }


def _null_finish(sums: Sums, models: Sequence[str], /, *, about: Sequence[Checkpoint] = ()) -> Iterable[Finding]:
    tasks: Mapping[str, str] = {model: one.training.task for model, one in zip(models, about, strict=False)}
    for metric, pair, value in _finish(sums, models):
        first, second = (tasks.get(model, "") for model in pair)
        if first and first == second:
            yield metric, pair, value


@diagnostic(name="null", version="1", finish=_null_finish, totals=(moments, signs, plotted))
def null(t: TensorView, /) -> Sums:
    """What `correlation` gives for two runs of the same task that differ in their seed alone: something to compare the
    correlation of different tasks with. Nothing where the recipe trains no such runs.

    pearson, cosine, sign_agreement, pearson_plotted  as of `correlation`, for pairs of such runs
    """
    found: Sums = correlation.function(t)
    return found
