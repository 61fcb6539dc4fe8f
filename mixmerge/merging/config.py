"""What a mergekit configuration says, as values: inputs, slices and settings, looked up for one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import CheckpointError

Scope = Literal["shared", "input", "non_base"]
Scalar = bool | int | float | str


@dataclass(frozen=True)
class Known:
    """One parameter of a mergekit method: whether it belongs to a model, and its default (None: it must be given)."""

    scope: Scope
    default: Any


@dataclass(frozen=True)
class Setting:
    """Values with the filters under which they hold, in order; several values are a gradient."""

    cases: tuple[tuple[str | None, tuple[Scalar, ...]], ...]

    def at(self, tensor: str, t: float) -> Scalar | None:
        """The value for a tensor at `t`, its layer's place in the slice from 0 to 1; None where no filter holds."""
        for wanted, values in self.cases:
            if wanted is None or wanted == "*" or wanted in tensor:
                return _along(values, t)
        return None

    @property
    def varies(self) -> bool:
        """Whether tensors differ in it."""
        return any(wanted not in (None, "*") or len(values) > 1 for wanted, values in self.cases)

    def idle(self, tensors: Iterable[str]) -> list[str]:
        """The filters that hold for no tensor, or for none that an earlier one has left."""
        left, found = list(tensors), []
        for wanted, _ in self.cases:
            every = wanted is None or wanted == "*"
            rest = [name for name in left if not every and str(wanted) not in name]
            if len(rest) == len(left) and not every:
                found.append(str(wanted))
            left = rest
        return found

    def __str__(self) -> str:
        parts = []
        for wanted, values in self.cases:
            text = " → ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
            parts.append(text + (f" where the name has {wanted!r}" if wanted not in (None, "*") else ""))
        return ", else ".join(parts)


def _along(values: tuple[Scalar, ...], t: float) -> Scalar:
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return values[int(t * (len(values) - 1))]
    place = t * (len(values) - 1)
    low = int(place)
    high = min(len(values) - 1, low + 1)
    share = place - low
    return (1 - share) * float(values[low]) + share * float(values[high])


@dataclass(frozen=True)
class Input:
    """One model of a slice: where it is, a LoRA adapter on it or "", the layers taken (None: all), its parameters."""

    model: str
    adapter: str = ""
    layers: tuple[int, int] | None = None
    parameters: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.adapter

    @property
    def name(self) -> str:
        """As mergekit writes it: `MODEL` or `MODEL+ADAPTER`."""
        return f"{self.model}+{self.adapter}" if self.adapter else self.model


@dataclass(frozen=True)
class Slice:
    inputs: tuple[Input, ...]
    parameters: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class MergeFile:
    """A whole configuration; `unsupported` is what only mergekit itself can do, a sentence each."""

    path: Path
    method: str
    slices: tuple[Slice, ...]
    base: Input | None
    parameters: Mapping[str, Setting]
    known: Mapping[str, Known]
    apart: bool
    dtype: str | None
    out_dtype: str | None
    tokenizer: str | None
    chat_template: str | None
    unsupported: tuple[str, ...]

    @property
    def experts(self) -> tuple[Input, ...]:
        """The inputs that are merged, in their order; the base is none where the method sets it apart (`apart`)."""
        inputs = self.slices[0].inputs
        return tuple(one for one in inputs if not (self.apart and self.base and one.key == self.base.key))

    def settings(self) -> Iterator[tuple[str, Setting]]:
        """Every parameter that is given somewhere."""
        yield from self.parameters.items()
        for part in self.slices:
            yield from part.parameters.items()
            for one in part.inputs:
                yield from one.parameters.items()

    def value(self, name: str, part: Slice, model: Input | None, tensor: str, t: float) -> Scalar | None:
        """What a parameter is for one tensor (and model): given, else the default, else None."""
        for settings in (model.parameters if model else {}, part.parameters, self.parameters):
            if name in settings and (found := settings[name].at(tensor, t)) is not None:
                return found
        default: Scalar | None = self.known[name].default
        return default

    def needed(self, name: str, part: Slice, model: Input, tensor: str, t: float) -> Scalar:
        """As `value`, of a model in a slice. CheckpointError where it has none."""
        own = next(other for other in part.inputs if other.key == model.key)
        found = self.value(name, part, own, tensor, t)
        if found is None:
            raise CheckpointError(
                f"{self.path}: {model.model} has no {name!r} for {tensor}",
                hint="end the list with a value that has no filter, which all other tensors take: - value: 0.5",
            )
        return found
