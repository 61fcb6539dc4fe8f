"""What one entry of a recipe's `data:` section says, and what a source gives for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

NAMES = ("codexglue", "kodcode", "mbpp")
"""Sets that are known by name: `NAME`, `NAME:PATH` or `NAME:hf:OWNER/SET`."""

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class DataSpec:
    """One entry of a recipe's `data:` section.

    source     `hf:owner/name` (needs the hub or its cache); a path or `path:FILE` (.json .jsonl .jsonl.gz .parquet
               .csv); `codexglue`, `kodcode`, `mbpp` (from the hub; `mbpp:FILE`, `codexglue:FOLDER`, `kodcode:FILE`
               from this machine; `kodcode:hf:OWNER/NAME` from another set of the hub); `packages:NAME==VERSION,…` and
               `python-stdlib:` (function and docstring pairs); `demo:list-pipelines`
    prompt     a column, or a template that names columns in braces, such as "{code|without_docstring}\\n\\nSummary:";
    answer     the same. `{{` and `}}` are braces. Columns that hold a list of strings are joined with blanks. A column
               that is empty takes the white space before it along; all other white space is kept as it is written.
               Without them the columns `prompt` and `completion` are taken; or a conversation in `messages` or
               `conversations` (a row for each answer in it); or `instruction`, `input`, and `output` or `response`
    languages  of `codexglue`: which of python, java, javascript, php, ruby, go
    split      of the source; a file is all `train`
    subset     the hub's configuration name
    revision   the hub's commit, tag or branch
    where      keep the rows whose column equals the value, or is in the list
    limit      the first N rows after a shuffle by the seed; a smaller limit gives a subset of a larger one
    format     text: the prompt is a string; chat: the prompt is messages, for the model's chat template
    licence    as the report names it; the source's own when it is known and this is None

    Columns of `packages:` and `python-stdlib:` are `prompt`, `completion`, `code`, `docstring` and `id`; of
    `demo:list-pipelines` `prompt`, `completion` and `id`; of `codexglue`, `kodcode` and `mbpp` their own, with `prompt`
    and `completion`.
    """

    source: str
    prompt: str | None = None
    answer: str | None = None
    languages: list[str] = field(default_factory=list)
    split: str = "train"
    subset: str | None = None
    revision: str | None = None
    where: Mapping[str, Scalar | Sequence[Scalar]] = field(default_factory=dict)
    limit: int | None = None
    format: Literal["text", "chat"] = "text"
    licence: str | None = None


ALLOWED: Mapping[str, str] = {
    "where": "{column: value} or {column: [value, value, …]}; equality only, no ranges",
    "languages": "a list, such as [python, java]",
}
"""What a key may hold, in words, where its type says too little."""


@dataclass(frozen=True)
class Table:
    """What a source gives: rows as they are, before columns are chosen. `notes` are complete once the rows are read."""

    rows: Iterable[Mapping[str, Any]]
    licence: str = "unknown"
    notes: Sequence[str] = ()


class SpecProblem(NamedTuple):
    """What is wrong with a DataSpec: the field, the message, and a hint."""

    field: str
    message: str
    hint: str
