"""How far each model moved from the base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mixmerge import Checkpoint, TensorPart, TensorView, diagnostic

from .sums import Finding, Sums, number


def squares(part: TensorPart) -> Mapping[str, Any]:
    """Sums of squares: base (), and deltas (models,)."""
    import numpy

    from .kernels import moved, square

    base, *models = part.raw
    return {"base": square(base), "deltas": numpy.array([moved(base, model) for model in models])}


def _finish(sums: Sums, models: Sequence[str], /, *, about: Sequence[Checkpoint] = ()) -> Iterable[Finding]:
    tensors, count, base = float(sums["tensors"]), float(sums["count"]), float(sums["base_square"]) ** 0.5
    for index, model in enumerate(models):
        training = about[index].training if about else None
        reach = (training.lr or 0.0) * (training.steps or 0.0) if training else 0.0
        norm = float(sums["squares"][index]) ** 0.5
        if tensors:
            mean = float(sums["norms"][index]) / tensors
            yield "l2_mean", (model,), mean
            if reach:
                yield "l2_mean_per_lr_step", (model,), mean / reach
        yield "norm", (model,), norm
        if base:
            yield "relative_norm", (model,), norm / base
        if count:
            rms = norm / count**0.5
            yield "rms", (model,), rms
            if reach:
                yield "rms_per_lr_step", (model,), rms / reach


@diagnostic(name="l2", version="3", source="arXiv:2601.21115, figures 2 and 4", finish=_finish, totals=(squares,))
def l2(t: TensorView, /) -> Sums:
    """How far each model moved from the base, for each layer, type of tensor and part of the model.

    l2_mean              mean over the group's weight tensors of the Frobenius norm of the change; biases and other
                         vectors have no part in it, as in the paper's own programs (its text says "mean L2 distance
                         per layer")
    norm                 Frobenius norm of the change of the whole group, everything in it
    relative_norm        that, divided by the norm of the base's tensors; left out where the base is zero
    rms                  root of the mean square of the change of one parameter, so that groups of any size compare
    l2_mean_per_lr_step  l2_mean and rms divided by learning rate times steps, where the record of a training knows
    rms_per_lr_step      both: how far Adam can carry a parameter at all, so that 1 is a parameter that moved by the
                         whole peak rate in the same direction at every step
    """
    import torch

    found = t.total(squares)
    matrix = len(t.shape) > 1
    return {
        "squares": found["deltas"],
        "norms": found["deltas"].sqrt() if matrix else torch.zeros_like(found["deltas"]),
        "tensors": number(matrix),
        "count": number(t.count),
        "base_square": found["base"],
    }
