"""Weights into a model that is loaded already: how a sweep is scored without a file for each of its points."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from ..errors import CheckpointError
from ..types import Checkpoint
from .reading import Reader
from .stream import Derived, open_checkpoint, workers

if TYPE_CHECKING:
    from torch import Tensor, nn


def pour(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Replace the weights of a loaded model in place, in the model's dtype and on its devices, tensor by tensor.

    Tied parameters are filled once. Raises CheckpointError when a parameter of the model gets no value, or a tensor
    finds no place in the model.
    """
    import torch

    reader = open_checkpoint(checkpoint)
    slots = _slots(model)
    prefix = getattr(model, "base_model_prefix", "")
    filled: set[int] = set()
    unknown: list[str] = []
    with torch.no_grad(), workers(torch.get_num_threads()) as pool:
        for name in reader.names:
            slot = _find(name, slots, prefix)
            if slot is None:
                unknown += [] if _ignorable(name, model) else [name]
                continue
            if slot.shape != (shape := reader.layout.tensors[name].shape):
                raise CheckpointError(f"{checkpoint.name}: {name} is {tuple(shape)}, not {tuple(slot.shape)}")
            for start, rows in _rows(reader, name, pool):
                (slot[start : start + len(rows)] if rows.ndim else slot).copy_(rows)
            filled.add(id(slot))
    missing = [name for name, parameter in model.named_parameters() if id(parameter) not in filled]
    if unknown or missing:
        raise CheckpointError(
            f"{checkpoint.name}: does not fit the loaded {type(model).__name__}"
            + (f"; tensors without a place: {', '.join(unknown[:5])}" if unknown else "")
            + (f"; parameters without a value: {', '.join(missing[:5])}" if missing else ""),
            hint="load the model from the checkpoint's own directory before pouring",
        )


def _rows(reader: Reader, name: str, pool: Executor | None) -> Iterator[tuple[int, Tensor]]:
    if isinstance(reader, Derived):
        for _, start, rows in reader.family.combine(name, pool=pool):
            yield start, rows
        return
    yield 0, reader.get(name)


def _slots(model: nn.Module) -> dict[str, Tensor]:
    slots: dict[str, Tensor] = dict(model.named_buffers(remove_duplicate=False))
    slots.update(model.named_parameters(remove_duplicate=False))
    return slots


def _find(name: str, slots: dict[str, Tensor], prefix: str) -> Tensor | None:
    """A tensor's place in the model; files of GPT-2 and others leave out the prefix that the model has, or add it."""
    for candidate in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")):
        if candidate in slots:
            return slots[candidate]
    return None


def _ignorable(name: str, model: nn.Module) -> bool:
    """Buffers that older files hold and the model computes: causal masks, rotary frequencies."""
    known = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    if any(re.search(pattern, name) for pattern in known):
        return True
    return name.endswith((".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.masked_bias"))
