"""CodeXGLUE's code-to-text as lm-eval tasks and for `mixmerge score`: see `rows` for what is asked, `metrics` for what
is measured.

All summaries of a task are measured together, in the task's filter; what lm-eval calls for each function and each
resampling only reads what was measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from mixmerge.paths import beside
from mixmerge.scoring import Request, Sample, Scored

baselines = beside(__file__, "baselines")
metrics = beside(__file__, "metrics")
rows = beside(__file__, "rows")
scoring = beside(__file__, "score")

MEASURED = (
    *("bleu4_codexglue", "bleu4_nltk", "bleu4_nltk_normalised", "bleu4_sacrebleu"),
    *("chrfpp", "chrfpp_sentence", "chrfpp_sentence_normalised"),
    *("rouge_l", "rouge_l_normalised", "meteor", "meteor_normalised"),
)
"""What the tasks report of each summary, and of `scoring.COMPARED` what trivial baselines reach, as METRIC@BASELINE;
`mixmerge score` reports all of `metrics.METRICS`."""


# -- lm-eval ----------------------------------------------------------------------------------------------------


def dataset(language: str, set: str, mode: str, meteor: bool = True, **_: Any) -> dict[str, Any]:
    """The functions of a set as `test`, and those to choose on as `examples`, for few-shot prompts.

    Raises SourceError, before anything is generated, where the rows are not to be had, or METEOR's WordNet is not and
    the task's metadata do not say `meteor: false`.
    """
    from datasets import Dataset

    wanted = {"test": set, **({} if set == "dev" else {"examples": "dev"})}
    found = {split: rows.documents(language, name, mode) for split, name in wanted.items()}
    if meteor:
        metrics.check_meteor()
    return {split: Dataset.from_list([{**doc, "meteor": meteor} for doc in docs]) for split, docs in found.items()}


def summary_of(response: str) -> str:
    """The summary in a response: its first paragraph as one line, out of a fence and of quotes, without a preamble such
    as "Here is the summary:"."""
    parts = re.split(r"\n\s*\n", re.sub(r"^\s*```.*$", "\n", response, flags=re.MULTILINE))
    texts = [text for part in parts if (text := " ".join(part.split()).strip("\"'` "))]
    said = [text for place, text in enumerate(texts) if not text.endswith(":") or place == len(texts) - 1]
    return said[0] if said else ""


def measure(responses: Sequence[Sequence[str]], docs: Sequence[Mapping[str, str]]) -> list[list[dict[str, Any]]]:
    """A filter of lm-eval: measure the first response to every doc, all together. Takes and gives one list for each
    doc, with the `summary` that counts and, for each metric, what its aggregation takes."""
    docs = list(docs)
    references = tuple(doc["reference"] for doc in docs)
    summaries = [summary_of(answers[0]) for answers in responses]
    meteor = all(doc["meteor"] for doc in docs)
    measured = _measure(references, summaries, meteor)
    trivial = _trivial(references, tuple(doc["name"] for doc in docs), meteor)
    return [
        [
            {
                "summary": summary,
                **{metric: measured[i][metric] for metric in MEASURED if metric in measured[i]},
                **{
                    f"{metric}@{name}": found[i][metric]
                    for metric in scoring.COMPARED
                    for name, found in trivial.items()
                    if metric in found[i]
                },
            }
        ]
        for i, summary in enumerate(summaries)
    ]


@cache
def _trivial(references: tuple[str, ...], names: tuple[str, ...], meteor: bool) -> Mapping[str, Any]:
    """What the trivial baselines reach on the same functions, whatever the model: measured once for a whole sweep."""
    return {name: _measure(references, summaries, meteor) for name, summaries in baselines.said(names).items()}


def _measure(references: Sequence[str], summaries: Sequence[str], meteor: bool) -> Any:
    """In this process: it may hold a model, which is nothing to fork."""
    return metrics.measure(references, summaries, workers=1, meteor=meteor)


def read(doc: Mapping[str, str], results: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What was measured of one function."""
    return {name: value for name, value in results[0][0].items() if name != "summary"}


def chrfpp(items: Sequence[Any]) -> float:
    """chrF++ of the corpus, from the sums of its statistics."""
    return float(metrics.aggregate("chrfpp", items))


def bleu4_sacrebleu(items: Sequence[Any]) -> float:
    """sacrebleu's BLEU of the corpus, from the sums of its statistics."""
    return float(metrics.aggregate("bleu4_sacrebleu", items))


# -- mixmerge score ---------------------------------------------------------------------------------------------


def score(request: Request, samples: Sequence[Sample]) -> Scored:
    """Score summaries that any system wrote; see `score.py`."""
    found: Scored = scoring.score(request, samples, summary_of)
    return found
