"""One-sentence summaries of Python standard library functions as lm-eval tasks: see `mixmerge.sources.docstrings`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mixmerge.paths import beside
from mixmerge.sources import docstrings, installed

CONSTANT = "Return a copy of the options."
"""The trivial baseline: one sentence for every function. Of the docstrings of the quickstart's training packages it had
the highest ROUGE-L plus BLEU-4 against 400 others of them; the standard library was not looked at."""


metrics = beside(__file__, "mm_code2text/metrics")

MEASURED = ("rouge_l", "bleu4_codexglue")


def dataset(**_: Any) -> dict[str, Any]:
    """Both held-out splits of the running Python's standard library. Ignores the metadata."""
    from datasets import Dataset

    return {split: Dataset.from_list([_doc(p) for p in installed.stdlib_pairs(split)]) for split in ("test", "dev")}


def _doc(pair: docstrings.Pair) -> dict[str, str]:
    return {"id": pair.id, "prompt": pair.prompt, "completion": pair.completion, "docstring": pair.docstring}


def scores(doc: dict[str, str], results: Sequence[str]) -> dict[str, float]:
    """Of the response, and of the constant sentence on the same function; the metrics are those of mm_code2text."""
    reference, summary = doc["docstring"], docstrings.summary_of(results[0])
    said, trivial = metrics.measure([reference, reference], [summary, CONSTANT], workers=1, meteor=False)
    return {name: said[name] for name in MEASURED} | {f"{name}@constant sentence": trivial[name] for name in MEASURED}


def bits_per_byte(doc: dict[str, str], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Bits that the model needs for the reference completion given the prompt, per UTF-8 byte of it.

    The task's value is the mean over docs, so that it has a standard error and can be paired. Per byte, because a
    task cannot see the tokenizer; between models that share one it differs from bits per token by a factor that
    depends on the doc alone.
    """
    log_likelihood = results[0][0]
    return {"bits_per_byte": -log_likelihood / math.log(2) / len(doc["completion"].encode())}
