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
}


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
    parts = tuple(dict.fromkeys(one.group for one in shown if layer(one.group) is None))
    metrics = dict.fromkeys((one.diagnostic, one.metric) for one in shown)
    blocks = tuple(_diagnostic_block(shown, *metric, parts) for metric in metrics)
    names = (_PART_WORDS.get(part, part) for part in parts)
    return DiagnosticTable(("layers, mean", "layers, lowest to highest", *names), blocks)


def _diagnostic_block(
    shown: Sequence[Measurement], diagnostic: str, metric: str, parts: Sequence[str]
) -> DiagnosticBlock:
    of_metric = [one for one in shown if (one.diagnostic, one.metric) == (diagnostic, metric)]
    lines = []
    for models in dict.fromkeys(one.models for one in of_metric):
        own = {one.group: one.value for one in of_metric if one.models == models}
        layers = [value for group, value in own.items() if layer(group) is not None]
        values = (*_spread(layers), *(words.significant(own[part]) if part in own else "–" for part in parts))
        record = next(one.record for one in of_metric if one.models == models)
        lines.append((pair(models), values, record))
    label, gloss = _METRIC_WORDS.get(metric, (metric, ""))
    return DiagnosticBlock(label, gloss, tuple(lines))


def _spread(values: Sequence[float]) -> tuple[str, str]:
    if not values:
        return "–", "–"
    mean = sum(values) / len(values)
    return words.significant(mean), f"{words.significant(min(values))} to {words.significant(max(values))}"


def pair(models: Sequence[str]) -> str:
    """ "a × b" for a pair, the name for one."""
    return " × ".join(models) if models else "all"
