"""What a merge will do, in lines: every parameter of every model, and what the numbers come to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .. import checkpoint
from ..checkpoint import layer_of
from ..types import Checkpoint
from .config import Input, MergeFile, Slice


def describe(
    file: MergeFile, base: Checkpoint, expert: Checkpoint, arithmetic: str, notes: Sequence[str]
) -> Iterator[str]:
    """`expert` is one of those that are merged, `arithmetic` says whose it is, `notes` is what was found already."""
    yield f"{file.method} of {len(file.experts)} models; arithmetic: {arithmetic}"
    origin = "" if file.base else " (no base_model is given, so it is the first model)"
    yield f"config, tokenizer and chat template: {base.name}{origin}"
    if file.tokenizer:
        count = len(base.reading.tokens.rows) if base.reading and base.reading.tokens else 0
        yield f"vocabulary: {file.tokenizer}, {count} tokens; a row that a model lacks is lent by the others"
    merged = [one.key for one in file.experts]
    own = [name for name, known in file.known.items() if known.scope != "shared"]
    for number, part in enumerate(file.slices):
        at = f"slice {number}, " if len(file.slices) > 1 else ""
        for one in part.inputs:
            if one.key in merged:
                layers = f", layers {one.layers[0]} to {one.layers[1] - 1}" if one.layers else ""
                yield f"{at}{one.name}{layers}: " + ", ".join(_said(file, name, part, one) for name in own)
    shared = [_said(file, name, file.slices[0]) for name in file.known if name not in own]
    yield "; ".join(shared) or "no parameters of the merge"
    yield from _effects(file, expert)
    yield from notes
    kept = file.out_dtype or file.dtype
    yield f"written in {kept}" if kept else "written in the widest dtype of the models"


def _said(file: MergeFile, name: str, part: Slice, one: Input | None = None) -> str:
    for settings in (one.parameters if one else {}, part.parameters, file.parameters):
        if name in settings:
            return f"{name} {settings[name]}"
    return f"{name} {file.known[name].default} (default)"


def _effects(file: MergeFile, expert: Checkpoint) -> Iterator[str]:
    """What the numbers come to, for the first tensor of a layer."""
    if "weight" not in file.known:
        return
    tensor = next((name for name in checkpoint.names(expert) if layer_of(name).startswith("layer ")), "")
    part = file.slices[0]
    at = f"at {tensor}: " if any(setting.varies for _, setting in file.settings()) else ""
    total = math.fsum(float(file.needed("weight", part, one, tensor, 0.0)) for one in file.experts)
    normalize = file.value("normalize", part, None, tensor, 0.0) if "normalize" in file.known else False
    scale = float(file.value("lambda", part, None, tensor, 0.0) or 0) if "lambda" in file.known else 1.0
    what = "model" if file.method == "linear" else "change"
    found = scale if normalize else scale * total
    told = f"weights sum to {total:g}, normalize {str(normalize).lower()}"
    yield f"{at}effective scale of the merged {what}: {found:g} ({told})"
    if normalize and file.method in ("ties", "dare_ties", "della", "breadcrumbs_ties", "sce"):
        yield "where one model alone is left after the election, its weight cancels"
    if "density" in file.known:
        shares = [float(file.needed("density", part, one, tensor, 0.0)) for one in file.experts]
        yield f"{at}kept of each change: " + ", ".join(f"{100 * share:g} %" for share in shares)
        if all(share == 1 for share in shares) and file.method != "task_arithmetic":
            yield "density 1 drops nothing: the first part of the method does nothing"
