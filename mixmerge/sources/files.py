"""Reading rows from local files."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import SourceError

SUFFIXES = (".json", ".jsonl", ".jsonl.gz", ".parquet", ".csv")


def data_file(text: str) -> Path:
    """The path of a data file; SourceError when there is none, or its kind is not known."""
    path = Path(text).expanduser()
    if path.is_dir():
        raise SourceError(f"{text} is a folder", hint="name a file in it")
    if not path.is_file():
        raise SourceError(f"there is no file {text}", hint="a path is relative to where mixmerge runs")
    if not path.name.lower().endswith(SUFFIXES):
        raise SourceError(f"{text} is of no known kind", hint=f"a data file ends in {', '.join(SUFFIXES)}")
    return path


def read_file(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a data file as they are. SourceError, with the line where there is one, when it cannot be read."""
    name = path.name.lower()
    try:
        if name.endswith(".parquet"):
            import pyarrow.parquet  # type: ignore[import-untyped]

            for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
                yield from batch.to_pylist()
        elif name.endswith(".csv"):
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield from csv.DictReader(file)
        elif name.endswith(".json"):
            yield from _json(path)
        else:
            with (gzip.open if name.endswith(".gz") else open)(path, "rt", encoding="utf-8") as lines:
                yield from _json_lines(path, lines)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise SourceError(f"cannot read {path}: {error}", hint=f"is it whole, and is it {path.suffix}?") from error


def _json(path: Path) -> Iterator[Mapping[str, Any]]:
    text = path.read_text(encoding="utf-8")
    if not text.lstrip().startswith("["):
        yield from _json_lines(path, text.splitlines())
        return
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise _bad_json(path, error.lineno, error.msg) from None
    for number, row in enumerate(found, 1):
        if not isinstance(row, dict):
            raise SourceError(f"{path}: entry {number} is no object but {type(row).__name__}", hint=_JSON_HINT)
        yield row


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise _bad_json(path, number, error.msg) from None
        if not isinstance(row, dict):
            raise _bad_json(path, number, f"no object but {type(row).__name__}")
        yield row


_JSON_HINT = "a list of objects, or one object on each line"


def _bad_json(path: Path, line: int, what: str) -> SourceError:
    return SourceError(f"{path}:{line}: cannot be read as JSON: {what[:1].lower()}{what[1:]}", hint=_JSON_HINT)
