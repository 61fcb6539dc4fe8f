"""Any per-tensor merge method that mergekit registers, and the mergekit configuration that repeats a merge.

Everything that mixmerge knows of mergekit's insides is in this module and in `_mergekit_exact`, which gives its bits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixmerge import CheckpointError, Component, Derivation, TensorStack, hookimpl, merger, suggest
from mixmerge.checkpoint import inspect
from mixmerge.plugins._mergekit_exact import OUR_MASKS, align_tokens, compat, methods

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "mergekit_config.yml"
"""The name that mergekit itself gives to the configuration beside a merge."""

__all__ = [
    "CONFIG",
    "align_tokens",
    "compat",
    "config_file",
    "hand_over",
    "mergekit",
    "parameters_of",
    "register_mergers",
    "to_yaml",
]

_REFUSED = {"passthrough": "it copies one model, which is no merge"}


def _check(*, method: str, options: Mapping[str, Any], with_base: bool) -> str:
    known = methods()
    if method in _REFUSED:
        return f"method {method!r} is not available: {_REFUSED[method]}"
    if method not in known:
        return f"mergekit has no method {method!r}; allowed: {', '.join(sorted(set(known) - set(_REFUSED)))}"
    parameters = {parameter.name: parameter for parameter in known[method].spec.parameters}
    weighted = parameters.pop("weight", None)
    if weighted and "weight" in options:
        return "option 'weight' comes from the recipe's `weights`"
    allowed = ", ".join(parameters) or "none"
    if unknown := [name for name in options if name not in parameters]:
        return f"{method} has no option {', '.join(map(repr, unknown))}; allowed: {allowed}"
    if lacking := [name for name, parameter in parameters.items() if parameter.required and name not in options]:
        return f"{method} needs option {', '.join(map(repr, lacking))}"
    return next((wrong for name in options if (wrong := _wrong(parameters[name], options[name]))), "")


def config_file(derivation: Derivation) -> Mapping[str, str]:
    """What belongs beside a written merge: the mergekit configuration, where there is one."""
    text = to_yaml(derivation)
    return {CONFIG: text} if text else {}


@merger(name="mergekit", version="1", source="mergekit, github.com/arcee-ai/mergekit", check=_check, files=config_file)
def mergekit(t: TensorStack, /, *, method: str, options: dict[str, Any] = {}, with_base: bool = True) -> Tensor:  # noqa: B006
    """A merge method of mergekit, by its name there: slerp, nuslerp, breadcrumbs, model_stock, sce, arcee_fusion, …

    method     mergekit's name for it
    options    mergekit's parameters for it, under mergekit's names: one value, or for a parameter that belongs to
               a model a list with one for each expert. `weight` comes from the recipe's `weights`, and is ignored by
               methods that have none. Gradients over layers and filters by tensor name are not available
    with_base  whether the base takes part, where mergekit leaves that open (nuslerp, multislerp). For methods that
               merge exactly a base and one other model (slerp, nearswap, arcee_fusion), false puts the first of two
               experts in the base's place

    Computes in float32. A method that draws random numbers takes them from a generator of its own for each tensor
    (seed, first expert, tensor name), so its result does not depend on the order of work, as it does in mergekit.
    """
    import torch
    from mergekit.merge_methods import merge_tensors

    spec = methods()[method].spec
    experts = t.base + t.deltas
    ids = list(range(len(experts)))
    inputs, base_index = list(experts), None
    if spec.contract.base.value in ("required", "optional") and with_base:
        inputs, ids, base_index = [t.base, *inputs], [-1, *ids], 0
    elif spec.contract.base.value == "required":
        base_index = 0
    values = {name: dict(enumerate(value)) if isinstance(value, list) else value for name, value in options.items()}
    if any(parameter.name == "weight" for parameter in spec.parameters):
        values["weight"] = dict(enumerate(t.weights.flatten().tolist()))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(t.generator(0).initial_seed())
            merged: Tensor = merge_tensors(
                inputs, method, parameters=values, ids=ids, base_index=base_index, name=t.name
            )
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"mergekit {method}, {t.name}: {error}",
            hint=f"{len(t.experts)} experts, with_base: {str(with_base).lower()}; see `mixmerge show mergekit`",
        ) from error
    return merged


def to_yaml(derivation: Derivation) -> str | None:
    """The mergekit configuration that repeats a merge (`mergekit-yaml FILE OUT`), or None where mergekit cannot.

    It cannot for the methods of other plugins, for experts that are merges themselves, for a base among the experts
    (but in `linear`), for `rescale: density` and for `per: model`.
    For methods with random masks it names the same method and settings; mergekit's masks will be others, and a comment
    in the file says with which seed `mixmerge merge` draws the same.
    """
    import yaml

    if any(model.derivation for model in (derivation.base, *derivation.experts)):
        return None
    config = _adapted(derivation) if derivation.method == "mergekit" else _native(derivation)
    if config is None:
        return None
    dtype = _out_dtype(derivation)
    config |= {"dtype": "float32"} | ({"out_dtype": dtype} if dtype != "float32" else {})
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    if derivation.method in OUR_MASKS:
        seed = derivation.seed
        text = f"# mixmerge merge FILE OUT --seed {seed} gives these weights; mergekit draws other random masks\n{text}"
    return text


def _native(derivation: Derivation) -> dict[str, Any] | None:
    """For the built-in methods, whose names are mergekit's."""
    given = dict(derivation.parameters)
    if derivation.method == "linear":
        return _config(derivation, "linear", {"normalize": given["normalize"]}, {}, base=None)
    if derivation.method not in ("ties", *OUR_MASKS) or given["rescale"] == "density" or given.get("per") == "model":
        return None
    if derivation.base.path in [expert.path for expert in derivation.experts]:  # mergekit would merge it as a base
        return None
    shared = {"normalize": given["normalize"], "rescale": given["rescale"] == "l1", "lambda": given["scale"]}
    per_model: dict[str, list[Any]] = {
        name: given[name] if isinstance(given[name], list) else [given[name]] * len(derivation.experts)
        for name in ("density", "epsilon")
        if name in given
    }
    return _config(derivation, derivation.method, shared, per_model, base=derivation.base.path)


