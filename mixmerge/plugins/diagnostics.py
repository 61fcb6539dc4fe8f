"""The built-in diagnostics: how far the experts moved from the base, and whether they moved the same way.

Each one looks at one tensor at a time, base and deltas (model minus base) in float32, and gives float64 sums that add
up over the tensors of a group; `finish` turns the sums of a group into figures. Big tensors are widened to float64 a
part at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from mixmerge import Component, TensorStack, diagnostic, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

Sums = Mapping[str, "Tensor"]
Finding = tuple[str, tuple[str, ...], float]

_CHUNK_BYTES = 8_000_000  # of float64, for all models together: stays near the processor
_LEAST_VARIANCE = 1e-12  # of the mean square; less is rounding, and a correlation of it noise


def _l2_finish(sums: Sums, models: Sequence[str], /) -> Iterable[Finding]:
    tensors, base = float(sums["tensors"]), float(sums["base_squares"])
    for index, model in enumerate(models):
        if tensors:
            yield "l2_mean", (model,), float(sums["norms"][index]) / tensors
        norm = float(sums["squares"][index]) ** 0.5
        yield "norm", (model,), norm
        if base:
            yield "relative_norm", (model,), norm / base**0.5


@diagnostic(name="l2", version="1", source="arXiv:2601.21115, figures 2 and 4", finish=_l2_finish)
def l2(t: TensorStack, /) -> Sums:
    """How far each model moved from the base.

    l2_mean        mean over the group's weight tensors of the Frobenius norm of the change; biases and other vectors
                   have no part in it, as in the paper's own programs (its text says "mean L2 distance per layer")
    norm           Frobenius norm of the change of the whole group, everything in it
    relative_norm  that, divided by the norm of the base's tensors; left out where the base is zero
    """
    import torch

    squares = torch.zeros(len(t.deltas), dtype=torch.float64)
    base = torch.zeros((), dtype=torch.float64)
    for part, deltas in _parts(t):
        squares += deltas.square().sum(1)
        base += part.square().sum()
    matrix = t.base.ndim > 1
    return {
        "squares": squares,
        "base_squares": base,
        "norms": squares.sqrt() if matrix else torch.zeros_like(squares),
        "tensors": torch.tensor(float(matrix), dtype=torch.float64),
    }


def _correlation_finish(sums: Sums, models: Sequence[str], /) -> Iterable[Finding]:
    count = float(sums["count"])
    if not count:
        return
    products, means = sums["products"], sums["sums"] / count
    squares = products.diagonal()
    variances = squares / count - means.square()
    varies = variances > _LEAST_VARIANCE * squares / count
    for i, j in combinations(range(len(models)), 2):
        pair = (models[i], models[j])
        if varies[i] and varies[j]:
            covariance = products[i, j] / count - means[i] * means[j]
            yield "pearson", pair, _bounded(covariance / (variances[i] * variances[j]).sqrt())
        if squares[i] > 0 and squares[j] > 0:
            yield "cosine", pair, _bounded(products[i, j] / (squares[i] * squares[j]).sqrt())


@diagnostic(name="correlation", version="1", source="arXiv:2601.21115, equation 1", finish=_correlation_finish)
def correlation(t: TensorStack, /) -> Sums:
    """Whether two models moved the same way: one figure for every pair, over all parameters of a group.

    pearson  Pearson correlation of the two changes, in [-1, 1]; left out where a change does not vary
    cosine   the same without subtracting the means; left out where a model did not move

    Deviation: the paper's own programs set every change under 30 % of its tensor's maximum to zero first; its
    equation does not, and neither does this.
    """
    import torch

    products = torch.zeros((len(t.deltas), len(t.deltas)), dtype=torch.float64)
    sums = torch.zeros(len(t.deltas), dtype=torch.float64)
    for _, deltas in _parts(t):
        products.addmm_(deltas, deltas.T)
        sums += deltas.sum(1)
    return {"count": torch.tensor(float(t.base.numel()), dtype=torch.float64), "sums": sums, "products": products}


def _sign_finish(sums: Sums, models: Sequence[str], /) -> Iterable[Finding]:
    for i, j in combinations(range(len(models)), 2):
        if both := float(sums["both"][i, j]):
            yield "sign_agreement", (models[i], models[j]), float(sums["agree"][i, j]) / both


@diagnostic(
    name="sign_agreement", version="1", source="arXiv:2306.01708, section 3 (sign conflicts)", finish=_sign_finish
)
def sign_agreement(t: TensorStack, /) -> Sums:
    """Of the weights that both models of a pair changed, the fraction that they moved in the same direction.

    0.5 is what chance gives; left out where no weight was changed in both.
    """
    import torch

    both = torch.zeros((len(t.deltas), len(t.deltas)), dtype=torch.float64)
    balance = torch.zeros_like(both)
    flat = t.deltas.reshape(len(t.deltas), -1)
    # Counts in float32 are exact below 2**24, which a part stays far under.
    for part in torch.split(flat, max(1, _CHUNK_BYTES // (4 * max(1, len(flat)))), dim=1):
        signs = part.sign()
        balance += signs @ signs.T  # those that agree minus those that do not
        signs.abs_()
        both += signs @ signs.T
    return {"both": both, "agree": (both + balance) / 2}


def _changed_finish(sums: Sums, models: Sequence[str], /) -> Iterable[Finding]:
    if count := float(sums["count"]):
        for index, model in enumerate(models):
            yield "changed", (model,), float(sums["changed"][index]) / count


@diagnostic(name="changed", version="1", finish=_changed_finish)
def changed(t: TensorStack, /) -> Sums:
    """The fraction of weights that differ from the base at all.

    Low values in a bfloat16 checkpoint mean that most of the training was rounded away, and that the other figures
    measure rounding.
    """
    import torch

    counts = [int(torch.count_nonzero(delta)) for delta in t.deltas]
    return {
        "count": torch.tensor(float(t.base.numel()), dtype=torch.float64),
        "changed": torch.tensor(counts, dtype=torch.float64),
    }


def _parts(t: TensorStack) -> Iterator[tuple[Tensor, Tensor]]:
    """(base, deltas) in float64, flattened, a part at a time: (n,) and (models, n)."""
    base, deltas = t.base.flatten(), t.deltas.reshape(len(t.deltas), -1)
    step = max(1, _CHUNK_BYTES // (8 * (len(deltas) + 1)))
    for start in range(0, base.numel(), step):
        yield base[start : start + step].double(), deltas[:, start : start + step].double()


def _bounded(value: Tensor) -> float:
    """Rounding may carry a correlation past its bounds by some 1e-16."""
    return min(1.0, max(-1.0, float(value)))


@hookimpl
def register_diagnostics() -> Sequence[Component]:
    return [l2, correlation, sign_agreement, changed]
