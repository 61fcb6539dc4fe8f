"""A LoRA adapter as PEFT stores it, added to weights while they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from .layout import Layout, header

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "base_model.model."
_BY_PEFT = "merge it with PEFT (merge_and_unload), and give the model that comes of it"
_LAYOUT = "an adapter, as PEFT saves it, is adapter_config.json and adapter_model.safetensors"
_KNOWN = (  # settings of plain LoRA, W + scale · B A, and those that only training looks at
    *("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "bias", "init_lora_weights"),
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout", "eva_config"),
    *("loftq_config", "megatron_config", "megatron_core", "qalora_group_size", "ensure_weight_tying", "runtime_config"),
)
_REFUSED = {
    "use_dora": "DoRA",
    "modules_to_save": "modules saved whole",
    "fan_in_fan_out": "transposed weights",
    "layer_replication": "replicated layers",
    "alora_invocation_tokens": "activated LoRA",
}
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Initialisations that leave the base as it is. PiSSA, OLoRA, CorDA and LoftQ train on another base, from which a part
was taken."""


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
    settings = _settings(path)
    file = path / "adapter_model.safetensors"
    if not file.is_file():
        hint = "load it with PEFT and save it again: model.save_pretrained(DIRECTORY)"
        raise CheckpointError(f"{path}: no adapter_model.safetensors", hint=hint)
    parts = header(file)
    for name, (low, high) in _pairs(path, parts).items():
        rank, wanted = parts[low].shape[0], (parts[high].shape[0], parts[low].shape[1])
        shape = layout.tensors[name].shape if name in layout.tensors else None
        if shape != wanted:
            found = f"is {shape}" if shape else "is not there"
            raise CheckpointError(
                f"{path}: changes {name}, {wanted}, which {found}", hint="is it another model's adapter?"
            )
        stated = _of(settings, "rank_pattern", "r", name)
        if {rank, parts[high].shape[1]} != {stated}:
            what = f"{path}: {name} has rank {rank}, and adapter_config.json says {stated}"
            raise CheckpointError(what, hint="are both files of one adapter?")


def read_adapter(path: Path) -> Adapter:
    """An adapter that `check_adapter` has found to be one. Raises CheckpointError where a value is not finite."""
    import torch
    from safetensors.torch import load_file

    settings = _settings(path)
    parts = {key: tensor.to(torch.float32) for key, tensor in load_file(path / "adapter_model.safetensors").items()}
    if wrong := [key for key, tensor in parts.items() if not bool(torch.isfinite(tensor).all())]:
        raise CheckpointError(f"{path}: {wrong[0]} has values that are not finite", hint="did its training diverge?")
    pairs = _pairs(path, parts)
    low = {name: parts[key] for name, (key, _) in pairs.items()}
    high = {name: parts[key] for name, (_, key) in pairs.items()}
    scale = {}
    for name, matrix in low.items():
        divisor = len(matrix) ** 0.5 if settings.get("use_rslora") else len(matrix)
        scale[name] = _of(settings, "alpha_pattern", "lora_alpha", name) / divisor
    return Adapter(path, low, high, scale)


def _of(settings: Mapping[str, Any], pattern: str, key: str, name: str) -> float:
    """A setting for one weight: of the first pattern that fits the end of its module's name, as PEFT looks it up."""
    module = name.removesuffix(".weight")
    own = settings.get(pattern) or {}
    return float(next((own[part] for part in own if re.match(rf"(.*\.)?({part})$", module)), settings[key]))


def _settings(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((path / "adapter_config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        what = "is not there" if isinstance(error, OSError) else f"is no JSON: {error}"
        raise CheckpointError(f"{path}: no LoRA adapter: adapter_config.json {what}", hint=_LAYOUT) from None
    refused = [_REFUSED.get(key, f"{key} {value!r}") for key, value in found.items() if value and key not in _KNOWN]
    if (start := found.get("init_lora_weights")) not in _STARTS:
        refused.append(f"init_lora_weights {start!r}, whose base is not the model's own")
    if found.get("bias", "none") != "none":
        refused.append(f"bias {found['bias']!r}")
    if found.get("peft_type") != "LORA":
        refused = [f"peft_type {found.get('peft_type')!r}"]
    if refused or not {"r", "lora_alpha"} <= found.keys():
        what = ", ".join(refused) or "adapter_config.json has no r, or no lora_alpha"
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
        raise CheckpointError(
            f"{path}: A without B, or B without A: {', '.join(sorted(low.keys() ^ high.keys())[:5])}", hint=_LAYOUT
        )
    return {name: (low[name], high[name]) for name in low}
