"""A mergekit YAML, read strictly: what mergekit drops without a word is a problem here, with its file:line.

Its meaning is mergekit's: a parameter is looked up under the model, then the slice, then the top; a list is a gradient
over the layers of its slice; `filter` is a part of a tensor's name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from .. import yamlfile
from ..errors import MixmergeError, RecipeError
from ..reading import At, Reader, describe, dotted, listed
from .config import Input, Known, MergeFile, Scalar, Scope, Setting, Slice

DTYPES = ("float32", "bfloat16", "float16")
KEYS = (
    *("models", "slices", "merge_method", "base_model", "parameters", "dtype", "out_dtype"),
    *("tokenizer_source", "tokenizer", "chat_template", "modules"),
)


def is_one(path: Path) -> bool:
    """Whether a file is a mergekit configuration rather than a recipe."""
    return yamlfile.has_key(path, "merge_method")


Methods = Callable[[str], tuple[Mapping[str, tuple[str, Any]], str]]
"""A method's parameters as (scope, default), the default None where it must be given, and whether a base is "required",
"optional" or neither; raises for no such method."""


def read(path: Path, methods: Methods) -> MergeFile:
    """Read and check a configuration.

    Raises RecipeError with every problem at once.
    """
    file = yamlfile.read(path)
    found = _MergeReader(file, methods).read()
    return found


class _MergeReader(Reader):
    def __init__(self, file: yamlfile.YamlFile, methods: Methods) -> None:
        super().__init__(file, None)  # type: ignore[arg-type]  # no component is named in such a file
        self.methods = methods
        self.unsupported: list[str] = []
        self.known: Mapping[str, Known] = {}
        self.policy = ""  # what the method does with a base

    def read(self) -> MergeFile:
        top = self.file.data
        if isinstance(top, dict):
            self._misplaced(top)
        top = self.mapping((), top, KEYS, ["merge_method"])
        method = self._method(top.get("merge_method"))
        base = self._model(("base_model",), top["base_model"]) if top.get("base_model") else None
        slices = self._slices(top)
        parameters = self._parameters(("parameters",), top.get("parameters"), base, whose="")
        if slices:
            self._base(method, base, slices)
        found = MergeFile(
            self.file.path,
            method,
            slices,
            base,
            parameters,
            self.known,
            self.policy in ("required", "optional"),
            self._one_of(("dtype",), top.get("dtype"), DTYPES),
            self._one_of(("out_dtype",), top.get("out_dtype"), DTYPES),
            self._tokenizer(top),
            self._template(top.get("chat_template")),
            tuple(self.unsupported),
        )
        if not self.problems:
            self._required(found)
        if self.problems:
            ordered = sorted(self.problems, key=lambda item: item[0])
            raise RecipeError([problem for _, problem in ordered])
        return found

    def _misplaced(self, top: dict[Any, Any]) -> None:
        """A parameter at the top, which mergekit drops."""
        for key in [key for key in top if key not in KEYS]:
            if key in ("lambda", "weight", "density", "epsilon", "gamma", "normalize", "rescale", "int8_mask", "t"):
                self.problem((key,), f"{key!r} stands at the top", "write it under `parameters:`; mergekit ignores it")
                del top[key]

    def _method(self, value: Any) -> str:
        if value is None:
            return ""
        try:
            parameters, self.policy = self.methods(str(value))
            self.known = {name: Known(cast(Scope, scope), default) for name, (scope, default) in parameters.items()}
        except MixmergeError as error:
            self.problem(("merge_method",), error.message, error.hint)
        return str(value)

    # -- inputs --------------------------------------------------------------------------------------------------

    def _slices(self, top: Mapping[str, Any]) -> tuple[Slice, ...]:
        given = [key for key in ("models", "slices", "modules") if top.get(key) is not None]
        if len(given) != 1:
            self.problem((), f"needs one of models, slices and modules, not {', '.join(given) or 'none'}")
            return ()
        if given == ["modules"]:
            self.unsupported.append("`modules`: models of several modules")
            return ()
        value = top[given[0]]
        if not isinstance(value, list) or not value:
            self.problem((given[0],), f"{given[0]} is {describe(value)}, not a list")
            return ()
        if given == ["models"]:
            inputs = [
                self._input(("models", index), entry, ("model", "parameters")) for index, entry in enumerate(value)
            ]
            return (Slice(self._distinct(("models",), inputs)),)
        return tuple(self._slice(("slices", index), entry) for index, entry in enumerate(value))

    def _slice(self, at: At, value: Any) -> Slice:
        entry = self.mapping(at, value, ("sources", "parameters", "base_model", "residual_weight"), ["sources"])
        for key in ("base_model", "residual_weight"):
            if entry.get(key) is not None:
                self.unsupported.append(f"`{dotted((*at, key))}`: a slice with a {key} of its own")
        sources = entry.get("sources")
        if not isinstance(sources, list) or not sources:
            self.problem((*at, "sources"), f"{dotted((*at, 'sources'))} is {describe(sources)}, not a list")
            return Slice(())
        keys = ("model", "layer_range", "parameters")
        inputs = [self._input((*at, "sources", index), source, keys) for index, source in enumerate(sources)]
        found = self._distinct((*at, "sources"), inputs)
        lengths = {one.layers[1] - one.layers[0] for one in found if one.layers}
        if len(lengths) > 1:
            self.problem(at, f"{dotted(at)}: sources of different numbers of layers: {sorted(lengths)}")
        return Slice(found, self._parameters((*at, "parameters"), entry.get("parameters"), None, whose=""))

    def _input(self, at: At, value: Any, keys: tuple[str, ...]) -> Input:
        entry = self.mapping(at, value, keys, [key for key in keys if key != "parameters"])
        model = self._model((*at, "model"), entry["model"]) if "model" in entry else Input("")
        layers = None
        if "layer_range" in entry:
            layers = self._range((*at, "layer_range"), entry["layer_range"])
        parameters = self._parameters((*at, "parameters"), entry.get("parameters"), model, whose=model.model)
        return Input(model.model, model.adapter, layers, parameters)

    def _model(self, at: At, value: Any) -> Input:
        """`PATH`, `OWNER/NAME`, or either with `+ADAPTER`; mergekit's nested spelling is unsupported."""
        if isinstance(value, str) and value:
            model, _, adapter = value.partition("+")
            return Input(model, adapter)
        if isinstance(value, dict):
            self.unsupported.append(f"`{dotted(at)}` as a mapping")
            return Input(str(value))
        self.problem(at, f"{dotted(at)} is {describe(value)}, not a model", "a directory, or OWNER/NAME on the hub")
        return Input("")

    def _distinct(self, at: At, inputs: list[Input]) -> tuple[Input, ...]:
        seen: dict[tuple[str, str], str] = {}
        for index, one in enumerate(inputs):
            key = (str(Path(one.model).resolve()) if Path(one.model).exists() else one.model, one.adapter)
            if key in seen and one.model:
                also = f", first as {seen[key]!r}" if seen[key] != one.model else ""
                self.problem((*at, index), f"{one.model!r} stands twice in {dotted(at)}{also}", "give it one weight")
            seen.setdefault(key, one.model)
        return tuple(inputs)

    def _range(self, at: At, value: Any) -> tuple[int, int] | None:
        if (
            isinstance(value, list)
            and len(value) == 2
            and all(type(one) is int for one in value)
            and 0 <= value[0] < value[1]
        ):
            return value[0], value[1]
        self.problem(at, f"{dotted(at)} is {value!r}, not [FIRST, END] with FIRST < END")
        return None

    def _base(self, method: str, base: Input | None, slices: tuple[Slice, ...]) -> None:
        inputs = slices[0].inputs
        within = base and any(one.key == base.key for one in inputs)
        if not base and self.policy == "required":
            self.problem(
                ("merge_method",), f"{method} needs `base_model`", "the model that the others were trained from"
            )
        if (
            base
            and self.policy not in ("required", "optional")
            and not within
            and "weight" in self.known
            and self.known["weight"].scope == "input"
        ):
            self.problem(
                ("base_model",),
                f"{method} would average the base in, as one model more",
                "leave base_model out, or list it among the models with a weight",
            )
        if base and within and len(slices) == 1 and len(inputs) == 1:
            self.problem(("models",), "only the base is listed, so there is nothing to merge")

    # -- parameters ----------------------------------------------------------------------------------------------

    def _parameters(self, at: At, value: Any, model: Input | None, whose: str) -> Mapping[str, Setting]:
        if value is None:
            return {}
        found = {}
        for name, item in self.mapping(at, value).items():
            if not self.policy:  # the method is unknown, which is told already
                break
            if name not in self.known:
                self.problem((*at, name), f"{self._said()} has no parameter {name!r}", listed(self.known))
            elif whose and self.known[name].scope == "shared":
                hint = "write it under the top `parameters:`; mergekit ignores it here"
                self.problem((*at, name), f"{name!r} belongs to the merge and not to one model", hint)
            elif setting := self._setting((*at, name), item, self.known[name].default):
                found[name] = setting
        return found

    def _said(self) -> str:
        return str(self.file.data.get("merge_method"))

    def _setting(self, at: At, value: Any, default: Any) -> Setting | None:
        conditions = value if isinstance(value, list) and any(isinstance(one, dict) for one in value) else None
        if isinstance(value, dict):
            conditions = [value]
        if conditions is None:
            values = self._values(at, value, default)
            return Setting(((None, values),)) if values else None
        cases = []
        for index, one in enumerate(conditions):
            entry = self.mapping((*at, index), one, ("filter", "value"), ["value"])
            wanted = entry.get("filter")
            if wanted is not None and not isinstance(wanted, str):
                self.problem((*at, index, "filter"), f"filter is {describe(wanted)}, not a part of a tensor's name")
            if values := self._values((*at, index, "value"), entry.get("value"), default):
                cases.append((wanted, values))
        return Setting(tuple(cases)) if cases else None

    def _values(self, at: At, value: Any, default: Any) -> tuple[Scalar, ...]:
        values = value if isinstance(value, list) else [value]
        name = next(str(part) for part in reversed(at) if isinstance(part, str) and part not in ("value", "filter"))
        for one in values:
            if isinstance(default, bool) and not isinstance(one, bool):
                self.problem(at, f"{name} is {describe(one)}, not true or false")
                return ()
            if not isinstance(default, bool | str) and (
                isinstance(one, bool | str) or not isinstance(one, int | float)
            ):
                self.problem(at, f"{name} is {describe(one)}, not a number")
                return ()
            if isinstance(one, float) and not math.isfinite(one):
                self.problem(at, f"{name} is {one}", "a finite number")
                return ()
            if name == "density" and not 0 < one <= 1:
                self.problem(at, f"density is {one}", "more than 0, and at most 1")
                return ()
        if not values:
            self.problem(at, f"{name} is an empty list")
        return tuple(values)

    def _required(self, found: MergeFile) -> None:
        """Every parameter that has no default has to be found for every model of every slice."""
        for number, part in enumerate(found.slices):
            for one in part.inputs:
                is_base = found.base is not None and one.key == found.base.key
                for name, known in found.known.items():
                    lacks = (
                        known.default is None
                        and known.scope != "shared"
                        and not (is_base and known.scope == "non_base")
                    )
                    given = {**found.parameters, **part.parameters, **one.parameters}
                    if lacks and name not in given:
                        at: At = ("models",) if "models" in self.file.data else ("slices", number)
                        self.problem(at, f"{one.model}: no {name!r}", f"parameters: {{{name}: …}}")
                    if is_base and known.scope == "non_base" and name in one.parameters:
                        self.problem(("models",), f"{one.model} is the base, which takes no {name!r}", "leave it out")

    # -- the rest ------------------------------------------------------------------------------------------------

    def _one_of(self, at: At, value: Any, allowed: tuple[str, ...]) -> str | None:
        if value is not None and value not in allowed:
            self.problem(at, f"{dotted(at)} is {describe(value)}", listed(allowed))
        return value if value in allowed else None

    def _text(self, at: At, value: Any) -> str | None:
        if value is not None and not isinstance(value, str):
            self.problem(at, f"{dotted(at)} is {describe(value)}, not a text")
            return None
        return value

    def _template(self, value: Any) -> str | None:
        found = self._text(("chat_template",), value)
        if found and "{" not in found:
            self.unsupported.append(f"`chat_template: {found}`: only a whole template")
        return found

    def _tokenizer(self, top: Mapping[str, Any]) -> str | None:
        if (given := top.get("tokenizer")) is not None:
            if top.get("tokenizer_source") is not None:
                self.problem(("tokenizer",), "tokenizer and tokenizer_source are both given", "one of them")
            entry = self.mapping(("tokenizer",), given, ("source", "tokens", "pad_to_multiple_of"))
            for key in ("tokens", "pad_to_multiple_of"):
                if entry.get(key) is not None:
                    self.unsupported.append(f"`tokenizer.{key}`")
            return self._text(("tokenizer", "source"), entry.get("source", "union"))
        return self._text(("tokenizer_source",), top.get("tokenizer_source"))
