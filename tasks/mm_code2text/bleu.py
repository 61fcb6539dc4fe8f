"""Every BLEU-4 that code summarisation is measured by, as a formula over n-gram counts (see overlaps.py).

All take `Counts` of order 4 and give one value for each pair, from 0 to 1; those that end in `_corpus` take and give
other shapes, as they say. Names of BLEU variants are those of Shi et al., "On the evaluation of neural code
summarization" (ICSE 2022, arXiv 2107.07112), whose published code settles what each of them is.
"""

from __future__ import annotations

import html
import re
import sys
from typing import Any
from xml.sax.saxutils import unescape

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ORDER = 4
TINY = sys.float_info.min


# -- texts ------------------------------------------------------------------------------------------------------

_APART = str.maketrans({mark: f" {mark} " for mark in '{|}~[\\]^_` !"#$%&()*+:;<=>?@/'})
_POINTS = [
    (re.compile(r"([^0-9])([.,])"), lambda found: f"{found[1]} {found[2]} "),
    (re.compile(r"([.,])([^0-9])"), lambda found: f" {found[1]} {found[2]}"),
    (re.compile(r"([0-9])(-)"), lambda found: f"{found[1]} {found[2]} "),
]


def _mteval(text: str) -> list[str]:
    """ASCII punctuation apart, except the apostrophe, and except full stops, commas and hyphens inside numbers: the
    rules that NIST's mteval has in all its versions."""
    text = f" {text} ".translate(_APART)
    for pattern, put in _POINTS:
        text = pattern.sub(put, text)
    return text.split()


def _joined(text: str) -> str:
    return text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")


def codenn_words(text: str) -> list[str]:
    """CodeNN's words: mteval's in lower case, XML entities resolved."""
    return _mteval(unescape(_joined(text), {"&quot;": '"'}).lower())


def codexglue_words(text: str) -> list[str]:
    """CodeXGLUE's words, in lower case: runs of letters and digits, and every other character but white space alone.

    Its evaluator splits off what is no letter, digit or underscore, and then does as CodeNN: on a text that is split
    already, that only takes the underscores apart.
    """
    return re.findall(r"[^\W_]+|\S", text.lower())


def sacrebleu_words(text: str) -> list[str]:
    """sacrebleu's tokenizer 13a: mteval's words, case kept."""
    text = _joined(text.rstrip())
    for entity, mark in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(entity, mark)
    return _mteval(text)


def normalised(text: str) -> str:
    """A text as the paper (arXiv 2601.21115) normalises summaries and references before it prints a score: HTML
    entities resolved, Markdown fences and surrounding quotes removed, white space folded, one trailing full stop
    dropped. The order of the steps is ours."""
    text = re.sub(r"```[\w+#-]*", " ", html.unescape(text))
    text = " ".join(text.split()).strip("\"'` ")
    return text.removesuffix(".").rstrip()


# -- sentences --------------------------------------------------------------------------------------------------


def codexglue(counts: Any) -> Floats:
    """BLEU-4 of CodeXGLUE's code-to-text evaluator: one added to matches and totals of 2- to 4-grams, and to both
    lengths in the brevity penalty. The score is its mean over sentences.

    Source: microsoft/CodeXGLUE, Code-Text/code-to-text/evaluator/evaluator.py (from CodeNN's, from MOSES).
    """
    add = np.array([0.0, 1.0, 1.0, 1.0])
    correct, guessed = counts.matches + add, counts.of(counts.summary) + add
    logs = (np.log(correct + TINY) - np.log(guessed + TINY)).mean(1)
    penalty = np.minimum(0, 1 - (counts.reference + 1) / (counts.summary + 1))
    return np.exp(logs + penalty)


def nltk(counts: Any, method: int = 0) -> Floats:
    """NLTK's sentence_bleu (3.6.1 to 3.10 agree) with SmoothingFunction().method0 to method4.

    method0 (the default) makes a missing order's precision 2.2e-308, which is 0 in print: its mean is what the paper
    calls BLEU-4. method1 gives an order without a match 0.1 matches, method2 adds one to matches and totals of 2- to
    4-grams, method3 halves with each missing order (NIST), method4 divides that by 5 / ln(length).
    Smoothing: Chen and Cherry 2014, https://aclanthology.org/W14-3346.
    """
    matches = counts.matches.astype(float)
    totals = np.maximum(counts.of(counts.summary), 1).astype(float)
    precision = matches / totals
    none = matches == 0
    missing = np.cumsum(none, 1)  # 1 for the first order without a match, 2 for the second
    if method == 0:
        precision = np.where(none, TINY, precision)
    elif method == 1:
        precision = np.where(none, 0.1 / totals, precision)
    elif method == 2:
        precision[:, 1:] = (matches[:, 1:] + 1) / (totals[:, 1:] + 1)
    elif method == 3:
        precision = np.where(none, 1 / (2.0**missing * totals), precision)
    elif method == 4:
        length = np.log(np.maximum(counts.summary, 1))[:, None]
        precision = np.where(none, length / (2.0**missing * 5 * totals), precision)
    else:
        raise ValueError(f"smoothing method {method} is not one of 0 to 4")
    return _nltk_mean(precision, counts)


