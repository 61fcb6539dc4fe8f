"""Scores that others recorded, as `results:` of a recipe: which columns of a CSV file say what, and its lines.

A recorded table says no more than it prints: no score per sample, so nothing can be paired, and of the noise only what
k of n gives away. `results.audit` looks for what its figures do not support.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .errors import SourceError, suggest
from .reading import At, Reader, dotted
from .sources import files
from .types import content_id

DATA_FOLDER = "MIXMERGE_DATA"

VERSION = "1"
"""Of reading and auditing: a higher one reads recorded results again."""


@dataclass(frozen=True)
class ScoreColumn:
    """What a column of scores holds.

    task, metric      as tables show them; every column is a task of its own, so that averages are over columns
    n                 how many samples were scored, 0 when that is not known
    counted           whether a score is k of n (pass@1, accuracy)
    change            the column that prints the change against the experts in percent, "" when none does
    higher_is_better  of the metric
    """

    task: str
    metric: str
    n: int = 0
    counted: bool = False
    change: str = ""
    higher_is_better: bool = True


@dataclass(frozen=True)
class RecordedTable:
    """An entry of `results:`.

    file        the CSV file; see `find`
    experiment  a template, such as "{model}": lines with the same text belong to one experiment
    table       a template that names the printed table; changes are checked against the experts of the same table
    where       column to the value, or the values, that a line must have
    method      the column that tells lines apart; every value that `rows` does not name is a method of merging
    rows        value of `method` to "base", "mixture", or for experts, {name: the columns that are its own}
    weights     columns with the merge's weights, in the order of the experts
    settings    what else tells merges apart, and the column that says it: {density: density_codegen}
    scores      column to what it holds
    average     the column that prints the mean of the changes, "" when none does
    behind      the entry above that was printed from these lines, "" for none: its merges are looked up here, and its
                base, experts and mixtures stand beside these merges
    """

    name: str
    file: str
    experiment: str
    method: str
    scores: Mapping[str, ScoreColumn]
    table: str = ""
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rows: Mapping[str, str | Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    average: str = ""
    behind: str = ""


@dataclass(frozen=True)
class RecordedLine:
    """One line of a file, read by its entry's mapping.

    place      "results.csv:12", for a reader who wants to look
    kind       "base", "mixture", "experts" (each on its own task) or "merge"
    owners     for experts: task to the expert whose own it is
    values     task to its score; `changes` task to the printed change in percent; `average` the printed mean of them
    """

    entry: str
    place: str
    experiment: str
    table: str
    name: str
    kind: Literal["base", "mixture", "experts", "merge"]
    method: str
    weights: tuple[float, ...]
    settings: Mapping[str, str]
    values: Mapping[str, float]
    changes: Mapping[str, float]
    average: float | None = None
    owners: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """A name for what the line says, wherever it stands."""
        return content_id([self.experiment, self.name, dict(self.settings), dict(self.values)])


# -- in a recipe --------------------------------------------------------------------------------------------------


def read_entry(
    reader: Reader, at: At, entry: Any, defaults: Mapping[str, Any], above: Sequence[str]
) -> RecordedTable | None:
    """An entry of `results:` as it stands in a recipe, `above` being the names of those before it; None after noting
    what is wrong."""
    allowed = [name for name in RecordedTable.__dataclass_fields__ if name != "name"]
    before = len(reader.problems)
    given = {**defaults, **reader.mapping(at, entry, allowed)}
    for key in ("file", "experiment", "method", "scores"):
        if key not in given:
            reader.problem(at, f"{dotted(at)} needs {key!r}", f"allowed: {', '.join(allowed)}")
    texts = ("file", "experiment", "table", "method", "average", "behind")
    plain = {key: reader.value((*at, key), given[key], str, "") for key in texts if key in given}
    if plain.get("behind") and plain["behind"] not in above:
        hint = suggest(plain["behind"], above) if above else "the entry has to stand above this one"
        reader.problem((*at, "behind"), f"no entry above is called {plain['behind']!r}", hint)
    scores = {
        column: found
        for column, value in reader.mapping((*at, "scores"), given.get("scores", {})).items()
        if (found := _score_column(reader, (*at, "scores", column), value))
    }
    rows = {
        value: _row_kind(reader, (*at, "rows", value), kind, scores)
        for value, kind in reader.mapping((*at, "rows"), given.get("rows", {})).items()
    }
    where = {
        column: tuple(str(one) for one in (value if isinstance(value, list) else [value]))
        for column, value in reader.mapping((*at, "where"), given.get("where", {})).items()
    }
    settings = {
        name: reader.value((*at, "settings", name), column, str, "")
        for name, column in reader.mapping((*at, "settings"), given.get("settings", {})).items()
    }
    weights = reader.names((*at, "weights"), given.get("weights", []), None, "column")
    if plain.get("file"):
        try:
            find(plain["file"], reader.file.path.parent)
        except SourceError as error:
            reader.problem((*at, "file"), error.message, error.hint)
    if len(reader.problems) > before:
        return None
    columns = {"weights": weights, "settings": settings, "where": where}
    whole: dict[str, Any] = {**plain, **columns, "scores": scores, "rows": rows}
    return RecordedTable(str(at[-1]), **whole)


def _score_column(reader: Reader, at: At, value: Any) -> ScoreColumn | None:
    before = len(reader.problems)
    given = reader.mapping(at, value, list(ScoreColumn.__dataclass_fields__), ["task", "metric"])
    kinds: Mapping[str, type] = {"n": int, "counted": bool, "higher_is_better": bool}
    for key, part in given.items():
        reader.value((*at, key), part, kinds.get(key, str), None)
    if given.get("counted") and not given.get("n"):
        reader.problem(at, f"{dotted(at)} is counted and has no n", "k of n needs n: how many samples were scored")
    return ScoreColumn(**given) if len(reader.problems) == before else None


def _row_kind(
    reader: Reader, at: At, value: Any, scores: Mapping[str, ScoreColumn]
) -> str | Mapping[str, tuple[str, ...]]:
    if value in ("base", "mixture"):
        return str(value)
    if not isinstance(value, dict):
        hint = "allowed: base, mixture, or {expert: [the columns of scores that are its own], …}"
        reader.problem(at, f"{dotted(at)} is {value!r}", hint)
        return ""
    owners = {name: reader.names((*at, name), columns, scores, "column of scores") for name, columns in value.items()}
    if missing := sorted(set(scores) - {column for columns in owners.values() for column in columns}):
        reader.problem(at, f"no expert of {dotted(at)} has {missing[0]!r} for its own", "each column has one")
    return owners


def find(file: str, beside: Path) -> Path:
    """A recorded file: as given from the working directory, beside the recipe, or in or beside the data folder
    (`MIXMERGE_DATA`, by default `../shared/data` next to a clone). SourceError when it is in none of them."""
    data = Path(os.environ.get(DATA_FOLDER, Path(__file__).parent.parent.parent / "shared" / "data"))
    places = [Path(file).expanduser(), beside / file, data / file, data.parent / file]
    for place in places:
        if place.is_file():
            return place
    raise SourceError(
        f"there is no file {file}",
        hint=f"a path is looked up from here, beside the recipe, and in and beside the folder ${DATA_FOLDER}",
    )


def pin(path: Path) -> str:
    """What a step's identity says about a recorded file: its content, not its place."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def to_json(tables: Sequence[RecordedTable]) -> list[dict[str, Any]]:
    """Entries as JSON-like values; `from_json` turns them back."""
    return [asdict(table) for table in tables]


