"""`mixmerge score`: score what any system generated on a task of ours, without a model.

The task's YAML is found in the task folders; its `utils.py` offers `score(request, samples) -> Scored`. Here is what
all tasks share: reading samples, telling a user what is wrong with them, and writing results beside them.
"""

from __future__ import annotations

import difflib
import gzip
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from .errors import SourceError
from .paths import tasks_folder

Problem = TypeVar("Problem")
ANSWERS = ("response", "output", "prediction", "answer", "text")
_FORMS = (
    "one JSON object a line with task_id (or id) and solution, completion or output; EvalPlus' eval_results.json or "
    "folder; lm-eval's samples_TASK.jsonl; or, in a file of another name, ID<TAB>OUTPUT a line, or an output a line"
)


@dataclass(frozen=True)
class Sample:
    """One generated text, and the problem that it answers.

    place  where it stands, as FILE:LINE
    kind   "solution": to be scored as it stands; "completion": belongs after the prompt; "answer": what a model said,
           from which the task takes what counts
    logged whether lm-eval logged it: the response as a model gave it to that task
    """

    place: str
    id: str
    text: str
    kind: Literal["solution", "completion", "answer"]
    logged: bool = False


@dataclass(frozen=True)
class Request:
    """What is asked of a task: its YAML's content, `data` instead of its own, and whether solutions are to be put
    through its extraction too. `progress(done, all)` may be called."""

    task: str
    config: Mapping[str, Any]
    data: Path | None = None
    workers: int | None = None
    sanitize: bool = False
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class Scored:
    """`summary` is what `--json` prints, `lines` what is printed without, `file` what is kept beside the samples;
    `notes` are what a user should look at, for standard error."""

    summary: Mapping[str, Any]
    lines: Sequence[str]
    file: Mapping[str, Any]
    notes: Sequence[str] = ()


