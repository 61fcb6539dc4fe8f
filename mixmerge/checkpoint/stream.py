"""Weights one tensor at a time: stored ones as they are on disk, derived ones computed on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..types import Checkpoint, Derivation, Statistic, TensorStack
from .dtypes import dtype_name, torch_dtype
from .finite import require_finite
from .layout import FLOATS, require_same_tensors
from .parts import PREFIXED, Around, View, Work, call, cut, identity, is_rowwise
from .reading import Reader, Stored
from .rows import Floats, Rows, changed

if TYPE_CHECKING:
    from torch import Tensor


def tensors(checkpoint: Checkpoint, *, rounded: bool = True) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a checkpoint by name, sorted, one in memory at a time.

    Stored: in the dtype on disk, with every tensor that the files hold. Derived: computed on the way, without an output
    head that is tied to the embeddings, and rounded to the dtype in which it is written, the widest of the experts', or
    else in float32; integer tensors are the base's.
    Raises CheckpointError when a directory does not hold, or when a merged tensor is not finite.
    """
    reader = open_checkpoint(checkpoint)
    for name in sorted(reader.layout.tensors) if isinstance(reader, Stored) else reader.names:
        found = reader.get(name)
        yield name, found.to(torch_dtype(reader.dtype(name))) if rounded else found


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


def merged(derivations: Sequence[Derivation], *, rounded: bool = True) -> Iterator[tuple[str, list[Tensor]]]:
    """Merge one tensor at a time for every derivation: (name, one tensor per derivation, in their order), rounded or in
    float32 as by `tensors`.

    The derivations must have the same base and experts. Every tensor is read once, `prepare` called once for each
    distinct `prepare_key` and seed, and `merge` once for each derivation; what is `@rowwise` is called part by part.
    Holds one tensor per expert and derivation.
    """
    family = Family(derivations)
    for name in family.inputs.names:
        found, dtype = family.get(name), torch_dtype(family.inputs.dtype(name))
        yield name, [found[index].to(dtype) if rounded else found[index] for index in range(len(derivations))]


def names(checkpoint: Checkpoint) -> Sequence[str]:
    """The names of the tensors that a merge with this checkpoint would have, sorted; reads headers only."""
    return open_checkpoint(checkpoint).names


def open_checkpoint(checkpoint: Checkpoint) -> Reader:
    return open_all([checkpoint])[0]


def open_all(checkpoints: Sequence[Checkpoint]) -> list[Reader]:
    """The merges of one family share the inputs that they read."""
    found: dict[int, Reader] = {}
    for index, checkpoint in enumerate(checkpoints):
        if checkpoint.derivation is None:
            found[index] = Stored(checkpoint)
    for members in by_family(checkpoints).values():
        derivations = [one for index in members if (one := checkpoints[index].derivation)]
        inputs = Inputs(derivations[0].base, derivations[0].experts)
        found.update({i: Derived(one, inputs) for i, one in zip(members, derivations, strict=True)})
    return [found[index] for index in range(len(checkpoints))]


@contextmanager
def workers(count: int) -> Iterator[Executor | None]:
    """`count` threads that each work on a part; within one, torch works alone. None when there is but one."""
    import torch

    # glibc gives blocks of some 100 kB back to the kernel as soon as they are freed, and faults them in again for the
    # next part, until it has seen a larger one freed: up to that size (32 MiB at most) it then keeps them.
    torch.empty(31 << 20, dtype=torch.uint8)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if count < 2:
            yield None
            return
        with ThreadPoolExecutor(count, "mixmerge-part") as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


