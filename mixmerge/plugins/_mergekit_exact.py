"""mergekit's own bits: its code and its arithmetic, with what does not depend on the weights shared by a sweep.

With `mergekit` beside it, all that mixmerge knows of mergekit's insides.
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

from mixmerge import Checkpoint, Derivation, TensorStack, rowwise
from mixmerge.checkpoint import inspect

if TYPE_CHECKING:
    from torch import Tensor

OUR_MASKS = ("dare_linear", "dare_ties", "della", "della_linear")
"""The methods that draw masks, where mixmerge's own and mergekit's differ."""


@cache
def methods() -> dict[str, Any]:
    from mergekit.merge_methods import registered_methods

    return {method.spec.name: method for method in registered_methods()}


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
    found = methods()[method]
    given = tuple(sorted((dict(options or {}) | {"weight": list(weights)}).items()))
    bound = {"method": method, "given": given, "dtype": dtype, "with_base": base is not None}
    thins = getattr(found, "sparsification_method", None) is not None
    merge: Any = _in_rows if _elementwise(found) else _whole
    prepare = None
    if thins:
        unweighted = tuple((name, value) for name, value in given if name in ("density", "epsilon", "gamma", "rescale"))
        masks = _Masks(base, tuple(experts), method, seed) if method in OUR_MASKS else None
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


def _elementwise(method: Any) -> bool:
    return method.spec.name == "linear" or hasattr(method, "sparsification_method")


def _thinned(t: TensorStack, /, *, method: str, given: Any, dtype: str | None, masks: _Masks | None) -> Tensor:
    """mergekit's deltas after its sparsification, in its dtype; (experts, *shape)."""
    from mergekit.sparsify import RescaleNorm, sparsify

    found = methods()[method]
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
    parameters = {parameter.name for parameter in methods()[method].spec.parameters}
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
    return dataclasses.replace(methods()[method], sparsification_method=None)


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


def align_tokens(
    base: Path, models: Sequence[Path], source: str, out: Path
) -> tuple[int, list[tuple[list[int], list[tuple[tuple[int, int], ...]]]]]:
    """One vocabulary for models that have different ones, as mergekit's `tokenizer_source` makes it: "union", "base",
    or the path of the model whose vocabulary it shall be. Its tokenizer is written to `out`. The new tokens of a union
    come in an order that mergekit leaves to chance.

    Returns its size, and for the base and each model its own row for every token (-1: none) with the rows that stand
    for it there, as (place among base and models, row): the only model that has the token, else the base's, else all.
    """
    from mergekit.common import ModelReference
    from mergekit.tokenizer.build import build_tokenizer

    paths = list(dict.fromkeys((base, *models)))
    references = [ModelReference.parse(str(path)) for path in paths]
    wanted: Any = source if source in ("union", "base") else ModelReference.parse(source)
    info = build_tokenizer(references[0], references, wanted, trust_remote_code=False, add_tokens=[])
    info.tokenizer.save_pretrained(out)
    count = len(info.tokenizer.get_vocab())
    rows = [[info.permutations[one].get(token, -1) for token in range(count)] for one in references]
    having = [[place for place, own in enumerate(rows) if own[token] >= 0] for token in range(count)]
    lent: list[tuple[tuple[int, int], ...]] = []
    for token, places in enumerate(having):
        lenders = places if len(places) < 2 or places[0] else [0]
        lent.append(tuple((place, rows[place][token]) for place in lenders))
    place_of = {path: place for place, path in enumerate(paths)}
    return count, [(rows[place_of[path]], lent) for path in (base, *models)]
