"""Which tasks there are and what they consist of, read from their YAML without importing lm-eval or torch."""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import mixmerge
from mixmerge import SourceError
from mixmerge.paths import tasks_folder

_SUFFIXES = (".yaml", ".yml")
# `task:`, `group:` or `tag:` at any depth, bare or quoted: groups may define tasks inside themselves
_NAMED = re.compile(rb"^[ \t-]*[\"']?(?:task|group|tag)[\"']?:[ \t]*[\"']?([^\s\"'\[#]+)", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """A task or group of a folder: its file, what it is about, and, for a group, the names in it."""

    file: Path
    summary: str
    members: tuple[str, ...] = ()


def known_tasks() -> list[tuple[str, str]]:
    """The tasks and groups that mixmerge brings: (name, one line about it), sorted."""
    return sorted((name, entry.summary) for name, entry in catalogue(tasks_folder()).items())


@cache
def catalogue(folder: Path) -> Mapping[str, Entry]:
    """Tasks and groups under a folder, by name."""
    return {name: entry for file in _yaml_files(folder) for name, entry in _entries(file)}


def _yaml_files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.suffix in _SUFFIXES)


def _entries(file: Path) -> Iterator[tuple[str, Entry]]:
    text = file.read_text(encoding="utf-8")
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SourceError(f"{file}: {str(error).splitlines()[0]}", hint="a task is one YAML file") from None
    if not isinstance(content, dict):
        return
    about = _comment(text)
    if not about and isinstance(include := content.get("include"), str) and (file.parent / include).is_file():
        about = _comment((file.parent / include).read_text(encoding="utf-8"))
    task = content.get("task")
    if isinstance(group := content.get("group"), str):
        inside = tuple(_member(member) for member in task) if isinstance(task, list) else (str(task),)
        yield group, Entry(file, about or f"group of {', '.join(inside)}", inside)
    elif isinstance(task, str):
        yield task, Entry(file, about)


def _comment(text: str) -> str:
    """The first line of comment, which says what a task is about."""
    return next((line[1:].strip() for line in text.splitlines() if line.startswith("#")), "")


def _member(member: object) -> str:
    return str(member.get("task", member.get("group"))) if isinstance(member, dict) else str(member)


class _Loader(yaml.SafeLoader):
    """Reads `!function utils.name` as text, so that nothing is imported."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


def folders(include_path: str | None) -> tuple[Path, ...]:
    """Where tasks come from beside lm-eval itself: ours, and the recipe's own. SourceError when that is none."""
    if include_path is None:
        return (tasks_folder(),)
    own = Path(include_path).expanduser().absolute()
    if not own.is_dir():
        raise SourceError(f"include_path: {include_path} is no folder", hint="a folder with lm-eval tasks in it")
    return (tasks_folder(), own)


def pins(tasks: Sequence[str], parameters: Mapping[str, Any]) -> dict[str, str]:
    """What the tasks consist of: a digest of the content of ours, the version of lm-eval for its own.

    A key for each task, with the groups of ours expanded, and `:python`, whose library and behaviour ours use. Raises
    SourceError for a name that nobody knows.
    """
    found: dict[str, str] = {}
    for name in tasks:
        for folder in folders(parameters.get("include_path")):
            if name in catalogue(folder):
                found |= _content(name, folder)
                break
        else:
            _require_shipped(name, parameters)
            found |= _content(name, tasks_folder())
    return found


def all_ours(tasks: Sequence[str], include_path: str | None) -> bool:
    """Whether none of the tasks needs lm-eval's own folder, which takes half a minute to read."""
    ours = {name: entry for folder in folders(include_path) for name, entry in catalogue(folder).items()}

    def known(name: str) -> bool:
        return name in ours and all(known(member) for member in ours[name].members if member != name)

    return all(map(known, tasks))


def _content(name: str, folder: Path) -> dict[str, str]:
    """A digest for a task, or for every task of a group."""
    entry = catalogue(folder).get(name)
    if entry is None:
        return {name: f"lm_eval {importlib.metadata.version('lm_eval')}"}
    found: dict[str, str] = {}
    for member in entry.members:
        found |= _content(member, folder) if member != name else {}
    # a task has a folder of its own, with its code and what it includes; what lies at the top has the top
    place = entry.file.parent
    around = place.glob("*") if place == folder else place.rglob("*")
    files = [file for file in sorted(around) if file.suffix in (*_SUFFIXES, ".py")]
    digest = hashlib.sha256()
    for file in files + _used_modules(files, folder, place):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    own = f":{name}" if found else name
    return {**found, own: f"sha256:{digest.hexdigest()}", ":python": platform.python_version()}


def _used_modules(files: Sequence[Path], folder: Path, place: Path) -> list[Path]:
    """What else decides a task's data and verdicts: parts of mixmerge, and other tasks' folders that it names."""
    text = b"".join(file.read_bytes() for file in files if file.suffix == ".py")
    package = Path(mixmerge.__file__).parent
    used = [package / part for part in ("sources", "sandbox") if b"mixmerge." + part.encode() in text]
    beside = [other for other in sorted(folder.iterdir()) if other.is_dir() and other != place]
    used += [other for other in beside if other.name.encode() in text]
    return [file for part in used for file in sorted(part.glob("*.py"))]


def _require_shipped(name: str, parameters: Mapping[str, Any]) -> None:
    shipped = _shipped_names()
    if name in shipped:
        return
    ours = {known for folder in folders(parameters.get("include_path")) for known in catalogue(folder)}
    close = difflib.get_close_matches(name, ours, 3, 0.5) or difflib.get_close_matches(name, shipped, 3, 0.8)
    known_by = f"did you mean {', '.join(close)}? " if close else ""
    raise SourceError(
        f"no task is called {name!r}",
        hint=f"{known_by}see `mixmerge tasks` for ours and `lm_eval ls tasks` for those of lm-eval",
    )


@cache
def _shipped_names() -> frozenset[str]:
    """Names in lm-eval's own folder. A superset: a few may turn out not to be runnable."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        return frozenset()
    names: set[str] = set()
    for parent, _, files in os.walk(Path(spec.origin).parent / "tasks"):
        for file in files:
            if file.endswith(_SUFFIXES):
                names.update(found.decode() for found in _NAMED.findall(Path(parent, file).read_bytes()))
    return frozenset(names)
