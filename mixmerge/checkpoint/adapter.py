"""A LoRA adapter as PEFT stores it, added to weights while they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "base_model.model."
_REFUSED = {  # settings whose meaning is more than W + scale · B A
    "use_dora": "DoRA",
    "modules_to_save": "modules saved whole",
    "alpha_pattern": "an alpha for each module",
    "fan_in_fan_out": "transposed weights",
    "layer_replication": "replicated layers",
}


@dataclass(frozen=True)
class Adapter:
    """`low` and `high` are A, float32 (rank, in), and B, float32 (out, rank), by the name of the weight they change."""

    path: Path
    low: Mapping[str, Tensor]
    high: Mapping[str, Tensor]
    scale: Mapping[str, float]

    def applied(self, name: str, rows: Tensor, start: int) -> Tensor:
        """`rows` of a weight from `start` on, float32, with the adapter's part added: (rows, in)."""
        import torch

        if name not in self.low:
            return rows
        high = self.high[name][start : start + len(rows)]
        return torch.addmm(rows.to(torch.float32), high, self.low[name], alpha=self.scale[name])


def read_adapter(path: Path) -> Adapter:
    """Raises CheckpointError for an adapter that is not there or is more than plain LoRA."""
    import torch
    from safetensors.torch import load_file

    try:
        config = json.loads((path / "adapter_config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: no adapter: {error}", hint="an adapter has adapter_config.json") from None
    refused = [what for key, what in _REFUSED.items() if config.get(key)]
    if config.get("peft_type") != "LORA" or refused or config.get("bias", "none") != "none":
        what = ", ".join(refused) or f"{config.get('peft_type')} with bias {config.get('bias')!r}"
        raise CheckpointError(
            f"{path}: not a plain LoRA adapter: {what}", hint="merge it with PEFT, and give the result"
        )
    if not (path / "adapter_model.safetensors").is_file():
        raise CheckpointError(f"{path}: no adapter_model.safetensors")
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}
    scale: dict[str, float] = {}
    for key, tensor in load_file(path / "adapter_model.safetensors").items():
        module, _, side = key.removeprefix(_PREFIX).rpartition(".lora_")
        if side not in ("A.weight", "B.weight"):
            raise CheckpointError(
                f"{path}: no part of plain LoRA: {key}", hint="merge it with PEFT, and give the result"
            )
        (low if side == "A.weight" else high)[f"{module}.weight"] = tensor.to(torch.float32)
    if low.keys() != high.keys():
        raise CheckpointError(f"{path}: A without B, or B without A: {', '.join(sorted(low.keys() ^ high.keys())[:5])}")
    for name, matrix in low.items():
        rank = len(matrix)
        scale[name] = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    return Adapter(path, low, high, scale)


def require_place(adapter: Adapter, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError unless every weight that the adapter changes is there, in its shape."""
    for name, low in adapter.low.items():
        wanted = (len(adapter.high[name]), low.shape[1])
        if shapes.get(name) != wanted:
            found = f"is {shapes[name]}" if name in shapes else "is not there"
            raise CheckpointError(
                f"{adapter.path}: changes {name}, {wanted}, which {found}", hint="is it another model's adapter?"
            )
