"""Diagnostics in one pass: every tensor is read once for all models and all observers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..types import Checkpoint, Measurement, TensorStack
from .layout import layer_of
from .stream import Inputs

if TYPE_CHECKING:
    from torch import Tensor

Finding = tuple[str, tuple[str, ...], float]
"""(metric, the model or pair of models it is about, value)."""


@dataclass(frozen=True)
class Observer:
    """A diagnostic with its parameters bound: `observe` gives statistics that add up over tensors, `finish` turns
    their sums over one group of tensors into findings."""

    name: str
    observe: Callable[[TensorStack], Mapping[str, Tensor]]
    finish: Callable[[Mapping[str, Tensor], Sequence[str]], Iterable[Finding]]


def measure(
    base: Checkpoint, models: Sequence[Checkpoint], observers: Sequence[Observer], seed: int = 0
) -> list[Measurement]:
    """What every observer finds about `models` against `base`, for each group of tensors: each layer ("layer 3"),
    "embeddings", "head", "norm", "other", "layers" (all layers, without embeddings, head and final norm) and "all".

    One pass: holds one tensor of the base and of every model in float32.
    """
    sums: dict[str, dict[str, dict[str, Tensor]]] = {observer.name: {} for observer in observers}
    inputs = Inputs(base, models)
    for name in inputs.names:
        if not inputs.is_float(name):
            continue
        stack = inputs.stack(name, [1.0] * len(models), seed)
        for observer in observers:
            _add(sums[observer.name], _groups(name), observer.observe(stack))
        del stack
    names = [model.name for model in models]
    return [
        Measurement(observer.name, metric, group, about, value)
        for observer in observers
        for group, statistics in sorted(sums[observer.name].items(), key=lambda item: _place(item[0]))
        for metric, about, value in observer.finish(statistics, names)
    ]


def _groups(name: str) -> tuple[str, ...]:
    layer = layer_of(name)
    return (layer, "layers", "all") if layer.startswith("layer ") else (layer, "all")


def _add(sums: dict[str, dict[str, Tensor]], groups: Iterable[str], statistics: Mapping[str, Tensor]) -> None:
    for group in groups:
        total = sums.setdefault(group, {})
        for key, value in statistics.items():
            total[key] = total[key] + value if key in total else value


def _place(group: str) -> tuple[int, int]:
    """Layers by number, then the rest in a fixed order."""
    if group.startswith("layer "):
        return (0, int(group.removeprefix("layer ")))
    return (1, ("embeddings", "norm", "head", "other", "layers", "all").index(group))