def nltk_3_2(counts: Any, method: int) -> Floats:
    """BLEU-DM (method 0, DeepCom) and BLEU-DC (method 4, Hybrid-DeepCom): NLTK 3.2.4, with which they were printed.

    In that version method0 leaves out the first order without a match and all above it, so that a summary which shares
    single words scores high; later versions score it 0, and Shi et al.'s own program, run with one, prints 18.9 for
    what their table gives as 43.9. method4 takes 1 / (k + 5 / ln(length)) for the precision of an order without a
    match, k its order less one; later versions have another formula and divide by the number of n-grams. For a summary
    of one word method4 ends in an error in NLTK 3.2.4; BLEU-DC leaves these out of its mean, and the value here is 0.
    """
    none = counts.matches == 0
    precision = counts.matches / np.maximum(counts.of(counts.summary), 1)
    if method == 0:
        precision = np.where(np.cumsum(none, 1) > 0, 1.0, precision)
    else:
        length = np.log(np.maximum(counts.summary, 2))[:, None]
        precision = np.where(none, 1 / (np.arange(ORDER) + 5 / length), precision)
        return np.where(counts.summary > 1, _nltk_mean(precision, counts), 0.0)
    return _nltk_mean(precision, counts)


def _nltk_mean(precision: Floats, counts: Any) -> Floats:
    logs = np.log(precision, out=np.zeros_like(precision), where=precision > 0)
    value = _brevity(counts.reference, counts.summary) * np.exp(logs.sum(1) / ORDER)
    return np.where(counts.matches[:, 0] > 0, value, 0.0)


def _brevity(reference: Any, summary: Any) -> Floats:
    """exp(1 - reference / summary), at most 1, and 0 for an empty summary."""
    return np.where(summary > 0, np.exp(np.minimum(0, 1 - reference / np.maximum(summary, 1))), 0.0)


def ncs(counts: Any) -> Floats:
    """BLEU-NCS (NeuralCodeSum): one added to matches and totals of all orders; mean over sentences.

    Source: wasiahmad/NeuralCodeSum, c2nl/eval/bleu/google_bleu.py, `smooth=True` for each sentence.
    """
    logs = np.log((counts.matches + 1) / (counts.of(counts.summary) + 1)).mean(1)
    penalty = np.where(counts.reference > 0, _brevity(counts.reference, counts.summary), 0.0)
    return np.exp(logs) * penalty


def rencos(counts: Any) -> Floats:
    """BLEU-RC (Rencos): no smoothing; 1e-15 added to matches and 1e-9 to totals; mean over sentences.

    Source: zhangj111/rencos, the BLEU of coco-caption, its scores of single sentences.
    """
    value = np.prod((counts.matches + 1e-15) / (counts.of(counts.summary) + 1e-9), 1) ** (1 / ORDER)
    ratio = (counts.summary + 1e-15) / (counts.reference + 1e-9)
    return value * np.exp(np.minimum(0, 1 - 1 / ratio))


# -- corpora ----------------------------------------------------------------------------------------------------


def statistics(counts: Any, least: int = 0) -> Floats:
    """For each pair (length of the summary, of the reference, matches 1 to 4, totals 1 to 4): (n, 10), to be summed.
    NLTK counts one n-gram at least in each sentence (`least=1`)."""
    totals = np.maximum(counts.of(counts.summary), least)
    return np.concatenate([counts.summary[:, None], counts.reference[:, None], counts.matches, totals], 1).astype(float)


def nltk_corpus(sums: Floats) -> Floats:
    """BLEU-FC (Funcom): NLTK's corpus_bleu without smoothing, of (…, 10) sums; gives (…)."""
    matches, totals = sums[..., 2:6], sums[..., 6:10]
    logs = np.log(np.where(matches > 0, matches / np.maximum(totals, 1), TINY)).mean(-1)
    return np.where(matches[..., 0] > 0, _brevity(sums[..., 1], sums[..., 0]) * np.exp(logs), 0.0)


def sacrebleu_corpus(sums: Floats) -> Floats:
    """sacrebleu's corpus BLEU, of (…, 10) sums; gives (…). Signature
    nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp: an order without a match counts 1/2, 1/4, … matches."""
    matches, totals = sums[..., 2:6], sums[..., 6:10]
    missing = np.cumsum(matches == 0, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(matches > 0, matches, 0.5**missing) / totals
        logs = np.log(np.where(totals > 0, precision, 0.0)).mean(-1)
    value = _brevity(sums[..., 1], sums[..., 0]) * np.exp(logs)
    return np.where(matches.sum(-1) > 0, value, 0.0)