class Inputs:
    """A base and experts opened together, aligned by name.

    ids     the experts' ids
    labels  the names of base and experts
    """

    def __init__(self, base: Checkpoint, experts: Sequence[Checkpoint]) -> None:
        self.ids = tuple(expert.id for expert in experts)
        self.labels = tuple(model.name for model in (base, *experts))
        self.base = open_checkpoint(base)
        self.experts = [open_checkpoint(expert) for expert in experts]
        self.names = self.base.names
        for model, reader in zip(experts, self.experts, strict=True):
            require_same_tensors(base.name, self.base.layout, model.name, reader.layout)
        self._families = [
            (rows, Family([found for row in rows if (found := experts[row].derivation)]))
            for rows in by_family(experts).values()
        ]
        self._computed: tuple[str, dict[int, Tensor]] = ("", {})

    def is_float(self, name: str) -> bool:
        return self.base.dtype(name) in FLOATS

    def shape(self, name: str) -> tuple[int, ...]:
        return self.base.layout.tensors[name].shape

    def dtype(self, name: str) -> str:
        """The widest dtype among the experts; the base's for what is not floating point."""
        import torch

        if not self.experts or not self.is_float(name):
            return self.base.dtype(name)
        wide = torch_dtype(self.experts[0].dtype(name))
        for expert in self.experts[1:]:
            wide = torch.promote_types(wide, torch_dtype(expert.dtype(name)))
        return dtype_name(wide)

    def stored_bytes(self, name: str) -> int:
        return sum(reader.layout.tensors[name].bytes for reader in (self.base, *self.experts))

    def rows(self, model: int, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Some rows of the base (model 0) or of an expert, in the dtype that they are stored in."""
        if model == 0:
            return self.base.get(name, start, stop)
        computed = self._merges(name)
        if model - 1 in computed:
            return computed[model - 1][start:stop]
        return self.experts[model - 1].get(name, start, stop)

    def stack(self, name: str, weights: Sequence[float], seed: int) -> TensorStack:
        """A whole tensor."""
        import torch

        stored = Rows(self, name, 0, None)
        floats = Floats(stored)
        column = torch.tensor(weights, dtype=torch.float32).reshape(-1, *[1] * len(self.shape(name)))
        return TensorStack(name, floats.base, floats.deltas, column, self.ids, seed, stored=stored)

    def _merges(self, name: str) -> dict[int, Tensor]:
        """Experts that are merges themselves; those of one family are computed together, and one tensor is kept."""
        if self._families and self._computed[0] != name:
            found = {rows[at]: one for rows, family in self._families for at, one in family.get(name).items()}
            self._computed = (name, found)
        return self._computed[1]


class Family:
    """Derivations over the same inputs: reads once, prepares once per key, combines once per derivation."""

    def __init__(self, derivations: Sequence[Derivation], inputs: Inputs | None = None) -> None:
        if len({family_key(derivation) for derivation in derivations}) != 1:
            raise ValueError("derivations that are merged together must have the same base and experts")
        self.derivations = derivations
        self.inputs = inputs or Inputs(derivations[0].base, derivations[0].experts)
        self._model = _Model(self.inputs)
        self._columns: dict[tuple[tuple[float, ...], int], Tensor] = {}

    def get(self, name: str) -> dict[int, Tensor]:
        """One whole tensor of every derivation, float32."""
        import torch

        found: dict[int, Tensor] = {}
        for index, start, rows in self.combine(name):
            shape = self.inputs.shape(name)
            if rows.shape == shape:
                found[index] = rows
                continue
            if index not in found:
                found[index] = torch.empty(shape, dtype=rows.dtype)
            found[index][start : start + len(rows)] = rows
        return found

    def combine(
        self, name: str, dtypes: Sequence[str] | None = None, pool: Executor | None = None
    ) -> Iterator[tuple[int, int, Tensor]]:
        """(index of the derivation, first row, rows) for one name: part after part, for each every derivation.

        `dtypes`: what the rows of each are rounded to, once ("bfloat16"; all float32 without). For a tensor whose
        merge or preparation is not rowwise, the parts are one, or come once for each preparation.
        """
        if not self.inputs.is_float(name):
            copied = self.inputs.base.get(name)
            yield from ((index, 0, copied) for index in range(len(self.derivations)))
            return
        dtypes = dtypes or ["float32"] * len(self.derivations)
        points = [found.vary(name) if found.vary else found for found in self.derivations]
        cuts = cut(self.inputs.shape(name))
        for rowwise, views in _loops(points):
            own = cuts if rowwise else [(0, cuts[-1][1])]
            work = Work(self.inputs, name, self._model, pool, own)
            for part, (index, rows) in work.each(partial(self._points, work, points, views, dtypes)):
                yield index, own[part][0], rows

    def _points(
        self,
        work: Work,
        points: Sequence[Derivation],
        views: Sequence[tuple[View, Sequence[int]]],
        dtypes: Sequence[str],
        part: int,
    ) -> Iterator[tuple[int, Tensor]]:
        import torch

        for view, indices in views:
            prepared = work.stack(part, view)
            for index in indices:
                point, dtype = points[index], dtypes[index]
                column = self._column(point.weights, len(prepared.shape))
                around = Around(work, view.of(_method(point)), part)  # errors name this point's method
                rowwise = is_rowwise(point.merge)
                given = changed(prepared, weights=column, dtype=dtype, around=around, rowwise=rowwise)
                result = call(point.merge, given, prepared.shape, _method(point))
                result = result.detach().to(getattr(torch, dtype))
                require_finite(result, prepared.name, _method(point))
                yield index, result
            del prepared
        work.leave(part, done=True)

    def _column(self, weights: tuple[float, ...], dimensions: int) -> Tensor:
        """As a stack has them; made once, since most tensors have two dimensions."""
        import torch

        if (weights, dimensions) not in self._columns:
            column = torch.tensor(weights, dtype=torch.float32).reshape(-1, *[1] * dimensions)
            self._columns[weights, dimensions] = column
        return self._columns[weights, dimensions]


class _Model:
    """Totals over all tensors of a model."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._totals: dict[Any, tuple[Tensor, dict[str, Tensor]]] = {}
        self._once: dict[Any, Any] = {}

    def total(self, view: View, statistic: Statistic, before: str | None) -> Tensor:
        key = (view, identity(statistic))
        if key not in self._totals:
            self._totals[key] = self._survey(view, statistic)
        total, prefixes = self._totals[key]
        return total if before is None else prefixes[before]

    def once(self, view: View, function: Statistic, stack: TensorStack) -> Any:
        key = (view, identity(function))
        if key not in self._once:
            self._once[key] = function(changed(stack, weights=stack.weights * float("nan")))
        return self._once[key]

    def _survey(self, view: View, statistic: Statistic) -> tuple[Tensor, dict[str, Tensor]]:
        total: Tensor | None = None
        prefixes: dict[str, Tensor] = {}
        for name in self._inputs.names:
            if self._inputs.is_float(name):
                work = Work(self._inputs, name, self, None, cut(self._inputs.shape(name)))
                value, _ = work.total(view, statistic, 0)
                total = value - value if total is None else total
                if value.numel() <= PREFIXED:
                    prefixes[name] = total
                total = total + value
        assert total is not None
        return total, prefixes


class Derived:
    """A merge, computed whenever a tensor is asked for."""

    def __init__(self, derivation: Derivation, inputs: Inputs) -> None:
        self.family = Family([derivation], inputs)
        self.names = self.family.inputs.names
        self.layout = self.family.inputs.base.layout

    def get(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        found = self.family.get(name)[0]
        return found if stop is None else found[start:stop]

    def dtype(self, name: str) -> str:
        return self.family.inputs.dtype(name)


def family_key(derivation: Derivation) -> tuple[str, ...]:
    return (derivation.base.id, str(derivation.base.path), *(expert.id for expert in derivation.experts))


def by_family(checkpoints: Sequence[Checkpoint]) -> dict[tuple[str, ...], list[int]]:
    """The places of the derived checkpoints, by what they are derived from."""
    found: dict[tuple[str, ...], list[int]] = {}
    for index, checkpoint in enumerate(checkpoints):
        if checkpoint.derivation:
            found.setdefault(family_key(checkpoint.derivation), []).append(index)
    return found


def _loops(points: Sequence[Derivation]) -> list[tuple[bool, list[tuple[View, list[int]]]]]:
    """(whether in parts, preparations with the points that share them) for each loop over a tensor's parts.

    Points that share a preparation stand together. One whose first part needs the whole tensor has a loop of its own,
    so that one prepared tensor is in memory at a time.
    """
    views: dict[tuple[bool, View], list[int]] = {}
    for index, point in enumerate(points):
        key = (point.prepare_key or "unnamed") if point.prepare else ""
        view = View(point.seed, key, point.prepare, _method(point))
        views.setdefault((is_rowwise(point.merge), view), []).append(index)
    together, alone = [], []
    for (rowwise, view), indices in views.items():
        if rowwise and is_rowwise(view.prepare):
            together.append((view, indices))
        else:
            alone.append((rowwise, [(view, indices)]))
    return [(True, together), *alone] if together else alone


def _method(derivation: Derivation) -> str:
    return f"merge method {derivation.method or 'without a name'}"
