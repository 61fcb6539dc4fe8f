"""How many directions a change of a matrix has, and whether two changes share them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mixmerge import TensorView, diagnostic

from .sums import Finding, Sums

if TYPE_CHECKING:
    from torch import Tensor

_EXACT = 256  # a matrix with no more rows or columns than this has all its singular values computed
_OVERSAMPLE = 8  # directions beyond `rank`: Halko et al. recommend 5 to 10
_FIGURES = ("effective_rank", "effective_rank_least", "stable_rank", "captured", "svd_error")


@dataclass(frozen=True)
class _Svd:
    """The first singular triplets of one change. left (rows, k), values (k,) falling, right (columns, k); `square` is
    the squared Frobenius norm of the change, `residual` that of D V - U S, 0 where the decomposition is exact."""

    left: Tensor
    values: Tensor
    right: Tensor
    square: float
    residual: float = 0.0


def _finish(sums: Sums, models: Sequence[str], /) -> Iterable[Finding]:
    for index, model in enumerate(models):
        if matrices := float(sums["matrices"][index]):
            for metric, value in zip(_FIGURES, sums["figures"][index].tolist(), strict=True):
                yield metric, (model,), value / matrices
    for i, j in combinations(range(len(models)), 2):
        if matrices := float(sums["pairs"][i, j]):
            yield "overlap_out", (models[i], models[j]), float(sums["overlap_out"][i, j]) / matrices
            yield "overlap_in", (models[i], models[j]), float(sums["overlap_in"][i, j]) / matrices


@diagnostic(
    name="spectrum",
    version="2",
    source="randomised SVD: arXiv:0909.4061, algorithms 4.4 and 5.1; effective rank: Roy and Vetterli, EUSIPCO 2007",
    finish=_finish,
)
def spectrum(
    t: TensorView, /, *, rank: Annotated[int, Field(ge=1)] = 16, iterations: Annotated[int, Field(ge=0)] = 2
) -> Sums:
    """How many directions a change has, and whether two changes share them: means over a group's matrices, a matrix
    that did not change left out.

    effective_rank        exponential of the entropy of the singular values divided by their sum: 1 for one direction,
                          the number of rows or columns for a change that has no preferred one. In a matrix of more
                          than 256 rows and columns only the first `rank` values are computed, and what is left of the
                          norm counts as spread evenly over the other directions
    effective_rank_least  the same with what is left in as few directions as possible: the truth lies between the two
    stable_rank           squared Frobenius norm divided by the square of the largest singular value
    captured              share of the squared norm in the first `rank` directions
    svd_error             Frobenius norm of D V - U S for those, divided by that of D: 0 for an exact decomposition
    overlap_out           mean squared cosine between the first `rank` directions of two changes, in the space of
    overlap_in            outputs (rows) and inputs (columns): 1 for the same space, rank / dimension by chance

    rank        how many directions of each change are compared
    iterations  power iterations of the randomised SVD; more cost more passes and make svd_error smaller

    Vectors have no part in it, nor have tensors of more than two dimensions. Six passes over each matrix.
    """
    import torch

    count = len(t.models)
    found = {
        "matrices": torch.zeros(count, dtype=torch.float64),
        "figures": torch.zeros(count, len(_FIGURES), dtype=torch.float64),
        **{key: torch.zeros(count, count, dtype=torch.float64) for key in ("pairs", "overlap_out", "overlap_in")},
    }
    if len(t.shape) != 2 or 0 in t.shape:
        return found
    parts = _exact(t) if min(t.shape) <= _EXACT else _randomised(t, rank + _OVERSAMPLE, iterations)
    moved = {index: one for index, one in enumerate(parts) if one.square > 0}
    for index, one in moved.items():
        found["matrices"][index] = 1
        found["figures"][index] = torch.tensor(_figures(one, rank, min(t.shape)), dtype=torch.float64)
    for i, j in combinations(moved, 2):
        found["pairs"][i, j] = 1
        found["overlap_out"][i, j] = _overlap(moved[i].left, moved[j].left, rank)
        found["overlap_in"][i, j] = _overlap(moved[i].right, moved[j].right, rank)
    return found


def _figures(one: _Svd, rank: int, dimension: int) -> tuple[float, ...]:
    """In the order of `_FIGURES`."""
    first, norm = one.values[:rank], one.square**0.5
    captured = min(1.0, float(first.square().sum()) / one.square)
    residual = one.residual**0.5 / norm
    if len(one.values) == dimension:
        most = least = _effective_rank(one.values.tolist())
    else:
        left, others = one.square * (1 - captured), dimension - len(first)
        most = _effective_rank([*first.tolist(), *[(left / others) ** 0.5] * others])
        whole, last = divmod(left, float(first[-1]) ** 2)
        least = _effective_rank([*first.tolist(), *[float(first[-1])] * int(whole), last**0.5])
    return most, least, one.square / float(first[0]) ** 2, captured, residual


def _effective_rank(values: Sequence[float]) -> float:
    total = math.fsum(values)
    shares = [value / total for value in values if value > 0]
    return math.exp(-math.fsum(share * math.log(share) for share in shares))


def _overlap(one: Tensor, other: Tensor, rank: int) -> float:
    cosines = one[:, :rank].T @ other[:, :rank]
    return float(cosines.square().sum()) / min(rank, one.shape[1])


def _exact(t: TensorView) -> Iterator[_Svd]:
    import torch

    deltas = torch.cat(list(t.rows()), dim=1)
    for delta in deltas:
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        yield _Svd(left, values, right.T, float(values.square().sum()))


def _randomised(t: TensorView, size: int, iterations: int) -> Iterator[_Svd]:
    """Algorithm 4.4 for all models together, so that each pass reads the tensor once."""
    import torch

    rows, columns = t.shape
    size = min(size, rows, columns)
    draws = [torch.randn(columns, size, generator=t.generator(i), dtype=torch.float64) for i in range(len(t.models))]
    range_of = _orthonormal(_times(t, draws))
    for _ in range(iterations):
        range_of = _orthonormal(_times(t, _orthonormal(_times_transposed(t, range_of))))
    small = _times_transposed(t, range_of)  # (columns, size) each: D^T Q
    triplets = []
    for basis, projected in zip(range_of, small, strict=True):
        right, values, left = torch.linalg.svd(projected, full_matrices=False)
        triplets.append((basis @ left.T, values, right))
    squares = [0.0] * len(triplets)
    residuals = [0.0] * len(triplets)
    for start, deltas in _blocks(t):
        for index, ((left, values, right), delta) in enumerate(zip(triplets, deltas, strict=True)):
            missed = delta @ right - left[start : start + len(delta)] * values
            squares[index] += float(delta.square().sum())
            residuals[index] += float(missed.square().sum())
    for (left, values, right), square, residual in zip(triplets, squares, residuals, strict=True):
        yield _Svd(left, values, right, square, residual)


def _times(t: TensorView, right: Sequence[Tensor]) -> list[Tensor]:
    """D X for every change D: (rows, size)."""
    import torch

    found: list[list[Tensor]] = [[] for _ in right]
    for _, deltas in _blocks(t):
        for parts, delta, factor in zip(found, deltas, right, strict=True):
            parts.append(delta @ factor)
    return [torch.cat(parts) for parts in found]


def _times_transposed(t: TensorView, left: Sequence[Tensor]) -> list[Tensor]:
    """D^T X for every change D: (columns, size)."""
    import torch

    found = [torch.zeros(t.shape[1], factor.shape[1], dtype=torch.float64) for factor in left]
    for start, deltas in _blocks(t):
        for total, delta, factor in zip(found, deltas, left, strict=True):
            total.addmm_(delta.T, factor[start : start + len(delta)])
    return found


def _blocks(t: TensorView) -> Iterator[tuple[int, Tensor]]:
    """(first row, deltas of some rows)."""
    start = 0
    for deltas in t.rows():
        yield start, deltas
        start += deltas.shape[1]


def _orthonormal(matrices: Sequence[Tensor]) -> list[Tensor]:
    import torch

    return [torch.linalg.qr(matrix).Q for matrix in matrices]
