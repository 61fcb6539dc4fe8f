"""What two token sequences share: clipped n-gram matches of many pairs at once, and longest common subsequences.

Every BLEU and chrF++ is a formula over these counts, so they are counted once for each way to cut a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Of n pairs of a summary and its reference: lengths in tokens, both (n,), and `matches` (n, order), the clipped
    count of 1-grams, 2-grams, …: each n-gram of the summary as often as the reference has it. All int64."""

    summary: Ints
    reference: Ints
    matches: Ints

    def of(self, side: Ints) -> Ints:
        """How many n-grams of each order a side has, (n, order)."""
        return np.maximum(side[:, None] - np.arange(self.matches.shape[1]), 0)


def word_counts(references: Sequence[Sequence[str]], summaries: Sequence[Sequence[str]], order: int) -> Counts:
    """Counts over words, given as lists of tokens."""
    words = list(chain(chain.from_iterable(summaries), chain.from_iterable(references)))
    vocabulary = {word: code for code, word in enumerate(dict.fromkeys(words))}
    codes = np.fromiter(map(vocabulary.__getitem__, words), np.int64, len(words))
    return _counts(codes, _lengths(references), _lengths(summaries), order)


def character_counts(references: Sequence[str], summaries: Sequence[str], order: int) -> Counts:
    """Counts over characters, white space left out."""
    summaries = ["".join(text.split()) for text in summaries]
    references = ["".join(text.split()) for text in references]
    whole = "".join(summaries) + "".join(references)
    points = np.frombuffer(whole.encode("utf-32-le", "surrogatepass"), np.uint32)
    codes = np.unique(points, return_inverse=True)[1].astype(np.int64)
    return _counts(codes, _lengths(references), _lengths(summaries), order)


def _lengths(sequences: Sequence[Sequence[str]]) -> Ints:
    return np.fromiter(map(len, sequences), np.int64, len(sequences))


def _counts(codes: Ints, references: Ints, summaries: Ints, order: int) -> Counts:
    """`codes` holds all summaries' tokens and then all references', as numbers from 0.

    An n-gram's key is its pair's number and its tokens, as digits of one number: so keys of other pairs never meet,
    and sorted keys stand in the order of the pairs.
    """
    pairs = len(summaries)
    lengths = np.concatenate([summaries, references])
    base = int(codes.max(initial=0)) + 1
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(codes))  # tokens from here to the end of the text
    keys = np.repeat(np.tile(np.arange(pairs), 2), lengths)
    border = int(summaries.sum())
    matches = np.zeros((pairs, order), np.int64)
    for n in range(1, order + 1):
        keys = keys[: len(codes) - n + 1]
        if keys.size == 0:
            break
        if int(keys.max()) >= (1 << 62) // base:
            keys = np.unique(keys, return_inverse=True)[1].astype(np.int64)
        keys = keys * base + codes[n - 1 :]
        whole = left[: len(keys)] >= n
        mine, theirs = keys[:border][whole[:border]], keys[border:][whole[border:]]
        matches[:, n - 1] = _matches(mine, theirs, np.maximum(summaries - n + 1, 0))
    return Counts(summaries, references, matches)


def _matches(mine: Ints, theirs: Ints, sizes: Ints) -> Ints:
    """Clipped matches for each pair; `sizes` says how many of `mine` belong to each."""
    pairs = len(sizes)
    if not len(mine) or not len(theirs):
        return np.zeros(pairs, np.int64)
    pair = np.repeat(np.arange(pairs), sizes)
    mine = np.sort(mine)
    first = np.flatnonzero(np.concatenate([[True], mine[1:] != mine[:-1]]))
    often = np.diff(np.append(first, len(mine)))
    known, known_often = np.unique(theirs, return_counts=True)
    at = np.minimum(np.searchsorted(known, mine[first]), len(known) - 1)
    shared = np.where(known[at] == mine[first], np.minimum(often, known_often[at]), 0)
    return np.bincount(pair[first], weights=shared, minlength=pairs).astype(np.int64)


def common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, by the bits of one number (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(one)) - 1
    open_places = full
    for word in other:
        hits = open_places & places.get(word, 0)
        open_places = ((open_places + hits) | (open_places - hits)) & full
    return len(one) - open_places.bit_count()
