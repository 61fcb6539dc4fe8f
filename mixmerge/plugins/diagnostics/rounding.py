"""How many weights changed at all, and how many by the least step that their dtype can take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mixmerge import TensorPart, TensorView, diagnostic

from .sums import Finding, Sums, number

if TYPE_CHECKING:
    from torch import Tensor

_FORMATS = {  # bits of the fraction, exponent of the least normal number
    "torch.bfloat16": (7, -126),
    "torch.float16": (10, -14),
    "torch.float32": (23, -126),
    "torch.float64": (52, -1022),
}


def changes(part: TensorPart) -> Mapping[str, Any]:
    """counts (models, 2): numbers of weights that changed, and that changed by one unit in the last place."""
    import numpy

    base, *models = part.stored
    counts = [_alike(base, one) if one.dtype == base.dtype else _mixed(base, one) for one in models]
    return {"counts": numpy.array(counts, dtype=float).reshape(-1, 2)}


def _alike(base: Tensor, model: Tensor) -> tuple[int, int]:
    """Of one dtype: what is neighbours as floats is neighbours as integers."""
    import torch

    from .kernels import steps

    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[base.element_size()]
    bits = 8 * base.element_size() - 1
    changed, near = steps(base.view(kind).numpy(), model.view(kind).numpy(), (1 << bits) - 1)
    return changed, near


def _mixed(base: Tensor, model: Tensor) -> tuple[int, int]:
    """Of two dtypes: a step is a unit of the coarser one, at the smaller of the two values."""
    old, new = base.double(), model.double()
    distance = (new - old).abs()
    least = old.abs().minimum(new.abs())
    unit = _unit(least, base.dtype).maximum(_unit(least, model.dtype))
    moved = distance > 0
    return int(moved.sum()), int((moved & (distance <= unit)).sum())


def _unit(values: Tensor, dtype: object) -> Tensor:
    """The distance from each value to the next one further from zero that `dtype` has."""
    import torch

    bits, least = _FORMATS[str(dtype)]
    exponents = (torch.frexp(values).exponent - 1).clamp(min=least)
    exponents[values == 0] = least
    return torch.ldexp(torch.ones_like(values), exponents - bits)


def _finish(sums: Sums, models: Sequence[str], /) -> Iterable[Finding]:
    count = float(sums["count"])
    for index, model in enumerate(models):
        moved, near = sums["counts"][index].tolist()
        if count:
            yield "changed", (model,), moved / count
        if moved:
            yield "one_ulp", (model,), near / moved


@diagnostic(name="changed", version="3", finish=_finish, totals=(changes,))
def changed(t: TensorView, /) -> Sums:
    """The fraction of weights that differ from the base at all, and how much of that is rounding.

    changed  fraction of all weights that have another value
    one_ulp  of those, the fraction that differ by no more than one unit in the last place; where base and model are
             stored in different dtypes, of the coarser one

    A bfloat16 checkpoint keeps 8 bits, so that a training step is often rounded away, or up to one unit. Where most
    changes are one unit, the other figures measure rounding, and the report says so.
    """
    return {"count": number(t.count), **t.total(changes)}
