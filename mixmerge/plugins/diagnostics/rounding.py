"""How many weights changed at all, and how many by the least step that their dtype can take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def steps(part: TensorPart) -> Sums:
    """changed, one_ulp (models,): numbers of weights that changed, and that changed by one unit in the last place."""
    import torch

    base, *models = part.stored
    counts = [_alike(base, one) if one.dtype == base.dtype else _mixed(base, one) for one in models]
    changed, near = zip(*counts, strict=True) if counts else ((), ())
    return {
        "changed": torch.tensor(changed, dtype=torch.float64),
        "one_ulp": torch.tensor(near, dtype=torch.float64),
    }


def _alike(base: Tensor, model: Tensor) -> tuple[int, int]:
    """Of one dtype: neighbours of one sign are neighbours as integers, too."""
    import numpy

    old, new = _bits(base), _bits(model)
    distance = numpy.abs(new - old)  # wraps around between the signs, which is looked at below
    unsigned = distance.view(f"u{distance.itemsize}")
    # From -0 to 0, and from 0 to the least number of either sign, is far as integers: then by value.
    if len(unsigned) and int(unsigned.max()) >= (1 << (8 * distance.itemsize - 1)) - 1:
        distance = numpy.abs(_ordered(new) - _ordered(old))
    return int(numpy.count_nonzero(distance)), int(numpy.count_nonzero(distance == 1))


def _bits(tensor: Tensor) -> Any:
    import torch

    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.view(kind).numpy()


def _ordered(bits: Any) -> Any:
    """int64: 0 for both zeros, 1 more for every next number up."""
    import numpy

    magnitude = bits.astype("i8") & ((1 << (8 * bits.itemsize - 1)) - 1)
    return numpy.where(bits < 0, -magnitude, magnitude)


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
        moved = float(sums["changed"][index])
        if count:
            yield "changed", (model,), moved / count
        if moved:
            yield "one_ulp", (model,), float(sums["one_ulp"][index]) / moved


@diagnostic(name="changed", version="2", finish=_finish, totals=(steps,))
def changed(t: TensorView, /) -> Sums:
    """The fraction of weights that differ from the base at all, and how much of that is rounding.

    changed  fraction of all weights that have another value
    one_ulp  of those, the fraction that differ by no more than one unit in the last place; where base and model are
             stored in different dtypes, of the coarser one

    A bfloat16 checkpoint keeps 8 bits, so that a training step is often rounded away, or up to one unit. Where most
    changes are one unit, the other figures measure rounding, and the report says so.
    """
    return {"count": number(t.count), **t.total(steps)}
