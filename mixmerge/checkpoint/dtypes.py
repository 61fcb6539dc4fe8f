"""safetensors' names for torch's dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype for safetensors' spelling of it."""
    import torch

    dtype: torch.dtype = _dtypes(torch)[name]
    return dtype


def dtype_name(dtype: torch.dtype) -> str:
    """safetensors' spelling of a torch dtype."""
    import torch

    return next(name for name, known in _dtypes(torch).items() if known == dtype)


def _dtypes(torch: Any) -> dict[str, Any]:
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
