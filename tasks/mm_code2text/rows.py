"""CodeXGLUE's code-to-text (arXiv 2102.04664, section 3.8): which functions each task asks about.

Rows come from the hub, or from the folder that the environment variable MIXMERGE_DATA names, as
code2text/LANGUAGE/test.jsonl(.gz) and valid.jsonl(.gz). Where that one is missing, LOCAL_DEV of the test rows are to
choose on and the test is the others, so that the two never overlap.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mixmerge import SourceError
from mixmerge.sources import code2text
from mixmerge.sources.files import read_file
from mixmerge.sources.hub import hub_rows

HUB = "google/code_x_glue_ct_code_to_text"
DRAWN = 500
"""How many functions are drawn, from the test set for sweeps and from the validation set to choose on."""
LOCAL_DEV = 200
SEED = 0  # which functions a task asks about must not depend on the experiment's seed

_STRATA = 5
_log = logging.getLogger("mixmerge.tasks")


def documents(language: str, set: str, mode: str) -> list[dict[str, str]]:
    """The functions of a set, in the order of its file, as `{"id", "task_id", "language", "code", "prompt",
    "completion", "reference", "name"}`.

    set   "test": the whole test set; "subset": DRAWN of it; "dev": DRAWN of the validation set
    mode  how the prompt asks: "completion" or "chat"

    A function whose summary can be read in its prompt, or cannot be taken out of its code, is in no set. `reference` is
    what CodeXGLUE's evaluator compares with, `completion` the same in natural spelling. Raises SourceError when the
    rows are not to be had.
    """
    test, dev = _test_and_dev(language)
    found = {"test": lambda: test, "subset": lambda: drawn(test, DRAWN), "dev": lambda: drawn(dev, DRAWN)}[set]()
    asking = code2text.prompt(language, chat=mode == "chat")
    return [{**each, "prompt": asking.replace("{code}", each["code"])} for each in found]


def drawn(documents: Sequence[dict[str, str]], count: int) -> Sequence[dict[str, str]]:
    """`count` of them, in their order, spread evenly over the lengths of summaries and, within each fifth of those, of
    code. A systematic sample (Cochran, Sampling Techniques, chapter 8) of a seeded order; all where there are no more.
    """
    if len(documents) <= count:
        return documents
    generator = random.Random(SEED)
    by_summary = sorted(
        range(len(documents)), key=lambda i: (len(documents[i]["reference"].split()), generator.random())
    )
    stratum = {index: place * _STRATA // len(documents) for place, index in enumerate(by_summary)}
    ordered = sorted(by_summary, key=lambda i: (stratum[i], len(documents[i]["code"]), generator.random()))
    begin = generator.random()
    return [documents[i] for i in sorted(ordered[int((begin + k) * len(documents) / count)] for k in range(count))]


def reference(row: Mapping[str, Any]) -> str:
    """The summary that CodeXGLUE's evaluator compares with: `docstring_tokens`, blanks between, on one line."""
    return " ".join(" ".join(row["docstring_tokens"]).split())


def all_rows(language: str, set: str) -> Iterable[Mapping[str, Any]]:
    """Every row of the file that a set is drawn from, as it is. Raises SourceError when they are not to be had."""
    code2text.prompt(language)  # says which languages there are
    if not (folder := os.environ.get("MIXMERGE_DATA")):
        return _hub(language, "validation" if set == "dev" else "test")
    place = Path(folder, "code2text", language)
    valid = _file(place, "valid") if set == "dev" else None
    return read_file(valid or _file(place, "test") or _missing(language))


@cache
def _test_and_dev(language: str) -> tuple[Sequence[dict[str, str]], Sequence[dict[str, str]]]:
    code2text.prompt(language)  # says which languages there are
    folder = os.environ.get("MIXMERGE_DATA")
    if not folder:
        test, dev = (_documents(_hub(language, split), language, split) for split in ("test", "validation"))
        return test, dev
    place = Path(folder, "code2text", language)
    valid = _file(place, "valid")
    test = _documents(read_file(_file(place, "test") or _missing(language)), language, "test")
    if valid:
        return test, _documents(read_file(valid), language, "validation")
    dev = {each["id"] for each in drawn(test, LOCAL_DEV)}
    return [each for each in test if each["id"] not in dev], [each for each in test if each["id"] in dev]


def _documents(rows: Iterable[Mapping[str, Any]], language: str, split: str) -> list[dict[str, str]]:
    numbered = [{**row, "id": number} for number, row in enumerate(rows)]
    examples, dropped = code2text.examples(numbered, language)
    if dropped:
        why = ", ".join(f"{reason}: {count}" for reason, count in sorted(dropped.items()))
        _log.warning(
            "code2text %s, %s: %d of %d rows left out (%s)", language, split, sum(dropped.values()), len(numbered), why
        )
    return [
        {
            "id": example.id,
            "task_id": f"{language}/{split}/{example.id}",  # as in training data, for the contamination gate
            "language": language,
            "code": example.code,
            "completion": example.completion,
            "reference": reference(numbered[int(example.id)]),
            "name": str(numbered[int(example.id)].get("func_name", "")),
        }
        for example in examples
    ]


def _hub(language: str, split: str) -> Iterable[Mapping[str, Any]]:
    try:
        found: Iterable[Mapping[str, Any]] = hub_rows(HUB, language, split, None)[0]
    except SourceError as error:
        raise SourceError(error.message, hint=_hint(language)) from error
    return found


def _file(place: Path, split: str) -> Path | None:
    files = [place / f"{split}{ending}" for ending in (".jsonl.gz", ".jsonl")]
    return next((file for file in files if file.is_file()), None)


def _missing(language: str) -> Path:
    raise SourceError(
        f"there is no file {os.environ['MIXMERGE_DATA']}/code2text/{language}/test.jsonl.gz", hint=_hint(language)
    )


def _hint(language: str) -> str:
    return (
        f"the rows come from the hub (or its cache) as {HUB}, "
        f"or from $MIXMERGE_DATA/code2text/{language}/test.jsonl.gz where that variable names a folder"
    )
