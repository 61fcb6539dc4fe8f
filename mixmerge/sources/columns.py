"""Prompts and answers from the columns of a row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import SourceError
from . import docstrings
from .spec import NAMES, Scalar


def _first_paragraph(text: str) -> str | None:
    return docstrings.first_paragraph(text) or None


CHANGES: Mapping[str, Callable[[str], str | None]] = {
    "without_docstring": docstrings.without_docstring,
    "first_paragraph": _first_paragraph,
    "strip": str.strip,
}
"""What a template may do to a column, written `{column|change}`. None leaves the row out, and that is counted."""

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}|]+)(?:\|([^{}|]+))?\}")


class Template:
    """A column's name, or text that names columns in braces: `{column}` or `{column|change}`."""

    def __init__(self, text: str) -> None:
        fields = [match for match in _FIELD.finditer(text) if match[1]]
        self.columns = [match[1] for match in fields] or [text]
        self._parts: list[tuple[str, str, str | None]] = [] if fields else [("", text, None)]
        start = 0 if fields else len(text)
        for match in fields:
            if match[2] and match[2] not in CHANGES:
                raise SourceError(
                    f"unknown change {match[2]!r} in {match[0]}", hint=f"allowed: {', '.join(sorted(CHANGES))}"
                )
            self._parts.append((_braces(text[start : match.start()]), match[1], match[2]))
            start = match.end()
        self._end = _braces(text[start:])

    def fill(self, row: Mapping[str, Any]) -> str | None:
        """The text for one row; None when every column is empty, or a change finds nothing to work on.

        An empty column takes the white space before it along (after it, where nothing stands before), so that an
        optional one leaves no blank lines.
        """
        filled, empty = "", 0
        for literal, column, change in self._parts:
            text = _text(row.get(column)) or ""
            changed = CHANGES[change](text) if change and text else text
            if changed is None:
                return None
            if empty and not filled:
                literal = literal.lstrip()
            blank = not changed.strip()
            empty += blank
            filled += literal.rstrip() if blank else literal + changed
        if empty == len(self._parts):
            return None
        return filled + (self._end if filled else self._end.lstrip())


def _braces(text: str) -> str:
    return text.replace("{{", "{").replace("}}", "}")


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " ".join(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


ID_COLUMNS = ("task_id", "question_id", "problem_id", "instance_id")
"""Where benchmarks keep their own ids. A number in a column `id` is as a rule the number of a row, and says nothing."""


def source_name(source: str) -> str:
    """What a source's own ids belong to: `hf:google-research-datasets/mbpp`, `data/mbpp.jsonl` and `mbpp:rows.json` are
    all `mbpp`."""
    if (name := source.partition(":")[0]) in NAMES:
        return name
    return re.split(r"[/\\:]", source.rstrip("/\\"))[-1].partition(".")[0]


def row_id(row: Mapping[str, Any], name: str, number: int) -> str:
    """Its id in its benchmark, its column `id`, or its number."""
    if any(row.get(column) is not None for column in ID_COLUMNS):
        return benchmark_id(row, name) or str(number)
    return str(number if row.get("id") is None else row["id"])


def benchmark_id(row: Mapping[str, Any], name: str) -> str | None:
    """A row's id in its benchmark, as `NAME/KEY`: "Mbpp/601" as it is, 601 in a column `task_id` with `name` before it.

    `name` is the benchmark's, or its source's. None when the row has none; a column `id` counts where it is no number.
    """
    for column in (*ID_COLUMNS, "id"):
        value = row.get(column)
        if isinstance(value, int | str) and not isinstance(value, bool) and str(value).strip():
            text = str(value).strip()
            if column in ID_COLUMNS or not text.isdigit():
                return text if "/" in text else f"{name}/{text}"
    return None


def matches(value: object, wanted: Scalar | Sequence[Scalar]) -> bool:
    """Whether a column's value equals `wanted`, or is in it when it is a list."""
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return value in wanted
    return value == wanted
