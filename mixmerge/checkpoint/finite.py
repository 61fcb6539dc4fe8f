"""NaN and infinity are never let through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


_EXPONENT = {"bfloat16": 0x7F80, "float16": 0x7C00, "float32": 0x7F800000, "float64": 0x7FF0 << 48}


def require_finite(tensor: Tensor, name: str, model: str) -> None:
    """Raise CheckpointError, naming tensor and model, unless every value is finite."""
    import torch

    from .kernels import all_bits_somewhere

    exponent = _EXPONENT.get(str(tensor.dtype).removeprefix("torch."))
    if exponent is None:  # a whole number
        return
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    bits = tensor.contiguous().reshape(-1).view(width).numpy()
    if all_bits_somewhere(bits, bits.dtype.type(exponent)):
        count = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(
            f"{model}: {count} of {tensor.numel()} values of {name} are NaN or infinite",
            hint="a training run that diverged, a broken file, or weights of a merge that sum to zero",
        )
