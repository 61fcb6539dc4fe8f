"""A function becomes a named, versioned component; its keyword-only parameters are what a recipe may set.

Annotations are the schema (pydantic's, so `Annotated[float, Field(gt=0, le=1)]` bounds a value), defaults the
defaults, and the docstring the help that `mixmerge show NAME` prints.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .errors import PluginError
from .types import Document

KINDS = ("trainer", "merger", "evaluator", "diagnostic", "strategy", "advisor", "executor", "reporter")


@dataclass(frozen=True)
class Parameter:
    """One keyword-only parameter of a component. `default` is `inspect.Parameter.empty` when it is required."""

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    def problem(self, value: object) -> str:
        """What is wrong with `value`, and what is allowed; "" when nothing is."""
        from pydantic import ConfigDict, TypeAdapter, ValidationError

        try:
            TypeAdapter(self.annotation, config=ConfigDict(strict=True, arbitrary_types_allowed=True)).validate_python(
                value
            )
        except ValidationError as error:
            worst = max(error.errors(), key=lambda one: len(one["loc"]))  # of alternatives the one that fits furthest
            within = "" if worst["input"] is value else f" in {value!r}"
            return f"{worst['msg'][:1].lower()}{worst['msg'][1:]}, not {worst['input']!r}{within}"
        return ""

    @property
    def allowed(self) -> str:
        """The annotation as a reader would write it, with its bounds."""
        return _describe(self.annotation)


@dataclass(frozen=True)
class Component:
    """A function with a name, a version and a kind.

    prepare  mergers: the part that does not look at the weights, a function of its own with its own parameters
    finish   diagnostics: turns the sums of a group of tensors into measurements
    totals   diagnostics: what the function will ask `t.total` for; one pass over a tensor then serves all diagnostics
    check    given all parameters by keyword, returns what is wrong with their combination, or ""
    fits     mergers: as `check`, given the weights too (one for each expert) by position
    pins     evaluators: what each task consists of, for a step's identity; see `hookspecs`
    tasks    evaluators: the tasks that come with it, as (name, one line about it)
    contents evaluators: the documents of tasks, for the contamination gate; see `hookspecs`
    files    mergers: given a Derivation, the files that belong beside its weights (name to text): a mergekit YAML
    speed    names of parameters that change how fast it goes and not what comes out; no part of a step's identity
    whole    mergers: needs whole checkpoints rather than one tensor at a time
    plugin   the plugin that registered it; code: a digest of that plugin's source, "" where its version stands for it
    """

    kind: str
    name: str
    version: str
    function: Callable[..., Any]
    source: str = ""
    prepare: Callable[..., Any] | None = None
    finish: Callable[..., Any] | None = None
    totals: Sequence[Callable[..., Any]] = ()
    check: Callable[..., str] | None = None
    fits: Callable[..., str] | None = None
    pins: Callable[..., Mapping[str, str]] | None = None
    tasks: Callable[[], Sequence[tuple[str, str]]] | None = None
    contents: Callable[..., Mapping[str, Sequence[Document] | str]] | None = None
    files: Callable[..., Mapping[str, str]] | None = None
    speed: tuple[str, ...] = ()
    whole: bool = False
    plugin: str = field(default="", compare=False)
    code: str = field(default="", compare=False)

    @property
    def identity(self) -> str:
        """What stands for the component in a step's id: its version, and its plugin's source where that is at hand to
        be edited, such as "1+9f86d081884c"."""
        return f"{self.version}+{self.code}" if self.code else self.version

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """Keyword-only parameters of the function, and of `prepare` before them."""
        found = {**self.prepare_parameters, **_keyword_only(self.function)}
        return dict(sorted(found.items(), key=lambda item: not item[1].required))

    @cached_property
    def prepare_parameters(self) -> Mapping[str, Parameter]:
        return _keyword_only(self.prepare) if self.prepare else {}

    @cached_property
    def contents_parameters(self) -> Mapping[str, Parameter]:
        """Those of the component's parameters that decide what its tasks hold."""
        return _keyword_only(self.contents) if self.contents else {}

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.function) or "").strip().split("\n", 1)[0]

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """`given` with defaults filled in, in a canonical order. Assumes that `given` has been validated."""
        return {
            name: given.get(name, parameter.default)
            for name, parameter in sorted(self.parameters.items())
            if name in given or not parameter.required
        }

    def problems(self, given: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """Everything wrong with `given`, as (parameter or "", what, hint)."""
        found: list[tuple[str, str, str]] = []
        for name, value in given.items():
            if name not in self.parameters:
                hint = f"{self.name} takes {', '.join(self.parameters) or 'no parameters'}"
                found.append((name, f"unknown parameter {name!r} of {self.kind} {self.name!r}", hint))
            elif wrong := self.parameters[name].problem(value):
                allowed = self.parameters[name].allowed
                found.append((name, f"{self.name}.{name}: {wrong}", f"allowed: {allowed}"))
        for name, parameter in self.parameters.items():
            if parameter.required and name not in given and not found:  # a misspelt name is said once
                found.append(("", f"{self.kind} {self.name!r} needs {name!r}", f"{name}: {parameter.allowed}"))
        if not found and self.check and (wrong := self.check(**self.complete(given))):
            found.append(("", f"{self.name}: {wrong}", f"see `mixmerge show {self.name}`"))
        return found


def _keyword_only(function: Callable[..., Any] | None) -> dict[str, Parameter]:
    if function is None:
        return {}
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError:  # positional annotations may name torch types that are imported for type checking only
        hints = _hints_one_by_one(function)
    return {
        parameter.name: Parameter(parameter.name, hints.get(parameter.name, Any), parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _hints_one_by_one(function: Callable[..., Any]) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    scope = getattr(function, "__globals__", {})
    for name, annotation in getattr(function, "__annotations__", {}).items():
        try:
            hints[name] = eval(annotation, scope) if isinstance(annotation, str) else annotation
        except NameError:
            hints[name] = Any
    return hints


def _describe(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        bounds = [_bound(part) for extra in arguments[1:] for part in getattr(extra, "metadata", (extra,))]
        return " ".join([_describe(arguments[0]), *filter(None, bounds)])
    if origin is typing.Literal:
        return " | ".join(str(argument) for argument in arguments)
    if annotation is type(None):
        return "null"
    if origin is not None and arguments and str(origin) in ("<class 'types.UnionType'>", "typing.Union"):
        return " | ".join(_describe(argument) for argument in arguments)
    if origin is not None:
        return f"{getattr(origin, '__name__', origin)}[{', '.join(_describe(argument) for argument in arguments)}]"
    return getattr(annotation, "__name__", str(annotation))


def _bound(extra: object) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return " ".join(f"{sign} {getattr(extra, name)}" for name, sign in signs.items() if hasattr(extra, name))


_SUPPLIED: Mapping[str, tuple[str, ...]] = {
    "trainer": ("start", "data", "out", "seed"),
    "merger": ("t",),
    "checkpoint_merger": ("base", "experts", "weights", "out", "seed"),
    "evaluator": ("model", "tasks", "out", "seed"),
    "diagnostic": ("t",),
    "strategy": ("space", "trials", "seed"),
    "advisor": ("results",),
    "executor": ("worker",),
    "reporter": ("results", "out"),
}
"""What mixmerge supplies by position; everything else is a parameter of the recipe, by keyword."""


def _require_positions(what: str, function: Callable[..., Any], supplied: Sequence[str]) -> None:
    found = list(inspect.signature(function).parameters.values())
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in found):
        return
    given = [one.name for one in found if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(given) > len(supplied):
        more = ", ".join(repr(name) for name in given[len(supplied) :])
        raise PluginError(f"{what}: {more} must be given by keyword", hint=f"write `*, ` before {given[len(supplied)]}")
    if len(given) < len(supplied):
        hint = f"{', '.join(supplied)} come first, under any names"
        raise PluginError(f"{what} takes {len(given)} of the {len(supplied)} values that mixmerge supplies", hint=hint)


Function = typing.TypeVar("Function", bound=Callable[..., Any])


def rowwise(function: Function) -> Function:
    """Say of a merger's function, or of its `prepare`, that each row (index along the first dimension) is worked on
    by itself, so that it may be given some rows at a time: its `t.deltas` is then (experts, rows, …).

    That keeps memory small and the work in the processor's cache. A vector is one row and always comes whole. What
    needs more than its own rows asks `t.total`. Under `@merger(…)`: that comes first.
    """
    function.rowwise = True  # type: ignore[attr-defined]
    return function


Decorator = Callable[[Callable[..., Any]], Component]


def _decorator(kind: str, **fixed: Any) -> Callable[..., Decorator]:
    def outer(*, name: str, version: str, source: str = "", **extra: Any) -> Decorator:
        def inner(function: Callable[..., Any]) -> Component:
            if not name.replace("_", "").isalnum() or name != name.lower():
                raise PluginError(f"{kind} name {name!r} is not in lower_snake_case", hint="such as sign_mean")
            supplied = _SUPPLIED["checkpoint_merger" if fixed.get("whole") else kind]
            _require_positions(f"{kind} {name!r}", function, supplied)
            if extra.get("prepare"):
                _require_positions(f"prepare of {kind} {name!r}", extra["prepare"], _SUPPLIED["merger"])
            return Component(kind, name, version, function, source, **fixed, **extra)

        return inner

    outer.__name__ = kind
    outer.__doc__ = f"Make a function a {kind}; `hookspecs` gives the signature it must have."
    return outer


trainer = _decorator("trainer")
merger = _decorator("merger")
checkpoint_merger = _decorator("merger", whole=True)
evaluator = _decorator("evaluator")
diagnostic = _decorator("diagnostic")
strategy = _decorator("strategy")
advisor = _decorator("advisor")
executor = _decorator("executor")
reporter = _decorator("reporter")
