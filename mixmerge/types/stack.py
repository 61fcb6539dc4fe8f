"""The tensors that mergers and diagnostics see."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import CheckpointError, PluginError

if TYPE_CHECKING:
    import torch


Statistic = Callable[["TensorStack"], Any]
"""A function of a stack: defined once at module level, or a `functools.partial` of such a function, so that two parts
of a sweep that ask for the same can be told to."""

Extent = Literal["part", "tensor", "model"]


class Surroundings(Protocol):
    """What lies around a part of a tensor; mixmerge gives it, and `TensorStack` asks it."""

    def total(self, statistic: Statistic, over: Extent, before: bool) -> torch.Tensor: ...
    def once(self, function: Statistic, stack: TensorStack, per: Extent) -> Any: ...


@dataclass(frozen=True)
class TensorStack:
    """One tensor of the base with the same tensor of every expert, as mergers and diagnostics see it; for functions
    that are `@rowwise`, some rows of it.

    name      the tensor's name in the checkpoint
    base      float32 (*shape)
    deltas    float32 (experts, *shape): expert minus base
    weights   float32 (experts, 1, …), broadcastable against `deltas`
    experts   the experts' ids, in the order of `deltas`
    seed      of the step; `draws(i)` and `generator(i)` depend on it, on i and on `name`, on nothing else
    start     index along the first dimension of the first row that is here; 0 when the whole tensor is
    whole     whether the whole tensor is here
    stored    base and experts as they lie on disk, before they became float32 (empty where there is no disk); read when
              it is asked for, so that a method that needs no base reads none
    dtype     what the result is stored in ("bfloat16"): a merger may round to it itself, or leave it in float32
    rowwise   whether the function that has this is `@rowwise`
    """

    name: str
    base: torch.Tensor
    deltas: torch.Tensor
    weights: torch.Tensor
    experts: tuple[str, ...]
    seed: int = 0
    start: int = 0
    whole: bool = True
    stored: Sequence[torch.Tensor] = ()
    dtype: str = "float32"
    rowwise: bool = False
    around: Surroundings | None = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of `base`, and of each of `deltas`."""
        return tuple(self.base.shape)

    @property
    def expert_weights(self) -> tuple[torch.Tensor, ...]:
        """The experts themselves, (*shape) each: as they are stored where `deltas` are theirs, in the dtype that they
        have there; otherwise base + deltas in float32."""
        return tuple(self.base + delta for delta in self.deltas)

    @property
    def operands(self) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """(origin, models), (*shape) each: models[i] - origin, taken in float32, is deltas[i].

        Base and experts as they are stored, so that a loop which subtracts as it goes needs no deltas made; zeros and
        `deltas` where these are not what is stored.
        """
        import torch

        return torch.zeros(self.shape), tuple(self.deltas)

    def generator(self, expert: int) -> torch.Generator:
        """A CPU random generator for one expert's part of this tensor: the same in any order, thread or machine.

        Not in a function that is `@rowwise`, where `draws` and `chosen` take its place.
        """
        import torch

        if self.rowwise or not self.whole:
            hint = "use t.draws(i) or t.chosen(i, probability)"
            raise PluginError(f"t.generator in a function that is rowwise, at {self.name}", hint=hint)
        return torch.Generator().manual_seed(int.from_bytes(self._digest(expert)[:8], "big") >> 1)

    def draws(self, expert: int) -> torch.Tensor:
        """uint16 (*shape): a number from 0 to 65535 for every element, all equally likely.

        Comes from a counter (`mixmerge.compiled.draws`), so that an element gets the same number however its tensor is
        cut into parts.
        """
        import torch

        from ..compiled import draws

        width = math.prod(self.shape[1:])
        found = draws(self._digest(expert)[:16], self.start * width, math.prod(self.shape))
        return torch.from_numpy(found).reshape(self.shape)

    def chosen(self, expert: int, probability: float) -> torch.Tensor:
        """bool (*shape): every element is true with `probability`, taken to the nearest multiple of 1/65536."""
        import torch

        limit = round(probability * 65536)
        if not 0 < limit < 65536:
            return torch.full(self.shape, limit > 0, dtype=torch.bool)
        return torch.from_numpy(self.draws(expert).reshape(-1).numpy() < limit).reshape(self.shape)

    def total(self, statistic: Statistic, over: Extent = "tensor") -> torch.Tensor:
        """The sum of `statistic(part)` over all parts of this tensor, or of the model's; computed once for a sweep.

        A statistic gives a tensor of any shape and may not look at the weights. Where the whole tensor is here it is
        `statistic(self)`.
        """
        if self.around:
            return self.around.total(statistic, over, before=False)
        self._alone(over)
        found: torch.Tensor = statistic(self)
        return found

    def before(self, statistic: Statistic, over: Extent = "tensor") -> torch.Tensor:
        """The sum of `statistic(part)` over the parts that come before this one; tensors come in sorted order."""
        if self.around:
            return self.around.total(statistic, over, before=True)
        self._alone(over)
        found: torch.Tensor = statistic(self)
        return found - found

    def once(self, function: Statistic, per: Extent = "part") -> Any:
        """`function(self)`, computed once for this part (or tensor, or model) whichever point of a sweep asks first.

        What it gives for a part is kept while the part is worked on; bool tensors are kept, one bit for each value,
        until the tensor is done, so that a mask that a total needed is not drawn again.
        """
        return self.around.once(function, self, per) if self.around else function(self)

    def with_deltas(self, deltas: torch.Tensor) -> TensorStack:
        """The same stack with other deltas of the same shape; it no longer knows what lies around it."""
        return replace(self, deltas=deltas, stored=(), around=None)

    def _digest(self, expert: int) -> bytes:
        return hashlib.sha256(f"{self.seed}/{expert}/{self.name}".encode()).digest()

    def _alone(self, over: Extent) -> None:
        if over == "model" or not self.whole:
            raise CheckpointError(
                f"{self.name}: a total over the {over} needs all of it", hint="ask the stack as it came"
            )
