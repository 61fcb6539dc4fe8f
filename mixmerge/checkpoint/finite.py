"""NaN and infinity are never let through."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def require_finite(tensor: Tensor, name: str, model: str) -> None:
    """Raise CheckpointError, naming tensor and model, unless every value is finite."""
    from .kernels import all_bits_somewhere

    form = _form(tensor.dtype)
    if form is None:  # whole numbers
        return
    kind, exponent = form
    if all_bits_somewhere(tensor.detach().view(kind).numpy().reshape(-1), exponent):
        count = int((~tensor.isfinite()).sum())
        raise CheckpointError(
            f"{model}: {count} of {tensor.numel()} values of {name} are NaN or infinite",
            hint="a training run that diverged, a broken file, weights of a merge that sum to zero, or values over "
            "65,504 in float16",
        )


@cache
def _form(dtype: torch.dtype) -> tuple[torch.dtype, Any] | None:
    """Whole numbers of a float's width, and the bits that are all set in infinity and NaN and in nothing else."""
    import numpy as np
    import torch

    return {
        torch.bfloat16: (torch.int16, np.int16(0x7F80)),
        torch.float16: (torch.int16, np.int16(0x7C00)),
        torch.float32: (torch.int32, np.int32(0x7F800000)),
        torch.float64: (torch.int64, np.int64(0x7FF << 52)),
    }.get(dtype)
