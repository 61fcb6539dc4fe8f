"""Sets that mixmerge knows by name: `codexglue`, `kodcode`, `mbpp`, as `NAME` (the hub), `NAME:PATH` or `NAME:hf:SET`.

Each gives its own columns, with `prompt` and `completion` as most would ask, so that one line of a recipe is enough.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SourceError
from . import code2text, docstrings
from .files import data_file, read_file
from .hub import hub_rows
from .spec import DataSpec, SpecProblem, Table

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Loader:
    """hub      the set on the hub
    licence  as its publisher states it
    splits   its splits, () when they are the hub's own affair
    files    the local files, by a name for each, that a spec reads; of a place that is no `hf:`
    load     the table of a spec, of a place: "", `hf:SET` or a path
    """

    hub: str
    licence: str
    splits: tuple[str, ...]
    files: Callable[[str, DataSpec], Mapping[str, Path]]
    load: Callable[[str, DataSpec], Table]


def pins(name: str, place: str, spec: DataSpec) -> Mapping[str, str]:
    """The revision of the hub's set, or the SHA-256 of each local file; and the version of the rules."""
    rules = {"rules": f"{code2text.RULES_VERSION}.{docstrings.RULES_VERSION}"} if name == "codexglue" else {}
    if not place or place.startswith("hf:"):
        return {"revision": spec.revision or "main", **rules}
    found = {}
    for key, path in LOADERS[name].files(place, spec).items():
        with path.open("rb") as file:
            found[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return {**found, **rules}


def problems(name: str, place: str, spec: DataSpec) -> Iterator[SpecProblem]:
    """Everything that is wrong with a spec, as far as it can be seen without a network."""
    splits = LOADERS[name].splits
    local = bool(place) and not place.startswith("hf:")
    if splits and spec.split not in splits:
        yield SpecProblem("split", f"{name} has no split {spec.split!r}", _meant(spec.split, splits))
    found = list(_language_problems(name, spec))
    yield from found
    if local and not found and not (splits and spec.split not in splits):
        try:
            LOADERS[name].files(place, spec)
        except SourceError as error:
            yield SpecProblem("source", error.message, error.hint)


def _language_problems(name: str, spec: DataSpec) -> Iterator[SpecProblem]:
    if name != "codexglue":
        return
    if not spec.languages:
        hint = f"such as languages: [python, java]; there are {', '.join(code2text.LANGUAGES)}"
        yield SpecProblem("languages", "codexglue needs 'languages'", hint)
    for place, language in enumerate(spec.languages):
        if language not in code2text.LANGUAGES:
            hint = _meant(language, tuple(code2text.LANGUAGES))
            yield SpecProblem("languages", f"codexglue has no language {language!r}", hint)
        elif language in spec.languages[:place]:
            yield SpecProblem("languages", f"language {language!r} stands twice", "")


def _meant(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    return f"{f'did you mean {close[0]}? ' if close else ''}it has {', '.join(names)}"


# CodeXGLUE

CODEXGLUE_ROWS: Mapping[str, Mapping[str, int]] = {
    "python": {"train": 251_820, "validation": 13_914, "test": 14_918},
    "php": {"train": 241_241, "validation": 12_982, "test": 14_014},
    "go": {"train": 167_288, "validation": 7_325, "test": 8_122},
    "java": {"train": 164_923, "validation": 5_183, "test": 10_955},
    "javascript": {"train": 58_025, "validation": 3_885, "test": 3_291},
    "ruby": {"train": 24_927, "validation": 1_400, "test": 1_261},
}
"""Rows of each split as published, in the README of CodeXGLUE's code-to-text."""

_FILES = {"train": ("train",), "validation": ("valid", "validation", "dev"), "test": ("test",)}


def _codexglue_files(place: str, spec: DataSpec) -> Mapping[str, Path]:
    """LANGUAGE/test.jsonl.gz in a folder; or one file, of one language."""
    root = Path(place).expanduser()
    if not root.is_dir():
        if len(spec.languages) > 1:
            raise SourceError(
                f"{place} is one file, but there are {len(spec.languages)} languages",
                hint="give a folder that holds LANGUAGE/train.jsonl.gz, or make an entry for each language",
            )
        return {spec.languages[0]: data_file(place)}
    found, missing = {}, []
    for language in spec.languages:
        names = [f"{stem}.jsonl{end}" for stem in _FILES[spec.split] for end in (".gz", "")]
        paths = [path for name in names if (path := root / language / name).is_file()]
        if paths:
            found[language] = paths[0]
        else:
            missing.append(f"{language}/{names[0]}")
    if missing:
        split = "" if spec.split == "test" else f", and that it holds split {spec.split!r}"
        raise SourceError(
            f"{place} has no {', no '.join(missing)}", hint=f"check the folder{split}; .jsonl will do too"
        )
    return found


def _codexglue(place: str, spec: DataSpec) -> Table:
    notes: list[str] = []
    local = {} if not place or place.startswith("hf:") else _codexglue_files(place, spec)
    name = place.removeprefix("hf:") or LOADERS["codexglue"].hub

    def rows() -> Iterator[Row]:
        for language in spec.languages:
            if language in local:
                given: Iterable[Row] = read_file(local[language])
            else:
                given, _ = hub_rows(name, language, spec.split, spec.revision)
            yield from _summaries(given, language, spec, language in local, notes)

    return Table(rows(), LOADERS["codexglue"].licence, notes)


def _summaries(rows: Iterable[Row], language: str, spec: DataSpec, local: bool, notes: list[str]) -> Iterator[Row]:
    dropped: dict[str, int] = {}
    total = 0
    for number, row in enumerate(rows):
        if number == 0:
            _check_code2text(row, language, spec.split)
        total += 1
        made = code2text.example(row, language)
        if isinstance(made, code2text.Example):
            id = f"{language}/{spec.split}/{row.get('id', number)}"
            asked = code2text.prompt(language, chat=spec.format == "chat").replace("{code}", made.code)
            yield {**row, "id": id, "code": made.code, "prompt": asked, "completion": made.completion}
        else:
            dropped[made] = dropped.get(made, 0) + 1
    if note := _row_count(language, spec.split, total, local):
        notes.append(note)
    notes += [f"{language}: {count:,} rows left out: {reason}" for reason, count in sorted(dropped.items())]


def _check_code2text(row: Row, language: str, split: str) -> None:
    for column in ("code", "docstring"):
        if column not in row:
            raise SourceError(
                f"codexglue: rows of {language} have no column {column!r}", hint=f"they have {', '.join(map(str, row))}"
            )
    if row.get("language", language) != language:
        raise SourceError(
            f"codexglue: rows said to be {language} are {row['language']}", hint="check `languages` and the file"
        )
    if (own := row.get("partition", split)) not in _FILES[split]:
        raise SourceError(
            f"codexglue: rows said to be of split {split!r} are of {own!r}", hint="check `split` and the file"
        )


def _row_count(language: str, split: str, total: int, local: bool) -> str:
    """A note where a local file holds a part; SourceError for what cannot be the published split."""
    published = CODEXGLUE_ROWS[language][split]
    if total > published or (total < published and not local):
        raise SourceError(
            f"codexglue: {language} has {total:,} rows in split {split!r}, published are {published:,}",
            hint="results could not be compared with others': pin the `revision` that you mean, or check the file and "
            "`split`",
        )
    return f"{language}: {total:,} of {published:,} published rows of split {split}" if total < published else ""


# KodCode


def _one_file(place: str, spec: DataSpec) -> Mapping[str, Path]:
    return {"sha256": data_file(place)}


def _given(name: str, place: str, spec: DataSpec, subset: str | None) -> Iterable[Row]:
    if place and not place.startswith("hf:"):
        return read_file(data_file(place))
    hub = place.removeprefix("hf:") or LOADERS[name].hub
    rows: Iterable[Row] = hub_rows(hub, subset, spec.split, spec.revision)[0]
    return rows


def _kodcode(place: str, spec: DataSpec) -> Table:
    notes: list[str] = []

    def rows() -> Iterator[Row]:
        failed: dict[str, int] = {}
        seen = verdicts = 0
        for row in _given("kodcode", place, spec, spec.subset):
            seen += 1
            columns = [column for column in row if column.endswith("_correctness") and column not in spec.where]
            verdicts += any(column.endswith("_correctness") for column in row)
            wrong = next((column for column in columns if str(row[column]).lower() != "true"), None)
            if wrong:
                failed[wrong] = failed.get(wrong, 0) + 1
            else:
                yield {**row, "prompt": row.get("question"), "completion": _solution(row)}
        notes.extend(f"{count:,} rows left out: {column} is not True" for column, count in sorted(failed.items()))
        if verdicts < seen:
            notes.append(f"{seen - verdicts:,} rows do not say whether their tests passed")

    return Table(rows(), LOADERS["kodcode"].licence, notes)


def _solution(row: Row) -> Any:
    """`solution`; where a set has only that of one model, such as `4o_solution`, that."""
    if "solution" in row:
        return row["solution"]
    return next((value for column, value in row.items() if column.endswith("_solution")), None)


# MBPP

MBPP_IDS: Mapping[str, range] = {
    "train": range(601, 975),
    "validation": range(511, 601),
    "test": range(11, 511),
    "prompt": range(1, 11),
}
"""The splits of MBPP (arXiv 2108.07732, section 2.1) are ranges of `task_id`; its file holds all of them."""


def _mbpp(place: str, spec: DataSpec) -> Table:
    notes: list[str] = []
    ids = MBPP_IDS[spec.split]

    def rows() -> Iterator[Row]:
        found = 0
        for row in _given("mbpp", place, spec, spec.subset or "full"):
            number = str(row.get("task_id", "")).rpartition("/")[2]
            if not number.isdigit():
                raise SourceError(
                    f"mbpp: a row has no number in `task_id` but {row.get('task_id')!r}",
                    hint="the splits of MBPP are ranges of task_id",
                )
            if int(number) in ids:
                found += 1
                text = _lines(row.get("text") or row.get("prompt"))
                tests = "\n".join(_lines(test) for test in row.get("test_list") or ())
                prompt = f"{text}\nYour code should pass these tests:\n\n{tests}\n"
                yield {**row, "text": text, "prompt": prompt, "completion": _lines(row.get("code"))}
        if found < len(ids):
            notes.append(f"{found:,} of the {len(ids):,} problems of split {spec.split} (ids {ids[0]} to {ids[-1]})")

    return Table(rows(), LOADERS["mbpp"].licence, notes)


def _lines(text: str | None) -> str:
    return (text or "").replace("\r\n", "\n").strip("\n")


LOADERS: Mapping[str, Loader] = {
    "codexglue": Loader(
        "google/code_x_glue_ct_code_to_text",
        "C-UDA 1.0, each function under the licence of its repository",
        ("train", "validation", "test"),
        _codexglue_files,
        _codexglue,
    ),
    "kodcode": Loader("KodCode/KodCode-V1-SFT-4o", "CC BY-NC 4.0", (), _one_file, _kodcode),
    "mbpp": Loader("google-research-datasets/mbpp", "CC BY 4.0", tuple(MBPP_IDS), _one_file, _mbpp),
}
