"""NaN and infinity are never let through."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


def require_finite(tensor: Tensor, name: str, model: str) -> None:
    """Raise CheckpointError, naming tensor and model, unless every value is finite."""
    import torch

    # One sum is much quicker than a mask; a sum that overflows is looked at again.
    if not math.isfinite(float(tensor.sum())) and not torch.isfinite(tensor).all():
        count = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(
            f"{model}: {count} of {tensor.numel()} values of {name} are NaN or infinite",
            hint="a training run that diverged, a broken file, or weights of a merge that sum to zero",
        )
