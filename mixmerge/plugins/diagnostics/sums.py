"""What the diagnostics share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Sums = Mapping[str, "Tensor"]
Finding = tuple[str, tuple[str, ...], float]


def number(value: Any) -> Tensor:
    """A float64 scalar."""
    import torch

    return torch.tensor(float(value), dtype=torch.float64)
