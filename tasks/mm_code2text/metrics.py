"""Every metric of code summarisation under its own name, for lists of references and summaries.

    items = measure(references, summaries)      # all samples at once, each looked at once
    aggregate("bleu4_codexglue", items)         # 21.88
    intervals(items, ["bleu4_codexglue"])       # 95 %, by bootstrap over samples

Values are percent, 0 to 100, unless the name ends in `_fraction`, 0 to 1. Names that end in `_normalised` are of texts
normalised as the paper (arXiv 2601.21115) does it, see `bleu.normalised`. METRICS says what each of them is. A sample
has a value, or the sufficient statistics of which a corpus metric's sums are taken; neither is computed again for a
bootstrap. No file is downloaded, nothing of the library evaluate is used.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import starmap
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mixmerge.paths import beside

Floats = NDArray[np.float64]
Value = float | tuple[float, ...]


bleu = beside(__file__, "bleu")
meteor = beside(__file__, "meteor")
overlaps = beside(__file__, "overlaps")

CHARACTERS, WORDS, BETA = 6, 2, 2
"""chrF++: character n-grams up to 6, word n-grams up to 2, recall twice as important (Popović 2017)."""
CHUNK = 1000
"""Pairs that are counted together: few enough that sorting their n-grams stays in the processor's caches."""


@dataclass(frozen=True)
class Metric:
    """What a metric is. `aggregation`: "mean" of the samples' values, or "corpus", a formula over summed statistics."""

    description: str
    source: str
    aggregation: Literal["mean", "corpus"] = "mean"
    higher_is_better: bool = True


_SHI = "arXiv 2107.07112 and its code, github.com/DeepSoftwareAnalytics/CodeSumEvaluation"
_WHITE = "words apart at white space"
_PAPER = {
    "bleu4_nltk": Metric(
        f"BLEU-4, {_WHITE}, case kept, unsmoothed (a summary that shares no 4-gram scores 0), mean of sentences",
        "nltk.translate.bleu_score.sentence_bleu; what arXiv 2601.21115 calls BLEU-4",
    ),
    "chrfpp_sentence": Metric(
        "chrF++: 1- to 6-grams of characters without white space, words and pairs of words, beta 2, mean of sentences",
        "sacrebleu.sentence_chrf(word_order=2); the chrF++ of arXiv 2601.21115",
    ),
    "rouge_l": Metric(
        "ROUGE-L: F1 of the longest common subsequence; runs of a-z and 0-9 in lower case, not stemmed; "
        "mean of sentences",
        "rouge_score.RougeScorer(['rougeL']), which evaluate's rouge calls (and takes a resampled median of)",
    ),
    "meteor": Metric(
        "METEOR: words by NLTK's word_tokenize, matched as they are, by Porter stem, by WordNet synonym; "
        "mean of sentences",
        "nltk.translate.meteor_score, alpha 0.9, beta 3, gamma 0.5, as evaluate's meteor calls it",
    ),
}
METRICS: Mapping[str, Metric] = {
    "bleu4_codexglue": Metric(
        "BLEU-4 of CodeXGLUE: lower case, punctuation apart, one added to the 2- to 4-gram counts and to both lengths, "
        "mean of sentences",
        "microsoft/CodeXGLUE, Code-Text/code-to-text/evaluator",
    ),
    **{
        name + text + scale: Metric(
            metric.description
            + (", of texts normalised as in arXiv 2601.21115" if text else "")
            + (", from 0 to 1" if scale else ""),
            metric.source,
        )
        for name, metric in _PAPER.items()
        for text in ("", "_normalised")
        for scale in ("", "_fraction")
    },
    "bleu4_sacrebleu": Metric(
        "BLEU of the whole corpus: 13a tokens, case kept, exponential smoothing",
        "sacrebleu, nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp",
        "corpus",
    ),
    "chrfpp": Metric(
        "chrF++ of the whole corpus", "sacrebleu, nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no", "corpus"
    ),
    "meteor_whitespace": Metric(
        f"METEOR, {_WHITE}; mean of sentences", "nltk.translate.meteor_score of text.split(), a common choice"
    ),
    **{
        f"bleu4_nltk_method{k}": Metric(
            f"BLEU-4, {_WHITE}, case kept, NLTK's smoothing method {k}, mean of sentences",
            f"nltk.translate.bleu_score.sentence_bleu with SmoothingFunction().method{k}",
        )
        for k in (1, 2, 3, 4)
    },
    "bleu_dm": Metric(
        f"BLEU-DM (DeepCom): {_WHITE}, NLTK 3.2.4 unsmoothed, which leaves out orders without a match; mean of "
        "sentences. Later versions of NLTK score those 0: that is bleu4_nltk",
        _SHI,
    ),
    "bleu_fc": Metric(f"BLEU-FC (Funcom): {_WHITE}, NLTK's corpus_bleu, unsmoothed", _SHI, "corpus"),
    "bleu_dc": Metric(
        f"BLEU-DC (Hybrid-DeepCom): {_WHITE}, smoothing method 4 of NLTK 3.2.4, mean of sentences of two words or "
        "more. Later versions of NLTK have another formula: that is bleu4_nltk_method4",
        _SHI,
        "corpus",
    ),
    "bleu_cn": Metric(
        "BLEU-CN (CodeNN): bleu4_codexglue on mteval's words alone; the mean leaves out empty summaries", _SHI, "corpus"
    ),
    "bleu_ncs": Metric(
        f"BLEU-NCS (NeuralCodeSum): {_WHITE}, one added to the counts of all orders, mean of sentences", _SHI
    ),
    "bleu_rc": Metric(f"BLEU-RC (Rencos): {_WHITE}, unsmoothed, mean of sentences", _SHI),
}


