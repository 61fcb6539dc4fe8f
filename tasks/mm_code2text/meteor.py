"""METEOR as NLTK computes it (nltk.translate.meteor_score, alpha 0.9, beta 3, gamma 0.5), quick and offline.

Words are matched as they are, then by Porter stem, then by WordNet synonym, each from the right. What costs time in
NLTK is to stem and to look up the same words again and again; here each word is looked up once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from mixmerge import SourceError

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5
NEEDED = ("wordnet", "punkt_tab")
"""What is read from an nltk_data folder: synonyms, and how to tell that a full stop ends a sentence."""


def check() -> None:
    """That WordNet and punkt_tab can be read: from NLTK's own search path, which begins with NLTK_DATA, or from
    $MIXMERGE_DATA/nltk_data. Nothing is ever downloaded. SourceError that says how to get what is missing."""
    import nltk

    folder = os.environ.get("MIXMERGE_DATA")
    if folder and (data := str(Path(folder, "nltk_data").absolute())) not in nltk.data.path:
        nltk.data.path.append(data)
    missing = [name for name in NEEDED if not _there(name)]
    if missing:
        commands = " and ".join(f"`python -m nltk.downloader {name}`" for name in NEEDED)
        raise SourceError(
            f"METEOR cannot be computed: NLTK's {' and '.join(missing)} cannot be found",
            hint=f"{commands} download it once; offline, put it into a folder that NLTK_DATA names, or into "
            "$MIXMERGE_DATA/nltk_data; plain lm-eval goes on without METEOR with --metadata '{\"meteor\": false}'",
        )


def _there(name: str) -> bool:
    from nltk.corpus import wordnet
    from nltk.tokenize import word_tokenize

    try:
        if name == "wordnet":
            return bool(wordnet.synsets("word"))
        return bool(word_tokenize("One. Two."))
    except LookupError:
        return False


_MARK = r"[.,;:?!(){}\[\]<>@#$%&*+/=|^~`-]"
_TERM = r"\w+(?:[-/]\w+)*"
_PLAIN = re.compile(rf"\s*(?:(?:{_TERM},?|{_MARK})\s+)*(?:{_TERM}[.,]?|{_MARK})?\s*", re.ASCII)
_PLAIN_WORD = re.compile(f"{_TERM}|{_MARK}", re.ASCII)
_PARTED = re.compile(r"\b(?:cannot|gimme|gonna|gotta|lemme|wanna)\b", re.IGNORECASE)


def words(text: str) -> list[str]:
    """NLTK's word_tokenize, as the `meteor` of the library evaluate uses it.

    A text of ASCII words, marks that stand alone, commas after words and a full stop at its very end leaves NLTK
    nothing to decide (a full stop inside might end a sentence, or not): it is cut without NLTK, in a tenth of the time.
    """
    if _PLAIN.fullmatch(text) and not _PARTED.search(text):
        return _PLAIN_WORD.findall(text)
    found: list[str] = _tokenize()(text)
    return found


@cache
def _tokenize() -> Any:
    from nltk.tokenize import word_tokenize

    return word_tokenize


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


@lru_cache(maxsize=1 << 17)
def stem(word: str) -> str:
    found: str = _stemmer().stem(word)
    return found


@lru_cache(maxsize=1 << 17)
def synonyms(word: str) -> frozenset[str]:
    """The word and every lemma of one word that shares a synset with it."""
    from nltk.corpus import wordnet

    names = (name for synset in wordnet.synsets(word) for name in synset.lemma_names())
    return frozenset((word, *(name for name in names if "_" not in name)))


def meteor(reference: Sequence[str], summary: Sequence[str]) -> float:
    """METEOR of a summary against one reference, both as words, from 0 to 1."""
    matches = _align([word.lower() for word in summary], [word.lower() for word in reference])
    if not matches:
        return 0.0
    precision, recall = len(matches) / len(summary), len(matches) / len(reference)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    chunks = 1 + sum((there, at) != (here + 1, before + 1) for (here, before), (there, at) in pairwise(matches))
    return (1 - GAMMA * (chunks / len(matches)) ** BETA) * mean


def _align(summary: list[str], reference: list[str]) -> list[tuple[int, int]]:
    """Places of matched words, in the order of the summary."""
    mine, theirs = list(enumerate(summary)), list(enumerate(reference))
    found = _exact(mine, theirs)
    if len(found) < min(len(summary), len(reference)):
        mine, theirs = _left(mine, theirs, found)
        # synonyms are looked up of stems, as NLTK does
        mine, theirs = [(i, stem(word)) for i, word in mine], [(j, stem(word)) for j, word in theirs]
        stems = _exact(mine, theirs)
        found |= stems | _similar(*_left(mine, theirs, stems))
    return sorted(found.items())


def _left(
    mine: list[tuple[int, str]], theirs: list[tuple[int, str]], found: dict[int, int]
) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    taken = set(found.values())
    return [pair for pair in mine if pair[0] not in found], [pair for pair in theirs if pair[0] not in taken]


def _places(theirs: list[tuple[int, str]]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for j, word in theirs:
        places.setdefault(word, []).append(j)
    return places


def _exact(mine: list[tuple[int, str]], theirs: list[tuple[int, str]]) -> dict[int, int]:
    places = _places(theirs)
    return {i: free.pop() for i, word in reversed(mine) if (free := places.get(word))}


def _similar(mine: list[tuple[int, str]], theirs: list[tuple[int, str]]) -> dict[int, int]:
    places, found = _places(theirs), {}
    for i, word in reversed(mine):
        known = synonyms(word)
        best = max(
            (free for other, free in places.items() if free and other in known), key=lambda f: f[-1], default=None
        )
        if best:
            found[i] = best.pop()
    return found
