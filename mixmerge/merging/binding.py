"""A checked configuration becomes a derived checkpoint: models are found, parameters bound for every tensor."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from .. import checkpoint, licences, sources
from ..checkpoint import layer_of
from ..errors import CheckpointError, SourceError
from ..registry import Registry
from ..types import Checkpoint, Dataset, Derivation, Reading, Tokens, content_id
from .config import Input, MergeFile, Slice
from .lines import describe

NATIVE = ("linear", "ties", "dare_linear", "dare_ties", "della", "della_linear", "task_arithmetic")
"""The methods that mixmerge computes itself; every other method that merges tensor by tensor runs mergekit's code."""

Exact = Callable[..., Derivation]
Align = Callable[..., tuple[int, list[tuple[list[int], list[tuple[tuple[int, int], ...]]]]]]


@dataclass(frozen=True)
class Mergekit:
    """What the plugin that knows mergekit does here: `compat` and `align_tokens`."""

    exact: Exact
    align: Align


@dataclass(frozen=True)
class Merge:
    """What will be merged: the derived checkpoint, the dtype it is written in (None: the experts' widest), the lines
    that say what every parameter does, the options it was made with, and the directory of a tokenizer that takes the
    place of the base's."""

    model: Checkpoint
    dtype: str | None
    lines: tuple[str, ...]
    options: str = ""
    tokenizer: tempfile.TemporaryDirectory[str] | None = None


def prepare(file: MergeFile, registry: Registry, mergekit: Mergekit, *, compat: bool = False, seed: int = 0) -> Merge:
    """Find the models, check that they fit, and bind every parameter for every tensor.

    Raises CheckpointError for what only mergekit can do, SourceError and CheckpointError for models that are not there
    or do not fit.
    """
    if file.unsupported:
        raise CheckpointError(
            f"{file.path}: not supported: {'; '.join(file.unsupported)}", hint="--mergekit hands the merge to mergekit"
        )
    return _Merging(file, registry, mergekit, compat, seed).prepare()


