"""A LoRA adapter as PEFT stores it, added to weights while they are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from .layout import Layout, header

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "base_model.model."
_BY_PEFT = "merge it with PEFT, and give the result"
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


def check_adapter(path: Path, layout: Layout) -> None:
    """Raise CheckpointError unless a directory holds plain LoRA for this model. Reads headers only."""
    _settings(path)
    file = path / "adapter_model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{path}: no adapter_model.safetensors")
    parts = header(file)
    for name, (low, high) in _pairs(path, parts).items():
        wanted = (parts[high].shape[0], parts[low].shape[1])
        shape = layout.tensors[name].shape if name in layout.tensors else None
        if shape != wanted:
            found = f"is {shape}" if shape else "is not there"
            raise CheckpointError(
                f"{path}: changes {name}, {wanted}, which {found}", hint="is it another model's adapter?"
            )


def read_adapter(path: Path) -> Adapter:
    """An adapter that `check_adapter` has found to be one."""
    import torch
    from safetensors.torch import load_file

    settings = _settings(path)
    parts = {key: tensor.to(torch.float32) for key, tensor in load_file(path / "adapter_model.safetensors").items()}
    pairs = _pairs(path, parts)
    low = {name: parts[key] for name, (key, _) in pairs.items()}
    high = {name: parts[key] for name, (_, key) in pairs.items()}
    ranks = {name: len(matrix) for name, matrix in low.items()}
    roots = bool(settings.get("use_rslora"))
    scale = {name: settings["lora_alpha"] / (rank**0.5 if roots else rank) for name, rank in ranks.items()}
    return Adapter(path, low, high, scale)


def _settings(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((path / "adapter_config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: no adapter: {error}", hint="an adapter has adapter_config.json") from None
    refused = [what for key, what in _REFUSED.items() if found.get(key)]
    if found.get("peft_type") != "LORA" or refused or found.get("bias", "none") != "none":
        what = ", ".join(refused) or f"{found.get('peft_type')} with bias {found.get('bias')!r}"
        raise CheckpointError(f"{path}: not a plain LoRA adapter: {what}", hint=_BY_PEFT)
    return found


def _pairs(path: Path, keys: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The keys of A and B by the name of the weight that they change."""
    sides: dict[str, dict[str, str]] = {"A.weight": {}, "B.weight": {}}
    for key in keys:
        module, _, side = key.removeprefix(_PREFIX).rpartition(".lora_")
        if side not in sides:
            raise CheckpointError(f"{path}: no part of plain LoRA: {key}", hint=_BY_PEFT)
        sides[side][f"{module}.weight"] = key
    low, high = sides.values()
    if low.keys() != high.keys():
        raise CheckpointError(f"{path}: A without B, or B without A: {', '.join(sorted(low.keys() ^ high.keys())[:5])}")
    return {name: (low[name], high[name]) for name in low}
