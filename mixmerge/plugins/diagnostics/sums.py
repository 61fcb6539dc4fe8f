"""Sums over a part that several diagnostics share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mixmerge import TensorPart

if TYPE_CHECKING:
    from torch import Tensor

Sums = Mapping[str, "Tensor"]
Finding = tuple[str, tuple[str, ...], float]


def number(value: Any) -> Tensor:
    """A float64 scalar."""
    import torch

    return torch.tensor(float(value), dtype=torch.float64)


def moments(part: TensorPart) -> Sums:
    """sums (models,) of the deltas, products (models, models) of every two."""
    return {"sums": part.sums, "products": products(part.deltas)}


def products(deltas: Tensor) -> Tensor:
    """float64 (models, models): the dot product of every two rows.

    Row by row: for a handful of rows that are this long, a matrix product takes three times as long.
    """
    import numpy
    import torch

    rows = deltas.numpy()
    found = numpy.empty((len(rows), len(rows)))
    for i, one in enumerate(rows):
        for j, other in enumerate(rows[: i + 1]):
            found[i, j] = found[j, i] = one @ other
    return torch.from_numpy(found)
