"""Where training data comes from: one entry of a recipe's `data:` section becomes rows of prompt and completion."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SourceError
from . import docstrings, installed, list_pipelines, named, shapes
from .columns import Template, matches, row_id, source_name
from .files import SUFFIXES, data_file, read_file
from .hub import hub_rows
from .spec import NAMES, DataSpec, SpecProblem, Table

SCHEMES = ("hf:", "packages:", "python-stdlib:", "demo:", "path:")
SCHEMES_HINT = (
    f"a source is one of {', '.join(NAMES)}, {', '.join(SCHEMES)} or a path that ends in {', '.join(SUFFIXES)}"
)


@dataclass(frozen=True)
class Rows:
    """`rows` of `{"id": str, "prompt": str or chat messages, "completion": str}`, in the order of the seeded shuffle.

    `id` is that of a benchmark (`mbpp/601`: the source's name and the column `task_id`), the column `id`, or a number.

    `notes` are facts that a report must carry, such as "near duplicates of the test set removed: 7".
    """

    rows: tuple[Mapping[str, Any], ...]
    licence: str
    notes: tuple[str, ...] = ()


def load_rows(spec: DataSpec, seed: int) -> Rows:
    """The rows of one dataset, shuffled by `seed`; a row's place depends on the seed, its number and its id alone.

    Raises SourceError for what `check_data` finds, a column that is missing, a file that cannot be read, a set of the
    hub that is not what was published, and when no rows are left.
    """
    for problem in _problems(spec):
        raise SourceError(problem.message, hint=problem.hint)
    table, prompt_text, answer_text = shapes.shaped(_load(spec), spec)
    prompt, answer = Template(prompt_text), Template(answer_text)
    name = source_name(spec.source)
    needed = {*prompt.columns, *answer.columns, *spec.where}
    seen: dict[str, None] = {}
    kept: list[tuple[bytes, str, Mapping[str, Any]]] = []
    total = 0
    for number, row in enumerate(table.rows):
        seen.update(dict.fromkeys(row))
        total += 1
        if all(matches(row.get(column), wanted) for column, wanted in spec.where.items()):
            id = row_id(row, name, number)
            place = hashlib.sha256(f"{seed}/{number}/{id}".encode()).digest()
            kept.append((place, id, {column: row.get(column) for column in needed}))
    if total:
        for problem in _columns_missing(spec, tuple(seen), needed):
            raise SourceError(problem.message, hint=problem.hint)
    kept.sort(key=lambda entry: entry[0])
    rows: list[Mapping[str, Any]] = []
    skipped = 0
    for _, id, row in kept:
        if spec.limit is not None and len(rows) >= spec.limit:
            break
        given = row.get(prompt_text)
        text, completion = given if isinstance(given, list) else prompt.fill(row), answer.fill(row)
        if text and completion and completion.strip():
            rows.append(_row(id, text, completion, spec.format))
        else:
            skipped += 1
    if not rows:
        _raise_empty(spec, total, skipped, table.notes)
    notes = list(table.notes)
    if skipped:
        notes.append(f"rows of {spec.source} left out because prompt or answer is empty or does not parse: {skipped}")
    return Rows(tuple(rows), spec.licence or table.licence, tuple(notes))


def data_pins(spec: DataSpec) -> Mapping[str, str]:
    """What the rows depend on beside `spec` itself, found quickly and without a network.

    The SHA-256 of a local file; the revision of a hub dataset ("main" where the recipe pins none: then a changed
    dataset is not noticed); the Python version and the version of the extraction rules for `packages:` and
    `python-stdlib:`; the version of a generator, and of what a named set asks. Raises SourceError as `load_rows` does,
    for what can be seen already.
    """
    for problem in _problems(spec):
        raise SourceError(problem.message, hint=problem.hint)
    scheme, rest = _scheme(spec.source)
    if scheme == "hf:":
        return {"revision": spec.revision or "main"}
    if scheme == "packages:":
        # Near duplicates of the standard library's functions are removed, so its version counts.
        return {**dict(_requirements(rest)), **_rules()}
    if scheme == "python-stdlib:":
        return _rules()
    if scheme == "demo:":
        return {"generator": list_pipelines.GENERATOR_VERSION}
    if scheme in NAMES:
        return named.pins(scheme, rest, spec)
    with data_file(rest).open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def data_identity(source: str) -> str:
    """What of a source counts beside its pins: of a local file its name, which ids may come from, not its folder."""
    scheme, rest = _scheme(source)
    return Path(rest).name if scheme == "path:" else source


def check_data(spec: DataSpec) -> Sequence[SpecProblem]:
    """Everything that is wrong with a spec, as far as it can be seen without a network and without reading much."""
    found = list(_problems(spec))
    return found if found else list(_peek(spec))


def _problems(spec: DataSpec) -> Iterator[SpecProblem]:
    yield from _caught("prompt", lambda: Template(spec.prompt or "prompt"))
    yield from _caught("answer", lambda: Template(spec.answer or "completion"))
    if spec.limit is not None and spec.limit < 1:
        yield SpecProblem("limit", f"limit is {spec.limit}", "a number of rows, from 1")
    try:
        scheme, rest = _scheme(spec.source)
    except SourceError as error:
        yield SpecProblem("source", error.message, error.hint)
        return
    if spec.languages and scheme != "codexglue":
        hint = "take it away, or write source: codexglue"
        yield SpecProblem("languages", f"{spec.source} takes no languages, only codexglue does", hint)
    if scheme in NAMES:
        yield from named.problems(scheme, rest, spec)
    elif scheme == "packages:":
        yield from _caught("source", lambda: installed.check_installed(_requirements(rest)))
    elif scheme == "python-stdlib:":
        yield from _caught("split", lambda: _check_split(spec, ("train", *installed.STDLIB_SIZES)))
    elif scheme == "demo:":
        yield from _caught("source", lambda: _check_demo(rest))
        yield from _caught("split", lambda: _check_split(spec, tuple(list_pipelines.SIZES)))
    elif scheme == "path:":
        yield from _caught("source", lambda: data_file(rest))
        yield from _not_of_a_file(spec)


def _not_of_a_file(spec: DataSpec) -> Iterator[SpecProblem]:
    """A file is read whole: it is the split `train`, and has no other."""
    for key, value, usual in (("split", spec.split, "train"), ("subset", spec.subset, None)):
        if value != usual:
            hint = f"a file is read whole: take `{key}` away, and keep the rows that you mean with `where`"
            yield SpecProblem(key, f"{spec.source} is a file, and has no {key} {value!r}", hint)


def _caught(field: str, check: Callable[[], object]) -> Iterator[SpecProblem]:
    try:
        check()
    except SourceError as error:
        yield SpecProblem(field, error.message, error.hint)


PEEK_ROWS = 1000
"""Rows of a local file that are looked at before a run."""
_PEEK_NAMED = 20  # of a named set, whose rows are parsed on the way
_PAIR_COLUMNS = ("id", "prompt", "completion", "code", "docstring")


def _peek(spec: DataSpec) -> Iterator[SpecProblem]:
    """Columns that the first rows of what lies on this machine do not have, and values that no row of it can have."""
    try:
        rows = _first_rows(spec)
        if not rows or shapes.conversation(rows[0], spec):
            return
    except SourceError as error:
        yield SpecProblem("source", error.message, error.hint)
        return
    seen = tuple(dict.fromkeys(column for row in rows for column in row))
    prompt, answer = map(Template, shapes.columns(rows[0], spec))
    yield from _columns_missing(spec, seen, {*prompt.columns, *answer.columns, *spec.where})
    for column, wanted in spec.where.items():
        yield from _never_equal(spec, column, wanted, [row[column] for row in rows if row.get(column) is not None])


def _first_rows(spec: DataSpec) -> list[Mapping[str, Any]]:
    """A few rows, or one that stands for what a source of ours always has; [] where a network would be needed."""
    scheme, rest = _scheme(spec.source)
    if scheme == "path:":
        return list(itertools.islice(read_file(data_file(rest)), PEEK_ROWS))
    if scheme in NAMES and rest and not rest.startswith("hf:"):
        return list(itertools.islice(named.LOADERS[scheme].load(rest, spec).rows, _PEEK_NAMED))
    columns = {"packages:": _PAIR_COLUMNS, "python-stdlib:": _PAIR_COLUMNS, "demo:": _PAIR_COLUMNS[:3]}
    return [dict.fromkeys(columns[scheme])] if scheme in columns else []


def _never_equal(spec: DataSpec, column: str, wanted: Any, found: Sequence[object]) -> Iterator[SpecProblem]:
    """A text is looked for among numbers, or a number among texts: `601` in a file that says "601", or "601-974"."""
    listed = wanted if isinstance(wanted, list | tuple) else [wanted]
    if (
        found
        and listed
        and not {isinstance(value, str) for value in listed} & {isinstance(value, str) for value in found}
    ):
        hint = f"in the file it is {found[0]!r} and the like; values are compared as they are, and there are no ranges"
        yield SpecProblem("where", f"no row of {spec.source} can have {column} {listed[0]!r}", hint)


def _rules() -> dict[str, str]:
    return {"python": installed.python_version(), "docstring_rules": docstrings.RULES_VERSION}


def _row(id: str, prompt: str | list[Any], completion: str, format: str) -> Mapping[str, Any]:
    if format == "chat" and isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    return {"id": id, "prompt": prompt, "completion": completion}


# Sources


def _scheme(source: str) -> tuple[str, str]:
    """(scheme, rest): one of SCHEMES, or one of NAMES with the place after its colon."""
    for scheme in SCHEMES:
        if source.startswith(scheme):
            return scheme, source.removeprefix(scheme)
    name, _, place = source.partition(":")
    if name in NAMES:
        return name, place
    prefix = re.match(r"[A-Za-z][\w+-]+:", source)  # two characters or more, so that C:\ is a path
    if prefix or not source.lower().endswith(SUFFIXES):
        known = [*(scheme.removesuffix(":") for scheme in SCHEMES), *NAMES]
        close = difflib.get_close_matches(name.lower(), known, 1)
        meant = next((scheme for scheme in (*SCHEMES, *NAMES) if close and scheme.removesuffix(":") == close[0]), "")
        raise SourceError(
            f"unknown data source {source!r}", hint=f"{f'did you mean {meant}? ' if meant else ''}{SCHEMES_HINT}"
        )
    return "path:", source


def _load(spec: DataSpec) -> Table:
    scheme, rest = _scheme(spec.source)
    if scheme == "hf:":
        return Table(*hub_rows(rest, spec.subset, spec.split, spec.revision))
    if scheme == "packages:":
        return _packages(rest)
    if scheme == "python-stdlib:":
        return _stdlib(spec)
    if scheme == "demo:":
        return _demo(spec)
    if scheme in NAMES:
        return named.LOADERS[scheme].load(rest, spec)
    return Table(read_file(data_file(rest)))


def _packages(text: str) -> Table:
    requirements = _requirements(text)
    pairs, removed = installed.package_pairs(requirements)
    licence = ", ".join(f"{name}: {installed.package_licence(name)}" for name, _ in requirements)
    return Table([_pair(pair) for pair in pairs], licence, (_duplicates_note(removed),))


def _stdlib(spec: DataSpec) -> Table:
    if spec.split == "train":
        pairs, removed = installed.stdlib_training_pairs()
        return Table([_pair(pair) for pair in pairs], installed.STDLIB_LICENCE, (_duplicates_note(removed),))
    return Table([_pair(pair) for pair in installed.stdlib_pairs(spec.split)], installed.STDLIB_LICENCE)


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


def _demo(spec: DataSpec) -> Table:
    found = list_pipelines.problems(spec.split)
    rows = [{"id": problem.id, "prompt": problem.prompt, "completion": problem.completion} for problem in found]
    note = "list-pipelines is a demonstration: generated problems, no benchmark of code generation"
    return Table(rows, list_pipelines.LICENCE, (note,))


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


def _columns_missing(spec: DataSpec, columns: Sequence[str], needed: set[str]) -> Iterator[SpecProblem]:
    for column in sorted(needed - {*columns}):
        close = difflib.get_close_matches(column, columns, 1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        usual = "" if spec.prompt and spec.answer else f"; {shapes.SHAPES}"
        inside = "a template names whole columns and does not look into them; " if re.search(r"[\[.]", column) else ""
        hint = f"{meant}{inside}it has {', '.join(map(str, columns))}{usual}"
        yield SpecProblem(_field_of(spec, column), f"{spec.source} has no column {column!r}", hint)


def _field_of(spec: DataSpec, column: str) -> str:
    if column in spec.where:
        return "where"
    return next((key for key in ("prompt", "answer") if column in (getattr(spec, key) or "")), "source")


def _raise_empty(spec: DataSpec, total: int, skipped: int, notes: Sequence[str]) -> None:
    told = f" ({'; '.join(notes)})" if notes else ""
    if not total:
        raise SourceError(f"{spec.source} has no rows{told}", hint="check its split, and that the file is whole")
    if skipped:
        raise SourceError(
            f"{spec.source}: prompt or answer is empty in all {skipped} rows that `where` keeps",
            hint="check `prompt` and `answer`",
        )
    raise SourceError(f"{spec.source}: `where` keeps none of its {total} rows", hint="check the values in `where`")