def from_json(data: Sequence[Mapping[str, Any]]) -> list[RecordedTable]:
    return [
        RecordedTable(
            **{
                **one,
                "scores": {column: ScoreColumn(**value) for column, value in one["scores"].items()},
                "weights": tuple(one["weights"]),
            }
        )
        for one in data
    ]


# -- in a file ----------------------------------------------------------------------------------------------------


def read_lines(table: RecordedTable, path: Path) -> Iterator[RecordedLine]:
    """The lines of an entry. SourceError, with the place, where a column is missing or holds no number."""
    for number, row in enumerate(files.read_file(path), 2):
        place = f"{path.name}:{number}"
        if any(_cell(row, column, place) not in values for column, values in table.where.items()):
            continue
        yield _line(table, row, place)


def _line(table: RecordedTable, row: Mapping[str, Any], place: str) -> RecordedLine:
    method = _cell(row, table.method, place)
    what = table.rows.get(method, "merge")
    values = {
        one.task: _number(row, column, place) for column, one in table.scores.items() if _cell(row, column, place)
    }
    changes = {
        one.task: _number(row, one.change, place)
        for one in table.scores.values()
        if one.change and _cell(row, one.change, place)
    }
    printed = _cell(row, table.average, place) if table.average else ""
    weights = tuple(_number(row, column, place) for column in table.weights if _cell(row, column, place))
    settings = {name: text for name, column in table.settings.items() if (text := _cell(row, column, place))}
    owners = what if isinstance(what, Mapping) else {}
    return RecordedLine(
        table.name,
        place,
        _filled(table.experiment, row, place),
        _filled(table.table, row, place),
        _name(method, weights, settings) if what == "merge" else method,
        "experts" if owners else what,  # type: ignore[arg-type]
        method,
        weights,
        settings,
        values,
        changes,
        _number(row, table.average, place) if printed else None,
        {table.scores[column].task: expert for expert, columns in owners.items() for column in columns},
    )


def _name(method: str, weights: Sequence[float], settings: Mapping[str, str]) -> str:
    detail = f" ({', '.join(f'{key} {value}' for key, value in settings.items())})" if settings else ""
    return f"{method} {'/'.join(f'{weight:g}' for weight in weights)}".strip() + detail


def _filled(template: str, row: Mapping[str, Any], place: str) -> str:
    try:
        return template.format_map(row)
    except (KeyError, ValueError, IndexError) as error:
        hint = f"columns: {', '.join(map(str, row))}"
        raise SourceError(f"{place}: {template!r} cannot be filled in: {error}", hint=hint) from None


def _cell(row: Mapping[str, Any], column: str, place: str) -> str:
    if column not in row:
        raise SourceError(f"{place}: there is no column {column!r}", hint=f"columns: {', '.join(map(str, row))}")
    return str(row[column] or "").strip()


def _number(row: Mapping[str, Any], column: str, place: str) -> float:
    text = _cell(row, column, place)
    try:
        return float(text)
    except ValueError:
        raise SourceError(f"{place}: {column} is {text!r}, not a number", hint="give such a line to no entry") from None