def _adapted(derivation: Derivation) -> dict[str, Any]:
    """For what ran through mergekit itself."""
    given = derivation.parameters
    spec = methods()[given["method"]].spec
    scopes = {parameter.name: parameter.scope.value for parameter in spec.parameters}
    shared = {name: value for name, value in given["options"].items() if scopes[name] == "shared"}
    count = len(derivation.experts)
    per_model = {
        name: value if isinstance(value, list) else [value] * count
        for name, value in given["options"].items()
        if scopes[name] != "shared"
    }
    base = None
    if spec.contract.base.value in ("required", "optional") and given["with_base"]:
        base = derivation.base.path
    elif spec.contract.base.value == "required":
        base = derivation.experts[0].path
    return _config(derivation, given["method"], shared, per_model, base, weighted="weight" in scopes)


def _config(
    derivation: Derivation,
    method: str,
    shared: Mapping[str, Any],
    per_model: Mapping[str, Sequence[Any]],
    base: Any,
    weighted: bool = True,
) -> dict[str, Any]:
    columns = dict(per_model) | ({"weight": list(derivation.weights)} if weighted else {})
    models = []
    for index, expert in enumerate(derivation.experts):
        parameters = {name: values[index] for name, values in columns.items()}
        models.append({"model": str(expert.path)} | ({"parameters": parameters} if parameters else {}))
    config: dict[str, Any] = {"models": models, "merge_method": method}
    config |= {"base_model": str(base)} if base else {}
    return config | ({"parameters": dict(shared)} if shared else {})


def _out_dtype(derivation: Derivation) -> str:
    """The widest dtype among the experts, in mergekit's spelling."""
    names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    found = {info.dtype for expert in derivation.experts for info in inspect(expert.path).tensors.values()} & set(names)
    if found == {"F16", "BF16"}:
        return "float32"
    return next((names[dtype] for dtype in names if dtype in found), "float32")


def parameters_of(method: str) -> tuple[Mapping[str, tuple[str, Any]], str]:
    """mergekit's parameters for a method: (scope, default), the default None where it must be given; and what
    becomes of a base: "required", "optional" (set apart from the models that are merged), "ignored" or "forbidden".

    Raises CheckpointError for a method that mergekit does not have, or that merges nothing.
    """
    if method not in methods() or method in _REFUSED:
        hint = suggest(method, set(methods()) - set(_REFUSED))
        why = f"{method!r} is not available: {_REFUSED[method]}" if method in _REFUSED else f"no method {method!r}"
        raise CheckpointError(f"mergekit: {why}", hint=hint)
    spec = methods()[method].spec
    parameters = {
        parameter.name: (parameter.scope.value, None if parameter.required else parameter.default)
        for parameter in spec.parameters
    }
    return parameters, str(spec.contract.base.value)


def hand_over(config: Path, out: Path, seed: int) -> None:
    """Let mergekit itself do the merge that a configuration describes; `out` appears when it is whole."""
    import yaml
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: exists already", hint="give a new directory")
    out.parent.mkdir(parents=True, exist_ok=True)
    text = config.read_text("utf-8")
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        found = MergeConfiguration.model_validate(yaml.safe_load(text))
        with tempfile.TemporaryDirectory(prefix="mixmerge-lora-") as merged:  # where mergekit writes adapters merged
            # Its card asks the hub about every model, which fails without a network.
            options = MergeOptions(quiet=True, random_seed=seed, lora_merge_cache=merged, write_model_card=False)
            run_merge(found, folder, options, config_source=text)
        (Path(folder) / "mergekit_config.yml").write_text(text, "utf-8")
        if out.exists():
            out.rmdir()
        Path(folder).rename(out)
        Path(folder).mkdir()  # for the context manager to remove


def _wrong(parameter: Any, value: object) -> str:
    """What is wrong with an option's value, or ""; lists are allowed where a parameter belongs to a model."""
    from pydantic import ValidationError

    several = isinstance(value, list)
    if several and parameter.scope.value == "shared":
        return f"option {parameter.name!r} takes one value, not a list"
    for one in value if isinstance(value, list) else [value]:
        try:
            parameter.validate(one)
        except ValidationError as error:
            return f"option {parameter.name!r}: {error.errors()[0]['msg'].lower()}, not {one!r}"
    return ""


@hookimpl
def register_mergers() -> Sequence[Component]:
    return [mergekit]
