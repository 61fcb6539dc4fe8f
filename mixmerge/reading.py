"""Walks a parsed YAML file and notes every problem with its file:line, instead of stopping at the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import yamlfile
from .components import Component, Parameter
from .errors import PluginError, Problem, suggest
from .registry import Registry

At = tuple[str | int, ...]
"""The place of a value: keys and indices from the top."""


@dataclass(frozen=True)
class Use:
    """A component with its parameters, validated, defaults filled in."""

    component: Component
    parameters: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.component.name


class Reader:
    """Walks the parsed YAML. Every method takes the place of a value, `at`, and notes problems instead of raising."""

    def __init__(self, file: yamlfile.YamlFile, registry: Registry) -> None:
        self.file = file
        self.registry = registry
        self.problems: list[tuple[int, Problem]] = []

    def problem(self, at: At, what: str, hint: str = "") -> None:
        problem = Problem(self.file.where(at), what, hint)
        if problem not in [known for _, known in self.problems]:
            self.problems.append((self.file.line(at), problem))

    # -- values ------------------------------------------------------------------------------------------------

    def mapping(self, at: At, value: Any, allowed: Iterable[str] = (), required: Iterable[str] = ()) -> dict[str, Any]:
        """A mapping with known keys (any keys when `allowed` is empty); {} after noting what is wrong."""
        if not isinstance(value, dict):
            self.problem(at, f"{dotted(at)} is {describe(value)}, not a mapping", listed(allowed))
            return {}
        found = {}
        for key, item in value.items():
            if not isinstance(key, str) or (allowed and key not in allowed):
                self.problem((*at, key), f"unknown key {key!r} in {dotted(at)}", suggest(str(key), allowed))
            else:
                found[key] = item
        for key in required:
            if key not in value:
                self.problem(at, f"{dotted(at)} needs {key!r}", listed(allowed))
        return found

    def value(self, at: At, value: Any, annotation: Any, default: Any, allowed: str = "") -> Any:
        """`value` if it has the annotated type, else `default` after noting what is wrong; `allowed` in words, where
        the type says too little."""
        parameter = Parameter(str(at[-1]), annotation, default)
        if wrong := parameter.problem(value):
            self.problem(at, f"{dotted(at)}: {wrong}", f"allowed: {allowed or parameter.allowed}")
            return default
        return value

    def names(self, at: At, value: Any, allowed: Iterable[str] | None, what: str) -> tuple[str, ...]:
        """A list of names (one name alone will do) out of `allowed`, none twice."""
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            self.problem(at, f"{dotted(at)} is {describe(value)}, not a list of names")
            return ()
        for index, name in enumerate(listed):
            if allowed is not None and name not in allowed:
                self.problem((*at, index), f"no {what} is called {name!r}", suggest(name, allowed))
            elif name in listed[:index]:
                self.problem((*at, index), f"{name!r} stands twice in {dotted(at)}")
        return tuple(listed)

    def use(self, kind: str, at: At, value: Any, defaults: Any = None) -> Use | None:
        """`name` or `name: {parameter: value}`; `defaults` fills in parameters of the same component."""
        if value is None and "null" in self.registry.names(kind):
            value = "null"  # a name, which YAML takes for nothing
        name, given = name_and_parameters(value)
        default_name, default_given = name_and_parameters(defaults)
        if name is None:
            self.problem(at, f"{dotted(at)} is {describe(value)}, not a {kind}", f"write {kind}: name or name: {{…}}")
            return None
        try:
            component = self.registry.get(kind, name)
        except PluginError as error:
            self.problem((*at, name), error.message, error.hint)
            return None
        if name == default_name:
            given = {**default_given, **given}
        problems = component.problems(given)
        for parameter, what, hint in problems:
            self.problem((*at, name, *([parameter] if parameter else [])), what, hint)
        return None if problems else Use(component, component.complete(given))


def name_and_parameters(value: Any) -> tuple[str | None, dict[str, Any]]:
    if isinstance(value, str):
        return value, {}
    if isinstance(value, dict) and len(value) == 1:
        name, parameters = next(iter(value.items()))
        if isinstance(name, str) and (parameters is None or isinstance(parameters, dict)):
            return name, dict(parameters or {})
    return None, {}


def dotted(at: At) -> str:
    return ".".join(str(part) for part in at) or "the top level"


def describe(value: Any) -> str:
    names = {
        dict: "a mapping",
        list: "a list",
        str: f"the text {value!r}",
        type(None): "empty",
        bool: f"{value}".lower(),
    }
    if isinstance(value, list | dict) and not value:
        return "empty"
    return names.get(type(value), repr(value))


def listed(names: Iterable[str]) -> str:
    text = ", ".join(names)
    return f"allowed: {text}" if text else ""
