"""Weights one tensor at a time: stored ones as they are on disk, derived ones computed on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import CheckpointError
from ..types import Checkpoint, Derivation, TensorStack
from .dtypes import dtype_name, torch_dtype
from .layout import FLOATS, Layout, TensorInfo, inspect

if TYPE_CHECKING:
    from torch import Tensor


def tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a checkpoint by name, sorted, one in memory at a time.

    Stored: memory-mapped, in the dtype on disk, with every tensor that the files hold. Derived: float32, computed on
    the way, without an output head that is tied to the embeddings; integer tensors are the base's.
    Raises CheckpointError when a directory does not hold, or when a merged tensor is not finite.
    """
    reader = open_checkpoint(checkpoint)
    for name in sorted(reader.layout.tensors) if isinstance(reader, Stored) else reader.names:
        yield name, reader.get(name)


def stacks(
    base: Checkpoint, experts: Sequence[Checkpoint], weights: Sequence[float], seed: int
) -> Iterator[TensorStack]:
    """Every floating-point tensor of the base with the same tensor of each expert, float32, in sorted name order.

    Raises CheckpointError naming tensor and model when a value is not finite.
    """
    inputs = Inputs(base, experts)
    for name in inputs.names:
        if inputs.is_float(name):
            yield inputs.stack(name, weights, seed)


def merged(derivations: Sequence[Derivation]) -> Iterator[tuple[str, list[Tensor]]]:
    """Merge one tensor at a time for every derivation: (name, one float32 tensor per derivation, in their order).

    The derivations must have the same base and experts. Every tensor is read once, `prepare` called once for each
    distinct `prepare_key`, and `merge` once for each derivation. Holds one tensor per expert and derivation.
    """
    family = Family(derivations)
    for name in family.inputs.names:
        found = dict(family.combine(name))
        yield name, [found[index] for index in range(len(derivations))]


class Reader(Protocol):
    """A checkpoint opened for reading by name. `dtype` is what the tensor has when it is written."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def layout(self) -> Layout: ...
    def get(self, name: str) -> Tensor: ...
    def dtype(self, name: str) -> str: ...


def open_checkpoint(checkpoint: Checkpoint) -> Reader:
    return Derived(checkpoint.derivation) if checkpoint.derivation else Stored(checkpoint)


class Stored:
    """A model directory, memory-mapped; file handles stay open as long as this lives."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.layout = inspect(checkpoint.path)
        self.names: Sequence[str] = self.layout.names
        self._files: dict[str, Any] = {}

    def info(self, name: str) -> TensorInfo:
        return self.layout.tensors[name]

    def get(self, name: str) -> Tensor:
        from safetensors import safe_open

        file = str(self.info(name).file)
        if file not in self._files:
            self._files[file] = safe_open(file, framework="pt")
        tensor: Tensor = self._files[file].get_tensor(name)
        return tensor

    def dtype(self, name: str) -> str:
        return self.info(name).dtype


class Inputs:
    """A base and experts opened together, aligned by name."""

    def __init__(self, base: Checkpoint, experts: Sequence[Checkpoint]) -> None:
        self.models = (base, *experts)
        self.base = open_checkpoint(base)
        self.experts = [open_checkpoint(expert) for expert in experts]
        self.names = self.base.names
        for model, reader in zip(experts, self.experts, strict=True):
            self._align(model, reader)
        self._families = [
            (rows, Family([found for row in rows if (found := experts[row].derivation)]))
            for rows in by_family(experts).values()
        ]

    def _align(self, model: Checkpoint, reader: Reader) -> None:
        mine, theirs = set(self.names), set(reader.names)
        shapes = [
            name for name in mine & theirs if self.base.layout.tensors[name].shape != reader.layout.tensors[name].shape
        ]
        if wrong := sorted(mine ^ theirs) or sorted(shapes):
            raise CheckpointError(
                f"{model.name}: not aligned with {self.models[0].name}: {', '.join(wrong[:5])}"
                + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""),
                hint="every expert must be fine-tuned from the same base",
            )

    def is_float(self, name: str) -> bool:
        return self.base.dtype(name) in FLOATS

    def dtype(self, name: str) -> str:
        """The widest dtype among the experts; the base's for what is not floating point."""
        import torch

        if not self.experts or not self.is_float(name):
            return self.base.dtype(name)
        wide = torch_dtype(self.experts[0].dtype(name))
        for expert in self.experts[1:]:
            wide = torch.promote_types(wide, torch_dtype(expert.dtype(name)))
        return dtype_name(wide)

    def stack(self, name: str, weights: Sequence[float], seed: int) -> TensorStack:
        import torch

        base = self.base.get(name).to(torch.float32)
        require_finite(base, name, self.models[0].name)
        deltas = torch.empty((len(self.experts), *base.shape), dtype=torch.float32)
        for row, tensor in self._rows(name):
            torch.sub(tensor.to(torch.float32), base, out=deltas[row])
            require_finite(deltas[row], name, self.models[1 + row].name)
        column = torch.tensor(weights, dtype=torch.float32).reshape(-1, *[1] * base.ndim)
        return TensorStack(name, base, deltas, column, tuple(model.id for model in self.models[1:]), seed)

    def _rows(self, name: str) -> Iterator[tuple[int, Tensor]]:
        """(expert, its tensor), in no particular order; derived experts of one family are computed together."""
        for row, reader in enumerate(self.experts):
            if isinstance(reader, Stored):
                yield row, reader.get(name)
        for rows, family in self._families:
            for position, tensor in family.combine(name):
                yield rows[position], tensor