# -- measuring --------------------------------------------------------------------------------------------------


def measure(
    references: Sequence[str], summaries: Sequence[str], workers: int | None = None, *, meteor: bool = True
) -> Sequence[Mapping[str, Value]]:
    """Per sample, for each name of METRICS its value, or the vector of its statistics for a corpus metric.

    `workers` is how many processes work, by default one for each processor; below 2,000 samples one does.
    `meteor=False` leaves out the names that begin with "meteor". Otherwise SourceError where WordNet is missing.
    """
    if len(references) != len(summaries):
        raise ValueError(f"{len(references)} references, {len(summaries)} summaries")
    if meteor:
        check_meteor()
    starts = range(0, len(references), CHUNK)
    chunks = [(references[at : at + CHUNK], summaries[at : at + CHUNK]) for at in starts]
    with _pool(len(chunks), workers, meteor) as pool:
        pending = pool.starmap_async(_counted, chunks, 1) if pool else None
        # WordNet is read through open files, which processes must not share: METEOR is computed in this one
        alone = [_meteor(*chunk) if meteor else {} for chunk in chunks]
        counted = pending.get() if pending else list(starmap(_counted, chunks))
    return [item for one, other in zip(counted, alone, strict=True) for item in _items(one | other)]


def check_meteor() -> None:
    """SourceError, which says what to do, where METEOR cannot be computed: to be asked before a model generates."""
    meteor.check()


def _pool(chunks: int, workers: int | None, besides: bool) -> AbstractContextManager[Any]:
    """Processes to count in, `besides` this one, or None. Forks, as these files cannot be imported by name; a fork only
    cuts texts and sorts numbers, whatever threads this process has."""
    workers = (os.cpu_count() or 1) if workers is None else workers
    helpers = min(workers - besides, chunks)
    may_have_children = not multiprocessing.current_process().daemon
    if workers > 1 and chunks > 1 and helpers > 0 and sys.platform == "linux" and may_have_children:
        return multiprocessing.get_context("fork").Pool(helpers)
    return nullcontext()


def _items(columns: Mapping[str, Floats]) -> Iterable[dict[str, Value]]:
    """Columns of all samples, (n,) values or (n, k) statistics, as one mapping for each sample."""
    whole = {**columns}
    for name in METRICS:
        if name.endswith("_fraction") and (percent := name.removesuffix("_fraction")) in columns:
            whole[name] = columns[percent] / 100
    names = [name for name in METRICS if name in whole]
    plain = [list(map(tuple, c.tolist())) if c.ndim == 2 else c.tolist() for c in map(whole.__getitem__, names)]
    return (dict(zip(names, row, strict=True)) for row in zip(*plain, strict=True))


