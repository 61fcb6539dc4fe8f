"""One-sentence summaries of Python standard library functions as lm-eval tasks: see `mixmerge.sources.docstrings`."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from mixmerge.sources import docstrings, installed

CONSTANT = "Return a copy of the options."
"""The trivial baseline: one sentence for every function. Of the docstrings of the quickstart's training packages it had
the highest ROUGE-L plus BLEU-4 against 400 others of them; the standard library was not looked at."""


def dataset(**_: Any) -> dict[str, Any]:
    """Both held-out splits of the running Python's standard library. Ignores the metadata."""
    from datasets import Dataset

    return {split: Dataset.from_list([_doc(p) for p in installed.stdlib_pairs(split)]) for split in ("test", "dev")}


def _doc(pair: docstrings.Pair) -> dict[str, str]:
    return {"id": pair.id, "prompt": pair.prompt, "completion": pair.completion, "docstring": pair.docstring}


def scores(doc: dict[str, str], results: Sequence[str]) -> dict[str, float]:
    """ROUGE-L and BLEU-4 of the response, and of the constant sentence on the same function, all from 0 to 100."""
    reference, summary = doc["docstring"], docstrings.summary_of(results[0])
    return {
        "rouge_l": rouge_l(reference, summary),
        "bleu4": bleu4(reference, summary),
        "rouge_l@constant sentence": rouge_l(reference, CONSTANT),
        "bleu4@constant sentence": bleu4(reference, CONSTANT),
    }


def rouge_l(reference: str, summary: str) -> float:
    """F1 of the longest common subsequence (rouge-score, without stemming), in percent."""
    return 100 * float(_rouge().score(reference, summary)["rougeL"].fmeasure)


@lru_cache(maxsize=1)
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])


def bleu4(reference: str, summary: str) -> float:
    """CodeXGLUE's smoothed sentence BLEU-4 (its code-to-text evaluator), in percent.

    Lower case; words and punctuation apart; add-one smoothing of the 2- to 4-gram precisions and of both lengths in
    the brevity penalty. The task's value is the mean over docs. No corpus BLEU, and not sacrebleu's.
    """
    expected, given = _words(reference), _words(summary)
    log_precision = 0.0
    for n in range(1, 5):
        matches = (_ngrams(given, n) & _ngrams(expected, n)).total()
        total = max(0, len(given) - n + 1)
        smoothing = 1 if n > 1 else 0
        tiny = sys.float_info.min  # stands in for log 0, as in the original
        log_precision += math.log(matches + smoothing + tiny) - math.log(total + smoothing + tiny)
    brevity = min(0.0, 1 - (len(expected) + 1) / (len(given) + 1))
    return 100 * math.exp(log_precision / 4 + brevity)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+|[^\s\w]|_", text.lower())


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def bits_per_byte(doc: dict[str, str], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Bits that the model needs for the reference completion given the prompt, per UTF-8 byte of it.

    The task's value is the mean over docs, so that it has a standard error and can be paired. Per byte, because a
    task cannot see the tokenizer; between models that share one it differs from bits per token by a factor that
    depends on the doc alone.
    """
    log_likelihood = results[0][0]
    return {"bits_per_byte": -log_likelihood / math.log(2) / len(doc["completion"].encode())}
