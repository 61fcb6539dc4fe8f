"""YAML with line numbers: the only parser of recipes. A leaf.

Differs from PyYAML's safe loader in two ways that a recipe's reader would expect: `5e-6` is a number (YAML 1.2), and
a key written twice is an error instead of the last one winning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import Problem, RecipeError

Path_ = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)
# An integer must keep winning over the wider float pattern above: PyYAML takes the first match, so put int first.
for _first, _resolvers in _Loader.yaml_implicit_resolvers.items():
    _Loader.yaml_implicit_resolvers[_first] = sorted(_resolvers, key=lambda pair: not pair[0].endswith(":int"))


@dataclass(frozen=True)
class YamlFile:
    """`data` as plain Python values; `line(path)` says where a value, or its nearest parent, stands (from 1)."""

    path: Path
    text: str
    data: Any
    lines: Mapping[Path_, int]

    def line(self, path: Path_) -> int:
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def where(self, path: Path_) -> str:
        return f"{self.path}:{self.line(path)}"


def read(path: Path) -> YamlFile:
    """Parse a file. Raises RecipeError when it is not there, is no YAML, or has a key twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        hint = "give the path of a recipe, or the name of one that comes with mixmerge, such as quickstart"
        raise RecipeError([Problem(str(path), f"cannot be read: {reason.lower()}", hint)]) from None
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[Path_, int] = {}
        problems: list[Problem] = []
        if node is not None:
            _walk(node, (), path, lines, problems)
        if problems:
            raise RecipeError(problems)
        data = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        hint = "look for a tab, a bracket that is not closed, or a missing blank after a colon, here or a line above"
        raise RecipeError([Problem(f"{path}:{line}", f"no valid YAML: {error.problem}", hint)]) from None
    finally:
        loader.dispose()
    return YamlFile(path, text, data, lines)


def _walk(node: yaml.Node, at: Path_, file: Path, lines: dict[Path_, int], problems: list[Problem]) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = key.value
            if (*at, name) in lines:
                where = f"{file}:{key.start_mark.line + 1}"
                problems.append(Problem(where, f"{name!r} stands twice; first on line {lines[(*at, name)]}"))
            lines[(*at, name)] = key.start_mark.line + 1
            _walk(value, (*at, name), file, lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*at, index), file, lines, problems)


def has_key(path: Path, *keys: str) -> bool:
    """Whether a file that need not be right has one of these keys at its top."""
    try:
        return bool(re.search(rf"^({'|'.join(keys)})\s*:", path.read_text("utf-8"), re.MULTILINE))
    except (OSError, UnicodeDecodeError):
        return False