def _counted(references: Sequence[str], summaries: Sequence[str]) -> dict[str, Floats]:
    """Columns of every metric but METEOR, in percent."""
    words = _word_counts(references, summaries, str.split)
    codenn = _word_counts(references, summaries, bleu.codenn_words)
    found = {
        "bleu4_codexglue": bleu.codexglue(_word_counts(references, summaries, bleu.codexglue_words)),
        "bleu4_nltk": bleu.nltk(words),
        **{f"bleu4_nltk_method{k}": bleu.nltk(words, k) for k in (1, 2, 3, 4)},
        "bleu_dm": bleu.nltk_3_2(words, 0),
        "bleu_ncs": bleu.ncs(words),
        "bleu_rc": bleu.rencos(words),
        "rouge_l": _each(rouge_l, references, summaries),
    }
    normal = [bleu.normalised(text) for text in references], [bleu.normalised(text) for text in summaries]
    found["bleu4_nltk_normalised"] = bleu.nltk(_word_counts(*normal, str.split))
    found["rouge_l_normalised"] = _each(rouge_l, *normal)
    percent = {name: 100 * values for name, values in found.items()}
    chrf = chrf_statistics(references, summaries)
    percent |= {"chrfpp": chrf, "chrfpp_sentence": chrf_score(chrf)}
    percent["chrfpp_sentence_normalised"] = chrf_score(chrf_statistics(*normal))
    percent["bleu_cn"] = _mean_where((words.summary > 0) & (words.reference > 0), 100 * bleu.codexglue(codenn))
    percent["bleu_dc"] = _mean_where(words.summary != 1, 100 * bleu.nltk_3_2(words, 4))
    percent["bleu_fc"] = bleu.statistics(words, least=1)
    percent["bleu4_sacrebleu"] = bleu.statistics(_word_counts(references, summaries, bleu.sacrebleu_words))
    return percent


def _meteor(references: Sequence[str], summaries: Sequence[str]) -> dict[str, Floats]:
    """Columns of METEOR, in percent."""

    def cut(words: Callable[[str], list[str]], *texts: str) -> float:
        return float(meteor.meteor(*map(words, texts)))

    normal = [bleu.normalised(text) for text in references], [bleu.normalised(text) for text in summaries]
    return {
        "meteor": 100 * _each(partial(cut, meteor.words), references, summaries),
        "meteor_normalised": 100 * _each(partial(cut, meteor.words), *normal),
        "meteor_whitespace": 100 * _each(partial(cut, str.split), references, summaries),
    }


def _each(value: Callable[[str, str], float], references: Sequence[str], summaries: Sequence[str]) -> Floats:
    return np.array([value(*pair) for pair in zip(references, summaries, strict=True)])


def _mean_where(counted: NDArray[np.bool_], values: Floats) -> Floats:
    """Statistics of a mean over some of the samples: (n, 2), of value and count."""
    return np.stack([np.where(counted, values, 0), counted], 1)


def _word_counts(references: Sequence[str], summaries: Sequence[str], words: Callable[[str], Sequence[str]]) -> Any:
    return overlaps.word_counts([words(text) for text in references], [words(text) for text in summaries], bleu.ORDER)


def rouge_l(reference: str, summary: str) -> float:
    """F1 of the longest common subsequence, from 0 to 1 (rouge-score's rougeL without stemming)."""
    expected, given = (re.findall("[a-z0-9]+", text.lower()) for text in (reference, summary))
    common = overlaps.common_subsequence(expected, given)
    return 2 * common / (len(expected) + len(given)) if common else 0.0


# -- chrF++ -----------------------------------------------------------------------------------------------------


