"""safetensors' names for torch's dtypes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype for safetensors' spelling of it."""
    return _dtypes()[name]


def dtype_name(dtype: torch.dtype) -> str:
    """safetensors' spelling of a torch dtype."""
    return next(name for name, known in _dtypes().items() if known == dtype)


@cache
def _dtypes() -> dict[str, torch.dtype]:
    import torch

    return {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