class Family:
    """Derivations over the same inputs: reads once, prepares once per key, combines once per derivation."""

    def __init__(self, derivations: Sequence[Derivation]) -> None:
        if len({family_key(derivation) for derivation in derivations}) != 1:
            raise ValueError("derivations that are merged together must have the same base and experts")
        self.derivations = derivations
        self.inputs = Inputs(derivations[0].base, derivations[0].experts)
        # Derivations that share a preparation stand together, so that one prepared stack is in memory at a time.
        self._order = sorted(range(len(derivations)), key=lambda index: self._share(index))

    def _share(self, index: int) -> tuple[str, int]:
        derivation = self.derivations[index]
        return derivation.prepare_key if derivation.prepare else "", derivation.seed

    def combine(self, name: str) -> Iterator[tuple[int, Tensor]]:
        """(index of the derivation, its tensor) for one name, grouped by what `prepare` gave; not in index order."""
        import torch

        if not self.inputs.is_float(name):
            yield from ((index, self.inputs.base.get(name)) for index in self._order)
            return
        # NaN weights: a `prepare` that looks at weights must fail at once and not give every point the first one's.
        unknown = [float("nan")] * len(self.inputs.experts)
        plain = self.inputs.stack(name, unknown, 0)
        for (_key, seed), indices in groupby(self._order, key=self._share):
            shared = replace(plain, seed=seed)
            for position, index in enumerate(indices):
                derivation = self.derivations[index]
                if position == 0 and derivation.prepare:
                    shared = shared.with_deltas(_prepare(derivation, shared))
                weights = torch.tensor(derivation.weights, dtype=torch.float32).reshape(plain.weights.shape)
                yield index, _merge(derivation, replace(shared, weights=weights))
            del shared


class Derived:
    """A merge, computed whenever a tensor is asked for."""

    def __init__(self, derivation: Derivation) -> None:
        self._family = Family([derivation])
        self.names = self._family.inputs.names
        self.layout = self._family.inputs.base.layout

    def get(self, name: str) -> Tensor:
        return next(tensor for _, tensor in self._family.combine(name))

    def dtype(self, name: str) -> str:
        return self._family.inputs.dtype(name)


def family_key(derivation: Derivation) -> tuple[str, ...]:
    return (derivation.base.id, str(derivation.base.path), *(expert.id for expert in derivation.experts))


def by_family(checkpoints: Sequence[Checkpoint]) -> dict[tuple[str, ...], list[int]]:
    """The places of the derived checkpoints, by what they are derived from."""
    found: dict[tuple[str, ...], list[int]] = {}
    for index, checkpoint in enumerate(checkpoints):
        if checkpoint.derivation:
            found.setdefault(family_key(checkpoint.derivation), []).append(index)
    return found


def _prepare(derivation: Derivation, stack: TensorStack) -> Tensor:
    assert derivation.prepare is not None
    return _checked(derivation.prepare, stack, stack.deltas.shape, f"the first part of {_method(derivation)}")


def _merge(derivation: Derivation, stack: TensorStack) -> Tensor:
    result = _checked(derivation.merge, stack, stack.base.shape, _method(derivation))
    require_finite(result, stack.name, _method(derivation))
    return result


def _method(derivation: Derivation) -> str:
    return f"merge method {derivation.method or 'without a name'}"


def _checked(function: Callable[[TensorStack], Tensor], stack: TensorStack, shape: Sequence[int], what: str) -> Tensor:
    """Call a part of a merger; other points of a sweep see the same stack, so it must stay as it is."""
    before = (stack.base._version, stack.deltas._version)
    result = function(stack)
    if (stack.base._version, stack.deltas._version) != before:
        raise CheckpointError(f"{what} changed its input in place at {stack.name}", hint="use x * y and not x.mul_(y)")
    if result.shape != shape:
        raise CheckpointError(f"{what} gave shape {tuple(result.shape)} for {stack.name}, not {tuple(shape)}")
    return result


def require_finite(tensor: Tensor, name: str, model: str) -> None:
    """Raise CheckpointError, naming tensor and model, unless every value is finite."""
    import torch

    # One sum is much quicker than a mask; a sum that overflows is looked at again.
    if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
        count = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(
            f"{model}: {count} of {tensor.numel()} values of {name} are NaN or infinite",
            hint="a training run that diverged, a broken file, or weights of a merge that sum to zero",
        )
