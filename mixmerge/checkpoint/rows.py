"""Rows of one tensor of base and experts: read, made float32 and subtracted only when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from ..types import TensorStack
from .finite import require_finite

if TYPE_CHECKING:
    from torch import Tensor


class Source(Protocol):
    """Base and experts, aligned: `rows` gives some rows of one of them as they are stored; number 0 is the base."""

    @property
    def ids(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def stored_bytes(self, name: str) -> int: ...
    def rows(self, model: int, name: str, start: int = 0, stop: int | None = None) -> Tensor: ...


class Rows(Sequence["Tensor"]):
    """Some rows of base and experts as they are stored; each is read, and searched for NaN, when it is asked for."""

    def __init__(self, source: Source, name: str, start: int, stop: int | None) -> None:
        self._source, self._name, self._start, self._stop = source, name, start, stop
        self._read: dict[int, Tensor] = {}
        self._versions: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._source.labels)

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Tensor, ...]: ...
    def __getitem__(self, place: int | slice) -> Tensor | tuple[Tensor, ...]:
        if isinstance(place, slice):
            return tuple(self[index] for index in range(len(self))[place])
        index = range(len(self))[place]
        if index not in self._read:
            rows = self._source.rows(index, self._name, self._start, self._stop)
            require_finite(rows, self._name, self._source.labels[index])
            self._read[index], self._versions[index] = rows, rows._version
        return self._read[index]

    @property
    def intact(self) -> bool:
        """Whether nobody has changed in place what was read."""
        return all(self._read[index]._version == version for index, version in self._versions.items())


class Floats:
    """What is stored, in float32, computed when it is asked for; every view of a part shares it."""

    def __init__(self, stored: Rows) -> None:
        self.stored = stored
        self._made: list[tuple[Tensor, int]] = []

    @cached_property
    def base(self) -> Tensor:
        import torch

        return self._noted(self.stored[0].to(torch.float32))

    @cached_property
    def deltas(self) -> Tensor:
        """Experts minus base: (experts, *shape)."""
        import torch

        from .kernels import difference, raw

        found = torch.empty((len(self.stored) - 1, *self.stored[0].shape), dtype=torch.float32)
        origin = raw(self.stored[0])
        for row, expert in zip(found, self.stored[1:], strict=True):
            difference(origin, raw(expert), row.reshape(-1).numpy())
        return self._noted(found)

    def _noted(self, tensor: Tensor) -> Tensor:
        self._made.append((tensor, tensor._version))
        return tensor

    @property
    def intact(self) -> bool:
        return self.stored.intact and all(tensor._version == version for tensor, version in self._made)


class Part(TensorStack):
    """A stack whose base and deltas are computed when they are first asked for."""

    floats: Floats

    def __getattr__(self, name: str) -> Any:
        if name in ("base", "deltas"):
            return getattr(self.floats, name)
        raise AttributeError(name)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.__dict__["rows_shape"])

    @property
    def expert_weights(self) -> tuple[Tensor, ...]:
        return super().expert_weights if "deltas" in self.__dict__ else tuple(self.stored[1:])

    @property
    def operands(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        return super().operands if "deltas" in self.__dict__ else (self.stored[0], tuple(self.stored[1:]))


@lru_cache
def no_weights(experts: int, dimensions: int) -> Tensor:
    """NaN weights: what looks at weights where it may not must fail at once, and not give every point the first's."""
    import torch

    return torch.full((experts, *[1] * dimensions), float("nan"))


def part(source: Source, name: str, stored: Rows, start: int, whole: bool, shape: Sequence[int]) -> Part:
    """Rows of one tensor from `start` on, of this shape, their weights unknown (NaN)."""
    found = object.__new__(Part)
    found.__dict__.update(
        name=name,
        weights=no_weights(len(stored) - 1, len(shape)),
        experts=source.ids,
        start=start,
        whole=whole,
        stored=stored,
        floats=Floats(stored),
        rows_shape=shape,
    )
    return found


Stack = TypeVar("Stack", bound=TensorStack)


def changed(stack: Stack, **fields: Any) -> Stack:
    """`dataclasses.replace`, ten times as quickly: it is called for every part and point."""
    found = object.__new__(type(stack))
    found.__dict__.update(stack.__dict__, **fields)
    return found
