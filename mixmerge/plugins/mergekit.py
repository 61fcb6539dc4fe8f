"""Any per-tensor merge method that mergekit registers, and the mergekit configuration that repeats a merge.

Everything that mixmerge knows of mergekit's insides is in this module.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixmerge import Checkpoint, CheckpointError, Component, Derivation, TensorStack, hookimpl, merger, rowwise
from mixmerge.checkpoint import inspect

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "mergekit_config.yml"
"""The name that mergekit itself gives to the configuration beside a merge."""

_REFUSED = {"passthrough": "it copies one model, which is no merge"}
_OUR_MASKS = ("dare_linear", "dare_ties", "della", "della_linear")


def _check(*, method: str, options: Mapping[str, Any], with_base: bool) -> str:
    known = _methods()
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

    spec = _methods()[method].spec
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

    It cannot for the methods of other plugins, for experts that are merges themselves, for `rescale: density` and for
    `per: model`.
    For methods with random masks it names the same method and settings; the masks will be others, and a comment
    in the file says so.
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
    if derivation.method in _OUR_MASKS:
        text = f"# mergekit draws other random masks: the same method and settings, not the same weights\n{text}"
    return text


def _native(derivation: Derivation) -> dict[str, Any] | None:
    """For the built-in methods, whose names are mergekit's."""
    given = dict(derivation.parameters)
    if derivation.method == "linear":
        return _config(derivation, "linear", {"normalize": given["normalize"]}, {}, base=None)
    if derivation.method not in ("ties", *_OUR_MASKS) or given["rescale"] == "density" or given.get("per") == "model":
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
    spec = _methods()[given["method"]].spec
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


# ---- bit for bit ----------------------------------------------------------------------------------------------------