def score(
    task: str,
    samples: Path,
    *,
    data: Path | None = None,
    workers: int | None = None,
    sanitize: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Scored:
    """Score a file of samples on a task. Raises SourceError for what is wrong with the task's name, the samples (by
    file and line, before anything is executed) or the data."""
    config, function = _scorer(task)
    if data is not None and not data.is_file():
        what = f"{data} is a folder" if data.is_dir() else f"there is no file {data}"
        raise SourceError(what, hint="--data takes a file with the task's problems")
    given = read_samples(samples)
    return function(Request(task, config, data, workers, sanitize, progress), given)


def attempts(
    samples: Sequence[Sample], problems: Mapping[str, Problem], same_id: Callable[[str], str] = str
) -> list[tuple[str, Sample]]:
    """Samples with the ids of their problems. SourceError, naming the line, for an id that no problem has."""
    found = []
    for sample in samples:
        id = sample.id if sample.id in problems else same_id(sample.id)
        if id not in problems:
            close = difflib.get_close_matches(id, problems, 3)
            meant = f"did you mean {', '.join(close)}? " if close else ""
            raise SourceError(
                f"{sample.place}: no problem has the id {sample.id!r}",
                hint=f"{meant}there are {len(problems)} problems, such as {next(iter(problems))}; --data takes others",
            )
        found.append((id, sample))
    return found


def results_file(samples: Path) -> Path:
    """Where EvalPlus puts the results of these samples."""
    if samples.is_dir():
        return samples / "eval_results.json"
    for ending in (".jsonl.gz", ".jsonl", ".json"):
        if samples.name.endswith(ending):
            stem = samples.name.removesuffix(ending).removesuffix(".eval_results").removesuffix("_eval_results")
            target = samples.with_name(f"{stem}.eval_results.json")
            return target if target != samples else samples.with_name(f"{stem}.rescored.eval_results.json")
    return samples.with_name(f"{samples.name}.eval_results.json")


def require_writable(path: Path) -> None:
    """Raise SourceError when results cannot be written to `path`: before the work, not after it."""
    try:
        if path.is_dir():
            raise SourceError(f"{path} is a folder", hint="--out takes a file")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise _cannot_write(path, error) from error


def write_results(scored: Scored, path: Path) -> Path | None:
    """Write EvalPlus' result format. What was there is kept as PATH.bak, which is returned. SourceError when it cannot
    be written."""
    content = {"date": datetime.now().strftime("%Y-%m-%d %H:%M"), **scored.file}
    new, old = path.with_name(f".{path.name}.{os.getpid()}"), path.with_name(f"{path.name}.bak")
    try:
        new.write_text(json.dumps(content, ensure_ascii=False, default=str), encoding="utf-8")
        kept = path.replace(old) if path.exists() else None
        new.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return kept


def _cannot_write(path: Path, error: OSError) -> SourceError:
    reason = (error.strerror or str(error)).lower()
    return SourceError(f"cannot write {path}: {reason}", hint="--out FILE takes another place")


# -- tasks ------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Reads `!function utils.name` as text, so that nothing is imported."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


def _scorer(task: str) -> tuple[Mapping[str, Any], Callable[[Request, Sequence[Sample]], Scored]]:
    """A task's YAML and the `score` of its utils.py."""
    files = {file.stem: file for file in sorted(tasks_folder().rglob("*.yaml")) if _can_score(file)}
    if task not in files:
        known = [name for name in files if _config(files[name]).get("task") == name]
        close = difflib.get_close_matches(task, known, 3, 0.5)
        meant = f"did you mean {', '.join(close)}? " if close else ""
        raise SourceError(f"no task {task!r} can be scored from a file", hint=f"{meant}there are {', '.join(known)}")
    config = _config(files[task])
    if config.get("task") != task:
        raise SourceError(f"{task} is a group of tasks", hint=f"score one of {', '.join(config.get('task', []))}")
    function: Callable[[Request, Sequence[Sample]], Scored] = _utils(files[task].parent).score
    return config, function


def _can_score(file: Path) -> bool:
    utils = file.with_name("utils.py")
    return utils.is_file() and "\ndef score(" in utils.read_text(encoding="utf-8")


def _config(file: Path) -> dict[str, Any]:
    content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    include = content.pop("include", None)
    return {**(_config(file.parent / include) if include else {}), **content}


def _utils(folder: Path) -> Any:
    name = f"mixmerge_task_{folder.name}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, folder / "utils.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


# -- samples ----------------------------------------------------------------------------------------------------


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file or folder, in its order. SourceError, naming the line, for what cannot be read."""
    if path.is_dir():
        found = list(_folder(path))
    elif not path.is_file():
        raise SourceError(f"there is no file {path}", hint=f"samples are {_FORMS}")
    else:
        try:
            found = list(_file(path))
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise SourceError(f"cannot read {path}: {error}", hint="is it whole, and UTF-8?") from error
    if not found:
        raise SourceError(f"{path} holds no samples", hint=f"samples are {_FORMS}")
    return found


def _folder(path: Path) -> Iterator[Sample]:
    """EvalPlus' folder: HumanEval_0/0.py, HumanEval_0/1.py, …"""
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        for file in sorted(folder.glob("*.py"), key=lambda file: (len(file.name), file.name)):
            text = file.read_text(encoding="utf-8")
            yield Sample(str(file), folder.name.replace("_", "/"), text, "solution")


def text_lines(path: Path) -> list[tuple[str, str, str]]:
    """(FILE:LINE, id, text) of each line of a file that is no JSON; nothing for one that is, or is named as such.

    ID<TAB>TEXT is CodeXGLUE's form of outputs and references: of such a line the second column counts, without the
    white space around it, or "" where there is none. Where no line has a tab, each is a text whose id is its number,
    from 0.
    """
    if path.name.removesuffix(".gz").endswith((".json", ".jsonl", ".parquet")):
        return []
    try:
        with (gzip.open if path.name.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read {path}: {error}", hint="is it whole, and UTF-8?") from error
    if next(filter(None, lines), "{").startswith(("{", "[")):
        return []
    if not any("\t" in line for line in lines):
        return [(f"{path}:{number + 1}", str(number), line) for number, line in enumerate(lines)]
    columns = [(f"{path}:{number}", line.split("\t")) for number, line in enumerate(lines, 1) if line]
    return [(place, first, rest[0].strip() if rest else "") for place, (first, *rest) in columns]


def _file(path: Path) -> Iterator[Sample]:
    if found := text_lines(path):
        yield from (Sample(place, id, text, "answer") for place, id, text in found)
        return
    with gzip.open(path, "rt", encoding="utf-8") if path.name.endswith(".gz") else path.open(encoding="utf-8") as lines:
        if path.name.removesuffix(".gz").endswith(".json"):
            text = lines.read()
            whole = _json(text, str(path)) if text.strip() else []
            if isinstance(whole, dict) and isinstance(whole.get("eval"), dict):
                yield from _results(whole["eval"], path)
                return
            rows: Iterable[tuple[int, Any]] = enumerate(whole if isinstance(whole, list) else [whole], 1)
        else:
            rows = ((i, _json(line.strip(), f"{path}:{i}")) for i, line in enumerate(lines, 1) if line.strip())
        first: Any = None
        for number, row in rows:
            place = f"{path}:{number}"
            if not isinstance(row, dict):
                raise SourceError(f"{place}: no object but {type(row).__name__}", hint=f"samples are {_FORMS}")
            if isinstance(row.get("eval"), dict):
                yield from _results(row["eval"], path)
            elif "doc" in row and "resps" in row:
                first = first or [row.get("filter")]
                if [row.get("filter")] == first:  # lm-eval logs each answer once per filter
                    yield from _logged(row, place)
            else:
                yield _row(row, place)


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f":{error.lineno}" if error.lineno > 1 else ""
        raise SourceError(f"{place}{line}: cannot be read as JSON: {error.msg}", hint=f"samples are {_FORMS}") from None


def _results(results: Mapping[str, Any], path: Path) -> Iterator[Sample]:
    """EvalPlus' eval_results.json, whose verdicts are not looked at."""
    for id, tries in results.items():
        for row in tries if isinstance(tries, list) else []:
            yield _row({"task_id": id, **row}, f"{path}: {id}")


def _logged(row: Mapping[str, Any], place: str) -> Iterator[Sample]:
    """A line of lm-eval's samples_TASK.jsonl: the answers as the model gave them."""
    doc = row["doc"]
    id = next((str(doc[name]) for name in ("id", "task_id") if name in doc), None)
    if id is None:
        raise SourceError(f"{place}: its doc has no id", hint="the log of another task? its docs need id or task_id")
    for answers in row["resps"]:
        for text in [answers] if isinstance(answers, str) else answers:
            yield Sample(place, id, _string(text, place, "resps"), "answer", logged=True)


def _row(row: Mapping[str, Any], place: str) -> Sample:
    id = next((row[name] for name in ("task_id", "id") if name in row), None)
    if isinstance(id, float) and id.is_integer():  # as tables with a gap in the column write a number
        id = int(id)
    if id is None or isinstance(id, list | dict):
        raise SourceError(f"{place}: there is no task_id; it has {', '.join(row)}", hint=f"samples are {_FORMS}")
    for name in ("solution", "completion"):
        if row.get(name) is not None:
            return Sample(place, str(id), _string(row[name], place, name), name)
    for name in ANSWERS:
        if row.get(name) is not None:
            return Sample(place, str(id), _string(row[name], place, name), "answer")
    raise SourceError(
        f"{place}: there is no solution, completion or output; it has {', '.join(row)}", hint=f"samples are {_FORMS}"
    )


def _string(value: object, place: str, name: str) -> str:
    if not isinstance(value, str):
        raise SourceError(
            f"{place}: {name} is no text but {type(value).__name__}",
            hint="several samples of a problem are several lines",
        )
    return value
