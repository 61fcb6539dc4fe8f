"""Whether two models moved the same way, and what two runs of one task give for that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from mixmerge import Checkpoint, TensorPart, TensorView, diagnostic

from .sums import Finding, Sums, number

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_VARIANCE = 1e-12  # of the mean square; less is rounding, and a correlation of it noise
_PLOTTED = 0.3  # of a tensor's largest change: what the paper's programs keep


def moves(part: TensorPart) -> Mapping[str, Any]:
    """(models,) and (models, models), summed over the weights.

    sums, products                  of the deltas, and of every two
    plotted_sums, plotted_products  the same of deltas that are zero where under 30 % of their tensor's largest
    agree, both                     weights that a pair moved in the same direction; that both moved (pairs i < j only)
    """
    import numpy

    from .kernels import alone, together

    base, *models = part.raw
    bounds = (_PLOTTED * part.view.peaks).tolist()
    products, kept, agree, oppose = numpy.zeros((4, len(models), len(models)))
    plotted = numpy.zeros(len(models))
    for i, model in enumerate(models):
        products[i, i], plotted[i], kept[i, i] = alone(base, model, bounds[i])
    for i, j in combinations(range(len(models)), 2):
        pair = together(base, models[i], models[j], bounds[i], bounds[j])
        products[i, j], kept[i, j], agree[i, j], oppose[i, j] = pair
    found = {"sums": part.sums, "products": products, "plotted_sums": plotted, "plotted_products": kept}
    return found | {"agree": agree, "both": agree + oppose}


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
    version="3",
    source="arXiv:2601.21115, equation 1; sign agreement: arXiv:2306.01708, section 3",
    finish=_finish,
    totals=(moves,),
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
    return {"count": number(t.count), **t.total(moves)}


def _null_finish(sums: Sums, models: Sequence[str], /, *, about: Sequence[Checkpoint] = ()) -> Iterable[Finding]:
    tasks: Mapping[str, str] = {model: one.training.task for model, one in zip(models, about, strict=False)}
    for metric, pair, value in _finish(sums, models):
        first, second = (tasks.get(model, "") for model in pair)
        if first and first == second:
            yield metric, pair, value


@diagnostic(name="null", version="1", finish=_null_finish, totals=(moves,))
def null(t: TensorView, /) -> Sums:
    """What `correlation` gives for two runs of the same task that differ in their seed alone: something to compare the
    correlation of different tasks with. Nothing where the recipe trains no such runs.

    pearson, cosine, sign_agreement, pearson_plotted  as of `correlation`, for pairs of such runs
    """
    found: Sums = correlation.function(t)
    return found