def compat(
    base: Checkpoint | None,
    experts: Sequence[Checkpoint],
    weights: Sequence[float],
    *,
    method: str,
    options: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> Derivation:
    """The merge that mergekit makes, with its own code and so with its bits: its arithmetic in `dtype` (None: as the
    inputs are stored), its sort, and for methods that draw random numbers its masks after `--random-seed SEED`.

    base     None for a method that takes none, such as linear
    options  mergekit's parameters, under its names; a list where every expert has its own. `weights` are `weight`

    What does not depend on the weights (the thinned deltas of ties, dare, della and breadcrumbs) is computed once for
    all points of a sweep. It holds one tensor of each expert in `dtype`; other methods hold whole tensors and share
    only what is read.
    """
    found = _methods()[method]
    given = tuple(sorted((dict(options or {}) | {"weight": list(weights)}).items()))
    bound = {"method": method, "given": given, "dtype": dtype, "with_base": base is not None}
    thins = getattr(found, "sparsification_method", None) is not None
    merge: Any = _in_rows if _elementwise(found) else _whole
    prepare = None
    if thins:
        unweighted = tuple((name, value) for name, value in given if name in ("density", "epsilon", "gamma", "rescale"))
        masks = _Masks(base, tuple(experts), method, seed) if method in _OUR_MASKS else None
        prepare = partial(_thinned, method=method, given=unweighted, dtype=dtype, masks=masks)
        merge = _combined
    return Derivation(
        base or experts[0],
        tuple(experts),
        tuple(weights),
        seed,
        partial(merge, **bound),
        prepare,
        f"compat {method} {unweighted} {dtype}" if thins else "",
        f"mergekit {method}",
        dict(options or {}),
    )


def parameters_of(method: str) -> tuple[Mapping[str, tuple[str, Any]], str]:
    """mergekit's parameters for a method: (scope, default), the default None where it must be given; and what
    becomes of a base: "required", "optional" (set apart from the models that are merged), "ignored" or "forbidden".

    Raises CheckpointError for a method that mergekit does not have, or that merges nothing.
    """
    if method not in _methods() or method in _REFUSED:
        known = ", ".join(sorted(set(_methods()) - set(_REFUSED)))
        why = f"{method!r} is not available: {_REFUSED[method]}" if method in _REFUSED else f"no method {method!r}"
        raise CheckpointError(f"mergekit: {why}", hint=f"allowed: {known}")
    spec = _methods()[method].spec
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
        run_merge(found, folder, MergeOptions(quiet=True, random_seed=seed), config_source=text)
        if out.exists():
            out.rmdir()
        Path(folder).rename(out)
        Path(folder).mkdir()  # for the context manager to remove


def _elementwise(method: Any) -> bool:
    return method.spec.name == "linear" or hasattr(method, "sparsification_method")


def _thinned(t: TensorStack, /, *, method: str, given: Any, dtype: str | None, masks: _Masks | None) -> Tensor:
    """mergekit's deltas after its sparsification, in its dtype; (experts, *shape)."""
    from mergekit.sparsify import RescaleNorm, sparsify

    found = _methods()[method]
    base, *experts = _cast(t, dtype)
    values = {parameter.name: parameter.default for parameter in found.spec.parameters} | dict(given)
    deltas = base.new_empty((len(experts), *base.shape))
    with masks.at(t.name) if masks else nullcontext():
        for row, expert in enumerate(experts):
            own = {name: _of(values[name], row) for name in ("density", "epsilon", "gamma") if name in values}
            norm = RescaleNorm.l1 if values["rescale"] else None
            deltas[row] = sparsify(expert - base, method=found.sparsification_method, rescale_norm=norm, **own)
    return deltas


@rowwise
def _combined(t: TensorStack, /, *, method: str, given: Any, dtype: str | None, with_base: bool) -> Tensor:
    """mergekit's own combination of thinned deltas: its method without its first part, on a base of zeros.

    The zeros are negative, because -0.0 + x is x for every x, which 0.0 + x is not.
    """
    import torch
    from mergekit.merge_methods import merge_tensors

    base = _cast(t, dtype)[0]
    bare = _without_thinning(method)
    known = {parameter.name for parameter in bare.spec.parameters} - {"density"}
    values = {name: _by_place(value, 1) for name, value in given if name in known}
    mixed = merge_tensors([torch.full_like(base, -0.0), *t.deltas], bare, parameters=values, base_index=0)
    result: Tensor = base + mixed
    return result


@rowwise
def _in_rows(t: TensorStack, /, *, method: str, given: Any, dtype: str | None, with_base: bool) -> Tensor:
    return _whole(t, method=method, given=given, dtype=dtype, with_base=with_base)


def _whole(t: TensorStack, /, *, method: str, given: Any, dtype: str | None, with_base: bool) -> Tensor:
    from mergekit.merge_methods import merge_tensors

    inputs = _cast(t, dtype)[0 if with_base else 1 :]
    parameters = {parameter.name for parameter in _methods()[method].spec.parameters}
    values = {name: _by_place(value, int(with_base)) for name, value in given if name in parameters}
    merged: Tensor = merge_tensors(inputs, method, parameters=values, base_index=0 if with_base else None, name=t.name)
    return merged


def _cast(t: TensorStack, dtype: str | None) -> list[Tensor]:
    """Base and experts as mergekit sees them."""
    import torch

    wanted = getattr(torch, dtype) if dtype else t.stored[0].dtype
    for tensor in t.stored if dtype is None else ():
        wanted = torch.promote_types(wanted, tensor.dtype)
    return [tensor.to(wanted) for tensor in t.stored]


def _by_place(value: Any, first: int) -> Any:
    return dict(enumerate(value, first)) if isinstance(value, list) else value


def _of(value: Any, row: int) -> Any:
    return value[row] if isinstance(value, list) else value


@cache
def _without_thinning(method: str) -> Any:
    return dataclasses.replace(_methods()[method], sparsification_method=None)


@dataclass(frozen=True)
class _Masks:
    """The state of mergekit's one generator at each tensor: it draws a number for every value of every expert, tensor
    after tensor in the order of its own schedule."""

    base: Checkpoint | None
    experts: tuple[Checkpoint, ...]
    method: str
    seed: int

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.set_state(_states(self)[name])
            yield


@lru_cache(maxsize=4)
def _states(masks: _Masks) -> Mapping[str, Tensor]:
    import torch

    assert masks.base is not None
    layout = inspect(masks.base.path)
    generator = torch.Generator().manual_seed(masks.seed)
    states = {}
    for names in _schedule(masks.base.path, [expert.path for expert in masks.experts], masks.method):
        states[names[0]] = generator.get_state()
        known = next(name for name in names if name in layout.tensors)
        left = math.prod(layout.tensors[known].shape) * len(masks.experts)
        while left:
            left -= torch.rand(min(left, 1 << 20), generator=generator).numel()
    return states


def _schedule(base: Path, experts: Sequence[Path], method: str) -> list[tuple[str, ...]]:
    """The names of the tensors, each with the names that it may have instead, in the order of mergekit's work."""
    from mergekit.architecture import get_architecture_info
    from mergekit.config import MergeConfiguration
    from mergekit.graph import Executor
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask
    from mergekit.options import MergeOptions
    from mergekit.plan import MergePlanner

    models = [{"model": str(path), "parameters": {"weight": 1.0, "density": 0.5}} for path in experts]
    config = MergeConfiguration.model_validate(
        {"merge_method": method, "base_model": str(base), "models": models, "dtype": "float32"}
    )
    options = MergeOptions(quiet=True)
    LoaderCache().setup(options=options)
    architecture = get_architecture_info(config, options)
    planner = MergePlanner(config, architecture, options, config.base_model.config())
    with tempfile.TemporaryDirectory() as nowhere:
        schedule = Executor(planner.plan_to_disk(nowhere)).schedule
    tasks = [task for handle in schedule.tasks if isinstance(task := handle.task(), ExecuteMergeMethodTask)]
    found = [task.output_weight for task in tasks]
    return [(weight.name, *(weight.aliases or ()), *(weight.tied_names or ())) for weight in found]


@cache
def _methods() -> dict[str, Any]:
    from mergekit.merge_methods import registered_methods

    return {method.spec.name: method for method in registered_methods()}


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
