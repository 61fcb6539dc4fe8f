"""The weight diagnostics as a table: layers summed up, embeddings, head and the rest apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mixmerge import Measurement, Results

from . import words

_PART_WORDS = {"layers": "layers as one", "all": "whole model"}
_LAYER = re.compile(r"^layers?[ ._-]?(\d+)$")
_METRIC_WORDS = {
    "l2_mean": ("L2 distance to the base", words.TERMS["l2_mean"]),
    "norm": ("Length of the whole change", "The L2 distance of all weights of the part taken as one long list."),
    "relative_norm": (
        "Relative change",
        "The length of the whole change, divided by the length of the base's weights.",
    ),
    "pearson": ("Pearson correlation", words.TERMS["pearson"]),
    "cosine": ("Cosine", "Cosine between two changes: as the correlation, without subtracting the means first."),
    "sign_agreement": (
        "Sign agreement",
        "Of the weights that both models moved, the share moved in the same direction; 0.5 is what chance gives.",
    ),
    "changed": ("Fraction changed", "The share of weights that differ from the base at all."),
    "one_ulp": ("Of these, by one unit", "The share of changed weights that differ by one unit in the last place."),
    "rms": ("Change per parameter", "Root of the mean square of the change of one weight: groups of any size compare."),
    "l2_mean_per_lr_step": (
        "L2 distance per learning rate and step",
        "The L2 distance divided by learning rate times steps, which alone would make longer trainings move farther.",
    ),
    "rms_per_lr_step": (
        "Change per parameter, learning rate and step",
        "1 is a weight that moved by the whole learning rate, the same way, at every step.",
    ),
    "pearson_plotted": (
        "Pearson correlation, as the paper plotted it",
        "After every change under 30 % of its tensor's largest is set to zero, which its equation leaves out.",
    ),
    "sign_conflict": (
        "Sign conflict",
        "Of the mass of all changes, the share that points against the heavier sign at its weight; 0 to 0.5.",
    ),
    "selfish": ("Needed by one expert", "The share of changed weights that one expert alone needs (TALL masks)."),
    "shared": ("Needed by several", "The share of changed weights that two experts or more need."),
    "catastrophic": ("Needed by none", "The share of changed weights whose changes drown in each other's sum."),
    "effective_rank": ("Effective rank", "How many directions a matrix changed in; 1 is one direction."),
    "overlap_out": ("Subspace overlap, outputs", "How far the strongest output directions of two changes coincide."),
    "overlap_in": ("Subspace overlap, inputs", "How far the strongest input directions of two changes coincide."),
}
MOSTLY = 0.5
"""Where more than this share of the changes is one unit in the last place, the other figures measure rounding."""
_TYPE, _TENSOR = "type ", "tensor "


def layer(group: str) -> int | None:
    """3 for "layer 3", None for any other group."""
    found = _LAYER.match(group)
    return int(found.group(1)) if found else None


@dataclass(frozen=True)
class DiagnosticBlock:
    """One metric: a line per model or pair (its name, a value per part of the model, the record behind them)."""

    label: str
    gloss: str
    lines: tuple[tuple[str, tuple[str, ...], str], ...]


@dataclass(frozen=True)
class DiagnosticTable:
    """The weight diagnostics. `groups` are the columns: the layers' mean and range, then the parts."""

    groups: tuple[str, ...]
    blocks: tuple[DiagnosticBlock, ...]


def diagnostic_table(results: Results, *, merged_pairs: bool = False) -> DiagnosticTable:
    """Embeddings, head and all layers apart, a block per metric. Pairs with a merge stand apart (`merged_pairs`): they
    are many, and say less than those of the models that were trained."""
    merges = {model.name for model in results.models if model.kind == "merge"}
    shown = [
        one for one in results.measurements if merged_pairs == (len(one.models) > 1 and bool(merges & {*one.models}))
    ]
    parts = tuple(dict.fromkeys(one.group for one in shown if layer(one.group) is None and not _is_fine(one.group)))
    names = (_PART_WORDS.get(part, part) for part in parts)
    return DiagnosticTable(("layers, mean", "layers, lowest to highest", *names), _blocks(shown, parts, layers=True))


def type_table(results: Results) -> DiagnosticTable:
    """The same for each type of a layer's tensors, such as "self_attn.q_proj", without pairs with a merge."""
    merges = {model.name for model in results.models if model.kind == "merge"}
    shown = [one for one in results.measurements if len(one.models) < 2 or not merges & {*one.models}]
    parts = tuple(dict.fromkeys(one.group for one in shown if one.group.startswith(_TYPE)))
    return DiagnosticTable(tuple(part.removeprefix(_TYPE) for part in parts), _blocks(shown, parts, layers=False))


def rounding(results: Results) -> tuple[str, ...]:
    """A sentence for each model of which most changes are one unit in the last place."""
    return tuple(
        f"{words.number(100 * one.value, 0)} % of the weights of {pair(one.models)} that changed differ by one unit in "
        "the last place: its checkpoint keeps too few digits, and the other figures of it measure rounding"
        for one in results.measurements
        if (one.metric, one.group) == ("one_ulp", "all") and one.value > MOSTLY
    )


def _is_fine(group: str) -> bool:
    return group.startswith((_TYPE, _TENSOR))


def _blocks(shown: Sequence[Measurement], parts: Sequence[str], *, layers: bool) -> tuple[DiagnosticBlock, ...]:
    metrics = dict.fromkeys((one.diagnostic, one.metric) for one in shown if layers or one.group in parts)
    return tuple(_diagnostic_block(shown, *metric, parts, layers=layers) for metric in metrics)


def _diagnostic_block(
    shown: Sequence[Measurement], diagnostic: str, metric: str, parts: Sequence[str], *, layers: bool
) -> DiagnosticBlock:
    of_metric = [one for one in shown if (one.diagnostic, one.metric) == (diagnostic, metric)]
    lines = []
    for models in dict.fromkeys(one.models for one in of_metric):
        own = {one.group: one.value for one in of_metric if one.models == models}
        spread = _spread([value for group, value in own.items() if layer(group) is not None]) if layers else ()
        values = (*spread, *(words.significant(own[part]) if part in own else "–" for part in parts))
        record = next(one.record for one in of_metric if one.models == models)
        lines.append((pair(models), values, record))
    label, gloss = _METRIC_WORDS.get(metric, (metric.replace("_", " "), ""))
    if diagnostic == "null":
        label = f"{label}, of two trainings of one task that differ in their seed alone"
    return DiagnosticBlock(label, gloss, tuple(lines))


def _spread(values: Sequence[float]) -> tuple[str, ...]:
    if not values:
        return "–", "–"
    mean = sum(values) / len(values)
    return words.significant(mean), f"{words.significant(min(values))} to {words.significant(max(values))}"


def pair(models: Sequence[str]) -> str:
    """ "a × b" for a pair, the name for one."""
    return " × ".join(models) if models else "all"