class _Merging:
    def __init__(self, file: MergeFile, registry: Registry, mergekit: Mergekit, compat: bool, seed: int) -> None:
        self.file, self.registry, self.mergekit, self.compat, self.seed = file, registry, mergekit, compat, seed
        self.tokenizer: tempfile.TemporaryDirectory[str] | None = None
        self.native = file.method in NATIVE and not compat
        self.found: dict[str, sources.ModelSource] = {}
        self.notes: list[str] = []

    def prepare(self) -> Merge:
        file = self.file
        experts = [self._model(one) for one in file.experts]
        if self.compat and any(one.adapter for one in file.experts):
            hint = "without --compat adapters are applied in float32; --mergekit merges them its own way"
            raise CheckpointError(f"{file.path}: adapters have no exact form here", hint=hint)
        if not experts:
            raise CheckpointError(f"{file.path}: no model is merged", hint="list the experts under `models:`")
        base = self._base(experts)
        if file.tokenizer is None:
            _require_aligned(base, experts)
        else:
            base, experts = self._one_vocabulary(file.tokenizer, base, experts)
        start = Derivation(base, tuple(experts), (1.0,) * len(experts), self.seed, _unbound, method=file.method)
        found = replace(start, vary=cache(partial(self._bound, start)))
        key = [self.compat, self.seed, file.method, [model.id for model in (base, *experts)], str(file)]
        model = Checkpoint(file.path.stem, base.path, content_id(key), found, reading=base.reading)
        assert found.vary is not None
        for name in checkpoint.names(model):
            found.vary(name)  # every problem before any work
        self._require_used(base, checkpoint.names(model))
        options = f"--seed {self.seed}" + (" --compat" if self.compat else "")
        how = "mixmerge's, in float32, rounded once" if self.native else "mergekit's own code, in float32, rounded once"
        if self.compat:
            how = f"mergekit's own code in {file.dtype or 'the dtype of the inputs'}, bit for bit"
        lines = describe(file, base, experts[0], how, self.notes)
        return Merge(model, file.out_dtype or file.dtype, tuple(lines), options, self.tokenizer)

    # -- models --------------------------------------------------------------------------------------------------

    def _source(self, name: str, *, adapters: bool = False) -> sources.ModelSource:
        if name not in self.found:
            there = Path(name).is_dir() or name.startswith(("hf:", "path:", "pypi:", "/", "."))
            try:
                found = sources.resolve_model(name if there else f"hf:{name}", adapters=adapters)
            except SourceError as error:
                hint = "" if there else f"there is no directory {name} in {Path.cwd()} either, where paths begin"
                told = f"{self.file.path}: {error.message}"
                raise SourceError(told, hint="; ".join(filter(None, (hint, error.hint)))) from error
            self.found[name] = replace(found, path=found.path.absolute())
        return self.found[name]

    def _model(self, one: Input) -> Checkpoint:
        """A model as the merge reads it: with its adapter, and with its layers as in the slices."""
        found = [self._source(one.model), *([self._source(one.adapter, adapters=True)] if one.adapter else [])]
        path, layers = found[0].path, self._layers(one)
        adapter = found[1].path if one.adapter else None
        if adapter:
            try:
                checkpoint.check_adapter(adapter, checkpoint.inspect(path))
            except CheckpointError as error:
                raise CheckpointError(f"{self.file.path}: {error.message}", hint=error.hint) from error
        return Checkpoint(
            one.name,
            path,
            content_id([str(path), str(adapter), layers]),
            licence=licences.together(source.licence for source in found),
            data=tuple(Dataset(**dataset) for source in found for dataset in source.data),
            reading=Reading(adapter, layers) if adapter or layers else None,
        )

    def _layers(self, one: Input) -> tuple[int, ...] | None:
        """The stored layers of a model that stand in the merge, one slice after another."""
        if one.layers is None:
            return None
        found: list[int] = []
        for number, part in enumerate(self.file.slices):
            same = [other for other in part.inputs if other.key == one.key]
            if len(same) != 1 or same[0].layers is None:
                raise CheckpointError(
                    f"{self.file.path}: slices[{number}] does not have {one.model}",
                    hint="mixmerge merges slices that all have the same models; --mergekit for others",
                )
            found += range(*same[0].layers)
        stored = checkpoint.inspect(self._source(one.model).path).layers
        if beyond := [layer for layer in found if layer >= stored]:
            raise CheckpointError(f"{one.model}: has {stored} layers, so there is no layer {beyond[0]}")
        return None if found == list(range(stored)) else tuple(found)

    def _base(self, experts: Sequence[Checkpoint]) -> Checkpoint:
        """The base, with its layers as in the slices; for a method without one, the first model stands for it."""
        if self.file.base is None:
            return replace(experts[0], name=experts[0].name, id=f"base {experts[0].id}")
        within = [one for one in self.file.slices[0].inputs if one.key == self.file.base.key]
        if not within and self.file.slices[0].inputs[0].layers:
            raise CheckpointError(
                f"{self.file.path}: base_model is no source of the slices", hint="list it in each one"
            )
        return self._model(within[0] if within else self.file.base)

    def _one_vocabulary(
        self, source: str, base: Checkpoint, experts: Sequence[Checkpoint]
    ) -> tuple[Checkpoint, list[Checkpoint]]:
        """Base and experts in one order of tokens, worked out once for all that is merged."""
        models = [base, *experts]
        sizes = {len(checkpoint.tokenizer_vocabulary(model.path)) for model in models}
        if self.compat or any(model.reading for model in models) or 0 in sizes:
            what = "in --compat, with adapters, with slices, or without a tokenizer.json"
            hint = "--mergekit aligns vocabularies its own way"
            raise CheckpointError(f"{self.file.path}: tokenizer_source is not supported {what}", hint=hint)
        self.tokenizer = tempfile.TemporaryDirectory(prefix="mixmerge-tokenizer-")
        source = source if source in ("union", "base") else str(self._source(source).path)
        _, found = self.mergekit.align(base.path, [one.path for one in experts], source, Path(self.tokenizer.name))
        lenders = tuple(dict.fromkeys(model.path for model in models))
        aligned = []
        for model, (rows, lent) in zip(models, found, strict=True):
            missing = {token: lent[token] for token, row in enumerate(rows) if row < 0}
            aligned.append(replace(model, reading=Reading(tokens=Tokens(tuple(rows), missing, lenders))))
        return aligned[0], aligned[1:]

    # -- parameters ----------------------------------------------------------------------------------------------

    def _bound(self, start: Derivation, name: str) -> Derivation:
        """The derivation that holds for one tensor."""
        part, t = self._place(start, name)
        values: dict[str, Any] = {}
        for parameter, known in self.file.known.items():
            if known.scope == "shared":
                values[parameter] = self.file.value(parameter, part, None, name, t)
            else:
                values[parameter] = [self.file.needed(parameter, part, one, name, t) for one in self.file.experts]
        weights = tuple(float(weight) for weight in values.pop("weight", [1.0] * len(start.experts)))
        if values.get("normalize") and abs(math.fsum(weights)) < 1e-8:
            given = ", ".join(f"{weight:g}" for weight in weights)
            told = f"{self.file.path}: the weights {given} of {name} sum to zero"
            raise CheckpointError(told, hint="other weights, or normalize: false")
        if not self.native:
            return self._exactly(start, weights, values)
        return self._natively(start, weights, values)

    def _require_used(self, base: Checkpoint, names: Sequence[str]) -> None:
        """A filter that changes nothing is a slip, but for a head, which these models may tie and their kin may not."""
        head = ["lm_head.weight"] if checkpoint.inspect(base.path).ties else []
        for parameter, setting in self.file.settings():
            for wanted in setting.idle(names):
                if wanted not in setting.idle([*names, *head]):
                    self.notes.append(f"filter {wanted!r} of {parameter}: nothing, since the head is the embedding")
                    continue
                told = f"{self.file.path}: no tensor is left for filter {wanted!r} of {parameter}"
                hint = f"it is a part of a name such as {names[len(names) // 2]}, and the first filter that fits counts"
                raise CheckpointError(told, hint=hint)

    def _place(self, start: Derivation, name: str) -> tuple[Slice, float]:
        """The slice of a tensor and its layer's place there, from 0 to 1. As in mergekit, what stands outside the
        layers takes the start of a gradient: of the first slice before them, of the last behind them."""
        kind = layer_of(name)
        if not kind.startswith("layer "):
            return self.file.slices[0 if kind == "embeddings" else -1], 0.0
        layer = int(kind.removeprefix("layer "))
        for part in self.file.slices:
            given = part.inputs[0].layers
            count = given[1] - given[0] if given else checkpoint.inspect(start.base.path).layers
            if layer < count:
                return part, layer / (count - 1) if count > 1 else 1.0
            layer -= count
        raise CheckpointError(f"{self.file.path}: no slice has {name}")

    def _natively(self, start: Derivation, weights: tuple[float, ...], values: dict[str, Any]) -> Derivation:
        method = self.file.method
        component = self.registry.get("merger", "dare_linear" if method == "task_arithmetic" else method)
        given: dict[str, Any] = {"normalize": values["normalize"]}
        if method == "task_arithmetic":
            values["density"] = [1.0] * len(weights)
        if method != "linear":
            given |= {"scale": float(values["lambda"]), "rescale": "l1" if values["rescale"] else "none"}
            given["density"] = [float(one) for one in values["density"]]
        if "epsilon" in values:
            given["epsilon"] = [float(one) for one in values["epsilon"]]
        if problems := component.problems(given):
            _, what, hint = problems[0]
            raise CheckpointError(f"{self.file.path}: {what}", hint=hint)
        complete = component.complete(given)
        first = {name: value for name, value in complete.items() if name in component.prepare_parameters}
        rest = {name: value for name, value in complete.items() if name not in first}
        return replace(
            start,
            weights=weights,
            merge=partial(component.function, **rest),
            prepare=partial(component.prepare, **first) if component.prepare else None,
            prepare_key=content_id([component.name, first]) if component.prepare else "",
            parameters=complete,
        )

    def _exactly(self, start: Derivation, weights: tuple[float, ...], values: dict[str, Any]) -> Derivation:
        with_base = self.file.base is not None and self.file.apart
        found = self.mergekit.exact(
            start.base if with_base else None,
            start.experts,
            weights,
            method=self.file.method,
            options=values,
            dtype=self.file.dtype if self.compat else "float32",
            seed=self.seed,
        )
        return replace(found, base=start.base)


def _require_aligned(base: Checkpoint, experts: Sequence[Checkpoint]) -> None:
    sliced = any(model.reading and model.reading.layers for model in (base, *experts))
    check = checkpoint.check_vocabulary if sliced else checkpoint.check_aligned
    try:
        check(base.path, {one.name: one.path for one in experts if one.path != base.path})
    except CheckpointError as error:
        hint = (
            "other vocabularies are aligned by token with `tokenizer_source: union`, or mergekit's own way with"
            " `tokenizer_source: union` and --mergekit"
        )
        raise CheckpointError(error.message, hint=hint if "vocabulary" in error.message else error.hint) from None


def _unbound(_: Any) -> Any:
    raise AssertionError("settings are bound for each tensor")