def chrf_statistics(references: Sequence[str], summaries: Sequence[str]) -> Floats:
    """sacrebleu's statistics of chrF++ for each pair: (n-grams of the summary, of the reference, matches) for six
    orders of characters and two of words: (n, 24)."""
    characters = overlaps.character_counts(references, summaries, CHARACTERS)
    words = overlaps.word_counts([_chrf_words(r) for r in references], [_chrf_words(s) for s in summaries], WORDS)
    columns = []
    for counts in (characters, words):
        mine, theirs = counts.of(counts.summary), counts.of(counts.reference)
        columns.append(np.stack([np.where(theirs > 0, mine, 0), theirs, counts.matches], 2).reshape(len(mine), -1))
    return np.concatenate(columns, 1).astype(float)


def _chrf_words(text: str) -> list[str]:
    return [part for word in text.split() for part in _chrf_parts(word)]


@lru_cache(maxsize=1 << 16)
def _chrf_parts(word: str) -> tuple[str, ...]:
    """A word, with one punctuation mark split off the end, or else the beginning."""
    if len(word) > 1 and word[-1] in _MARKS:
        return word[:-1], word[-1]
    if len(word) > 1 and word[0] in _MARKS:
        return word[0], word[1:]
    return (word,)


_MARKS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def chrf_score(sums: Floats) -> Floats:
    """chrF++ in percent, of (…, 24) statistics; gives (…)."""
    mine, theirs, matches = (sums.reshape(*sums.shape[:-1], -1, 3)[..., i] for i in range(3))
    known = (mine > 0) & (theirs > 0)
    orders = np.maximum(known.sum(-1), 1)
    precision = np.where(known, matches / np.maximum(mine, 1), 0).sum(-1) / orders
    recall = np.where(known, matches / np.maximum(theirs, 1), 0).sum(-1) / orders
    below = BETA**2 * precision + recall
    return np.where(below > 0, 100 * (1 + BETA**2) * precision * recall / np.where(below > 0, below, 1), 0.0)


# -- aggregating ------------------------------------------------------------------------------------------------


def _partial_mean(sums: Floats) -> Floats:
    return np.where(sums[..., 1] > 0, sums[..., 0] / np.maximum(sums[..., 1], 1), 0.0)


_CORPUS: Mapping[str, Callable[[Floats], Floats]] = {
    "bleu4_sacrebleu": lambda sums: 100 * bleu.sacrebleu_corpus(sums),
    "bleu_fc": lambda sums: 100 * bleu.nltk_corpus(sums),
    "bleu_cn": _partial_mean,
    "bleu_dc": _partial_mean,
    "chrfpp": chrf_score,
}


def aggregate(name: str, items: Sequence[Value]) -> float:
    """A metric's value over samples, from what `measure` gave for `name` of each."""
    return float(_final(name, _matrix(items).sum(0), len(items)))


def _matrix(items: Sequence[Value]) -> Floats:
    return np.array(items, dtype=float).reshape(len(items), -1)


def _final(name: str, sums: Floats, samples: int) -> Floats:
    """From (…, k) sums over samples to (…)."""
    return _CORPUS[name](sums) if name in _CORPUS else sums[..., 0] / samples


def intervals(
    items: Sequence[Mapping[str, Value]], names: Iterable[str], samples: int = 1000, seed: int = 0
) -> Mapping[str, tuple[float, float]]:
    """95 % intervals: the 2.5 and 97.5 percentiles over `samples` resamples of the items with replacement, the same
    resamples for every metric."""
    names = list(names)
    columns = [_matrix([item[name] for item in items]) for name in names]
    ends = np.cumsum([column.shape[1] for column in columns])[:-1]
    sums = np.split(_resampled(np.concatenate(columns, 1), samples, seed), ends, 1)
    bounds = [
        np.percentile(_final(name, each, len(items)), [2.5, 97.5]) for name, each in zip(names, sums, strict=True)
    ]
    return {name: (float(low), float(high)) for name, (low, high) in zip(names, bounds, strict=True)}


def _resampled(values: Floats, samples: int, seed: int) -> Floats:
    """Sums of (n, k) values over each resample of the n: (samples, k)."""
    generator, n = np.random.default_rng(seed), len(values)
    found = []
    for at in range(0, samples, 64):  # a block of weights, 64 x n, stays small for the largest test set
        drawn = generator.integers(n, size=(min(64, samples - at), n))
        weights = np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(float)
        found.append(weights @ values)
    return np.concatenate(found)
