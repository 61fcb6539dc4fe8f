"""Where training data comes from: one entry of a recipe's `data:` section becomes rows of prompt and completion."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import SourceError
from . import docstrings, installed, list_pipelines
from .columns import Scalar, Template, matches, row_id, source_name
from .files import SUFFIXES, data_file, read_file

SCHEMES = ("hf:", "packages:", "python-stdlib:", "demo:", "path:")
SCHEMES_HINT = f"a source is one of {', '.join(SCHEMES)} or a path that ends in {', '.join(SUFFIXES)}"


@dataclass(frozen=True)
class DataSpec:
    """One entry of a recipe's `data:` section.

    source    `hf:owner/name` (needs the hub or its cache); a path or `path:FILE` (.json .jsonl .jsonl.gz .parquet
              .csv); `packages:NAME==VERSION,…` and `python-stdlib:` (function and docstring pairs);
              `demo:list-pipelines`
    prompt    a column, or a template that names columns in braces, such as "{code|without_docstring}\\n\\nSummary:";
    answer    the same. `{{` and `}}` are braces. Columns that hold a list of strings are joined with blanks. Without
              them the columns `prompt` and `completion` are taken. White space is kept as it is written
    split     of the source; for a path it is ignored
    subset    the hub's configuration name
    revision  the hub's commit, tag or branch
    where     keep the rows whose column equals the value, or is in the list
    limit     the first N rows after a shuffle by the seed; a smaller limit gives a subset of a larger one
    format    text: the prompt is a string; chat: the prompt is one user message, for the model's chat template
    licence   as the report names it; the source's own when it is known and this is None

    Columns of `packages:` and `python-stdlib:` are `prompt`, `completion`, `code`, `docstring` and `id`; of
    `demo:list-pipelines` `prompt`, `completion` and `id`.
    """

    source: str
    prompt: str | None = None
    answer: str | None = None
    split: str = "train"
    subset: str | None = None
    revision: str | None = None
    where: Mapping[str, Scalar | Sequence[Scalar]] = field(default_factory=dict)
    limit: int | None = None
    format: Literal["text", "chat"] = "text"
    licence: str | None = None


@dataclass(frozen=True)
class Rows:
    """`rows` of `{"id": str, "prompt": str or chat messages, "completion": str}`, in the order of the seeded shuffle.

    `id` is that of a benchmark (`mbpp/601`: the source's name and the column `task_id`), the column `id`, or a number.

    `notes` are facts that a report must carry, such as "near duplicates of the test set removed: 7".
    """

    rows: tuple[Mapping[str, Any], ...]
    licence: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Table:
    """What a scheme gives: rows as they are, before columns are chosen."""

    rows: Iterable[Mapping[str, Any]]
    licence: str = "unknown"
    notes: tuple[str, ...] = ()


def load_rows(spec: DataSpec, seed: int) -> Rows:
    """The rows of one dataset, shuffled by `seed`; a row's place depends on the seed, its number and its id alone.

    Raises SourceError for an unknown scheme, a column that is missing, a file that cannot be read, a package that is
    missing or has another version, and when no rows are left.
    """
    prompt, answer = Template(spec.prompt or "prompt"), Template(spec.answer or "completion")
    name = source_name(spec.source)
    needed = {*prompt.columns, *answer.columns, *spec.where}
    table = _load(spec)
    kept: list[tuple[bytes, str, Mapping[str, Any]]] = []
    total = 0
    for number, row in enumerate(table.rows):
        if number == 0:
            _check_columns(spec, row, needed)
        total += 1
        if all(matches(row.get(column), wanted) for column, wanted in spec.where.items()):
            id = row_id(row, name, number)
            place = hashlib.sha256(f"{seed}/{number}/{id}".encode()).digest()
            kept.append((place, id, {column: row.get(column) for column in needed}))
    kept.sort(key=lambda entry: entry[0])
    rows: list[Mapping[str, Any]] = []
    skipped = 0
    for _, id, row in kept:
        if spec.limit is not None and len(rows) >= spec.limit:
            break
        text, completion = prompt.fill(row), answer.fill(row)
        if text and completion and completion.strip():
            rows.append(_row(id, text, completion, spec.format))
        else:
            skipped += 1
    if not rows:
        _raise_empty(spec, total, skipped)
    notes = list(table.notes)
    if skipped:
        notes.append(f"rows of {spec.source} left out because prompt or answer is empty or does not parse: {skipped}")
    return Rows(tuple(rows), spec.licence or table.licence, tuple(notes))


def data_pins(spec: DataSpec) -> Mapping[str, str]:
    """What the rows depend on beside `spec` itself, found quickly and without a network.

    The SHA-256 of a local file; the revision of a hub dataset ("main" where the recipe pins none: then a changed
    dataset is not noticed); the Python version and the version of the extraction rules for `packages:` and
    `python-stdlib:`; the version of a generator. Raises SourceError as `load_rows` does, for what can be seen already.
    """
    scheme, rest = _scheme(spec.source)
    if scheme == "hf:":
        return {"revision": spec.revision or "main"}
    if scheme == "packages:":
        requirements = _requirements(rest)
        installed.check_installed(requirements)
        # Near duplicates of the standard library's functions are removed, so its version counts.
        return {**dict(requirements), **_rules()}
    if scheme == "python-stdlib:":
        return _rules()
    if scheme == "demo:":
        _check_demo(rest)
        return {"generator": list_pipelines.GENERATOR_VERSION}
    with data_file(rest).open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _rules() -> dict[str, str]:
    return {"python": installed.python_version(), "docstring_rules": docstrings.RULES_VERSION}


def _row(id: str, prompt: str, completion: str, format: str) -> Mapping[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"id": id, "prompt": messages if format == "chat" else prompt, "completion": completion}


# Sources


def _scheme(source: str) -> tuple[str, str]:
    for scheme in SCHEMES:
        if source.startswith(scheme):
            return scheme, source.removeprefix(scheme)
    prefix = re.match(r"[A-Za-z][\w+-]+:", source)  # two characters or more, so that C:\ is a path
    if prefix or not source.lower().endswith(SUFFIXES):
        close = difflib.get_close_matches(prefix[0], SCHEMES, 1) if prefix else []
        meant = f"did you mean {close[0]}? " if close else ""
        raise SourceError(f"unknown data source {source!r}", hint=meant + SCHEMES_HINT)
    return "path:", source


def _load(spec: DataSpec) -> _Table:
    scheme, rest = _scheme(spec.source)
    if scheme == "hf:":
        return _hub(rest, spec)
    if scheme == "packages:":
        return _packages(rest)
    if scheme == "python-stdlib:":
        return _stdlib(spec)
    if scheme == "demo:":
        return _demo(rest, spec)
    return _Table(read_file(data_file(rest)))


def _hub(name: str, spec: DataSpec) -> _Table:
    import datasets

    try:
        dataset = datasets.load_dataset(name, spec.subset, split=spec.split, revision=spec.revision)
    except Exception as error:  # datasets and huggingface_hub raise some twenty kinds, none of them ours
        first = (str(error).strip().splitlines() or [""])[0]
        raise SourceError(
            f"cannot load {spec.source} ({type(error).__name__}: {first})",
            hint="check its name, subset, split and revision, and that the hub can be reached or holds it in its cache",
        ) from error
    return _Table(dataset, str(getattr(dataset.info, "license", "") or "unknown"))


def _packages(text: str) -> _Table:
    requirements = _requirements(text)
    pairs, removed = installed.package_pairs(requirements)
    licence = ", ".join(f"{name}: {installed.package_licence(name)}" for name, _ in requirements)
    return _Table([_pair(pair) for pair in pairs], licence, (_duplicates_note(removed),))


def _stdlib(spec: DataSpec) -> _Table:
    if spec.split == "train":
        pairs, removed = installed.stdlib_training_pairs()
        return _Table([_pair(pair) for pair in pairs], installed.STDLIB_LICENCE, (_duplicates_note(removed),))
    _check_split(spec, ("train", *installed.STDLIB_SIZES))
    return _Table([_pair(pair) for pair in installed.stdlib_pairs(spec.split)], installed.STDLIB_LICENCE)


def _pair(pair: docstrings.Pair) -> Mapping[str, str]:
    return {
        "id": pair.id,
        "prompt": pair.prompt,
        "completion": pair.completion,
        "code": pair.code,
        "docstring": pair.docstring,
    }


def _duplicates_note(removed: int) -> str:
    return f"near duplicates of the test set removed: {removed}"


def _demo(name: str, spec: DataSpec) -> _Table:
    _check_demo(name)
    _check_split(spec, tuple(list_pipelines.SIZES))
    found = list_pipelines.problems(spec.split)
    rows = [{"id": problem.id, "prompt": problem.prompt, "completion": problem.completion} for problem in found]
    note = "list-pipelines is a demonstration: generated problems, no benchmark of code generation"
    return _Table(rows, list_pipelines.LICENCE, (note,))


def _check_demo(name: str) -> None:
    if name != "list-pipelines":
        raise SourceError(f"unknown demonstration data demo:{name}", hint="there is demo:list-pipelines")


def _check_split(spec: DataSpec, splits: Sequence[str]) -> None:
    if spec.split not in splits:
        raise SourceError(f"{spec.source} has no split {spec.split!r}", hint=f"it has {', '.join(splits)}")


def _requirements(text: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, separator, version = (piece.strip() for piece in part.partition("=="))
        if not separator or not name or not version:
            raise SourceError(
                f"packages: {part!r} has no version",
                hint="pin each package, such as packages:numpy==2.4.6,rich==15.0.0",
            )
        found[name] = version
    if not found:
        raise SourceError("packages: names no package", hint="such as packages:numpy==2.4.6,rich==15.0.0")
    return tuple(sorted(found.items()))


def _check_columns(spec: DataSpec, row: Mapping[str, Any], needed: set[str]) -> None:
    for column in sorted(needed):
        if column not in row:
            close = difflib.get_close_matches(column, list(row), 1)
            meant = f"did you mean {close[0]!r}? " if close else ""
            raise SourceError(
                f"{spec.source} has no column {column!r}", hint=f"{meant}it has {', '.join(map(str, row))}"
            )


def _raise_empty(spec: DataSpec, total: int, skipped: int) -> None:
    if not total:
        raise SourceError(f"{spec.source} has no rows", hint="check its split, and that the file is whole")
    if skipped:
        raise SourceError(
            f"{spec.source}: prompt or answer is empty in all {skipped} rows that `where` keeps",
            hint="check `prompt` and `answer`",
        )
    raise SourceError(f"{spec.source}: `where` keeps none of its {total} rows", hint="check the values in `where`")
