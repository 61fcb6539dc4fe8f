"""Where experts stand in each other's way: opposite signs, and weights that only one of them needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Annotated, Any

from pydantic import Field

from mixmerge import Checkpoint, TensorPart, TensorView, diagnostic

from .sums import Finding, Sums

_FIGURES = ("opposed", "mass", "selfish", "shared", "catastrophic")  # the columns of what `clashes` gives


def _experts(models: Sequence[Checkpoint]) -> list[int]:
    """The places of the experts, one of each task: a second seed of a task is no conflict."""
    found: dict[str, int] = {}
    for index, model in enumerate(models):
        if model.kind in ("expert", "model"):
            found.setdefault(model.training.task or f"{index}", index)
    return list(found.values())


def _sets(experts: Sequence[int]) -> list[tuple[int, ...]]:
    """Every pair, and all of them where there are more than two."""
    return [*combinations(experts, 2), *([tuple(experts)] if len(experts) > 2 else [])]


def clashes(part: TensorPart, sets: tuple[tuple[int, ...], ...], threshold: float) -> Mapping[str, Any]:
    """(sets, 5) under "sets": for every set of models, what `_FIGURES` says, summed over the weights."""
    import numpy

    from .kernels import clash, clash_of_two

    base, *models = part.raw
    found = [
        clash_of_two(base, models[members[0]], models[members[1]], threshold)
        if len(members) == 2
        else clash(part.rows, numpy.array(members), threshold)
        for members in sets
    ]
    return {"sets": numpy.array(found, dtype=float).reshape(-1, len(_FIGURES))}


def _finish(sums: Sums, models: Sequence[str], /, *, about: Sequence[Checkpoint] = ()) -> Iterable[Finding]:
    indices = _experts(about) if about else list(range(len(models)))
    for members, row in zip(_sets(indices), sums["sets"].tolist(), strict=True):
        names = tuple(models[index] for index in members)
        opposed, mass, *shares = row
        if mass:
            yield "sign_conflict", names, opposed / mass
        if moved := sum(shares):
            for metric, share in zip(("selfish", "shared", "catastrophic"), shares, strict=True):
                yield metric, names, share / moved


@diagnostic(
    name="conflict",
    version="2",
    source="signs: arXiv:2306.01708, section 3; masks: arXiv:2405.07813 (TALL-masks)",
    finish=_finish,
)
def conflict(t: TensorView, /, *, threshold: Annotated[float, Field(gt=0)] = 0.4) -> Sums:
    """Where experts stand in each other's way, for every pair of them, and for all where there are more than two.

    sign_conflict  share of the mass of all changes (the sum of their sizes) that points against the sign that has the
                   greater mass at its weight; 0 to 0.5
    selfish        share of the weights that one expert alone needs
    shared         share that two or more need
    catastrophic   share that none needs: where the changes drown in each other's sum (never two alone, unless
                   `threshold` is over 1)

    threshold  an expert needs a weight if its change there is at least this many times as large as the sum of the
               others' changes (lambda in TALL-masks, which try 0.2 to 0.6)

    Experts are what a recipe calls so, and models that came in from outside; of two runs of one task that differ in
    their seed, the first. Deviation: weights that no expert changed are left out of the shares.
    """
    sets = tuple(_sets(_experts(t.models)))
    return t.total(partial(clashes, sets=sets, threshold=threshold))
