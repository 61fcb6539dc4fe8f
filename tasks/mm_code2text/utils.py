"""CodeXGLUE's code-to-text (arXiv 2102.04664, section 3.8) as lm-eval tasks.

Rows come from the hub, or from the folder that the environment variable MIXMERGE_DATA names:
code2text/python/test.jsonl.gz, and valid.jsonl.gz for the functions to choose on. Where that one is missing, the first
LOCAL_DEV of the shuffled test rows are for choosing and the test is the others, so that the two never overlap.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixmerge import SourceError
from mixmerge.sources import DataSpec, docstrings, load_rows

PROMPT = "{code|without_docstring}\n\nSummarise what this Python function does, in the words of its docstring:"
"""What training rows of the recipes ask as well; a test compares them. It ends in no white space, since the end of a
prompt decides how a model begins."""
ANSWER = "{docstring|first_paragraph}"
HUB = "google/code_x_glue_ct_code_to_text"
DEV_ROWS, LOCAL_DEV = 500, 200
SEED = 0  # of the shuffle: which rows are drawn must not depend on the experiment's seed


def _stdlib_summary() -> Any:
    """The metrics are those of the task mm_stdlib_summary; lm-eval imports these files by path, outside any package."""
    name = "mm_stdlib_summary"
    file = Path(__file__).parent.parent / name / "utils.py"
    spec = importlib.util.spec_from_file_location(f"{name}_utils", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


metrics = _stdlib_summary()


def python(**_: Any) -> dict[str, Any]:
    return _dataset("python", dev=False)


def python_dev(**_: Any) -> dict[str, Any]:
    return _dataset("python", dev=True)


def _dataset(language: str, dev: bool) -> dict[str, Any]:
    from datasets import Dataset

    return {"test": Dataset.from_list([dict(row) for row in rows(language, dev)])}


def rows(language: str, dev: bool) -> Sequence[Any]:
    """`{"id", "prompt", "completion"}` of the test rows, or of those to choose on, in the order of a seeded shuffle."""
    folder = os.environ.get("MIXMERGE_DATA")
    local = f"code2text/{language}"
    place = Path(folder or "", local)
    try:
        if not folder:
            split, limit = ("validation", DEV_ROWS) if dev else ("test", None)
            return load_rows(
                DataSpec(f"hf:{HUB}", PROMPT, ANSWER, split=split, subset=language, limit=limit), SEED
            ).rows
        if (place / "valid.jsonl.gz").is_file():
            file, limit = ("valid.jsonl.gz", DEV_ROWS) if dev else ("test.jsonl.gz", None)
            return load_rows(DataSpec(str(place / file), PROMPT, ANSWER, limit=limit), SEED).rows
        found = load_rows(DataSpec(str(place / "test.jsonl.gz"), PROMPT, ANSWER), SEED).rows
        return found[:LOCAL_DEV] if dev else found[LOCAL_DEV:]
    except SourceError as error:
        hint = (
            f"it comes from the hub (or its cache) as {HUB}, "
            f"or from $MIXMERGE_DATA/{local}/test.jsonl.gz where that variable names a folder"
        )
        raise SourceError(error.message, hint=hint) from error


def summary_of(response: str) -> str:
    """The summary in a response: its first paragraph as one line, out of the fence and the quotes around it."""
    text = re.sub(r"^```.*$", "", response, flags=re.MULTILINE)
    return docstrings.first_paragraph(text.strip().strip("\"'`"))


def scores(doc: dict[str, str], results: Sequence[str]) -> dict[str, float]:
    """ROUGE-L and BLEU-4 of the response, and of the constant sentence on the same function, all from 0 to 100."""
    reference, summary = doc["completion"], summary_of(results[0])
    return {
        "rouge_l": metrics.rouge_l(reference, summary),
        "bleu4": metrics.bleu4(reference, summary),
        "rouge_l@constant sentence": metrics.rouge_l(reference, metrics.CONSTANT),
        "bleu4@constant sentence": metrics.bleu4(reference, metrics.CONSTANT),
    }
