"""What lies in a model directory, read from the headers alone: names, shapes, dtypes, vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .names import LAYER, layer_of

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
"""The dtypes that can be merged, as safetensors spells them. Everything else is copied from the base."""

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_SHOWN = 5  # so many tensor names in a message; the rest is counted
_CONVERT = "convert it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW) writes safetensors"


@dataclass(frozen=True)
class TensorInfo:
    """One tensor on disk. `dtype` is safetensors' spelling (F32, BF16, …); `bytes` its size, `offset` where in the
    file it begins."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    bytes: int
    offset: int


@dataclass(frozen=True)
class Layout:
    """A model directory. `vocabulary` is the number of token ids, None when neither config nor weights say so;
    `bytes` the size of all tensors."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    config: Mapping[str, Any]
    vocabulary: int | None
    bytes: int

    @cached_property
    def tied_head(self) -> str | None:
        """The name of a stored output head that the model ties to its embeddings and never reads."""
        if not self.ties:
            return None
        return next((name for name in self.tensors if layer_of(name) == "head" and name.endswith(".weight")), None)

    @cached_property
    def ties(self) -> bool:
        """Whether the output head is the embedding matrix."""
        text = self.config.get("text_config")
        given = self.config.get("tie_word_embeddings", text.get("tie_word_embeddings") if text else None)
        return bool(given) if given is not None else not any(layer_of(name) == "head" for name in self.tensors)

    @cached_property
    def layers(self) -> int:
        """How many layers there are, by the tensors' names."""
        numbers = [int(found[1]) for name in self.tensors if (found := LAYER.search(name))]
        return max(numbers, default=-1) + 1

    def with_layers(self, layers: tuple[int, ...]) -> Layout:
        """As if the layers that are stored at these places stood one after another."""
        places: dict[int, list[int]] = {}
        for place, layer in enumerate(layers):
            places.setdefault(layer, []).append(place)
        tensors = {}
        for name, info in self.tensors.items():
            found = LAYER.search(name)
            for place in places.get(int(found[1]), ()) if found else (-1,):
                new = name if not found else f"{name[: found.start(1)]}{place}{name[found.end(1) :]}"
                tensors[new] = info
        return Layout(self.path, tensors, self.config, self.vocabulary, sum(info.bytes for info in tensors.values()))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Tensor names in sorted order, without a head that is tied."""
        return tuple(sorted(name for name in self.tensors if name != self.tied_head))


def inspect(path: Path) -> Layout:
    """Read and validate a Hugging Face model directory without reading its weights: some milliseconds for any size.

    Raises CheckpointError when there is no such directory, no config.json, no safetensors weights (pickled ones are
    refused), a shard is missing, or a file is truncated.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such model directory", hint="give a directory with config.json and weights")
    config = _json(path / "config.json", hint="a model directory has config.json beside its weights")
    tensors: dict[str, TensorInfo] = {}
    for file in _weight_files(path):
        tensors.update(header(file))
    if (path / INDEX).exists():
        listed = set(_json(path / INDEX)["weight_map"])
        if lacking := sorted(listed - set(tensors)):
            raise CheckpointError(f"{path}: {INDEX} lists tensors that no shard has: {_some(lacking)}")
    return Layout(path, tensors, config, _vocabulary(config, tensors), sum(info.bytes for info in tensors.values()))


def check_aligned(base: Path, others: Mapping[str, Path]) -> None:
    """Check that `others` (name to directory) have the tensors and vocabulary of `base`, so that they can be merged.

    Raises one CheckpointError that lists every missing, extra and differently shaped tensor, every other vocabulary
    and every quantised model. A tied output head that one file has and the other has not is no error.
    """
    origin = inspect(base)
    problems = [_quantised("the base", origin)]
    for name, path in others.items():
        layout = inspect(path)
        problems += [_quantised(name, layout), *_differences(name, origin, layout)]
        problems.append(_other_vocabulary(name, origin, layout))
    if found := [problem for problem in problems if problem]:
        raise CheckpointError(
            "\n".join(found), hint=f"every expert must be fine-tuned from the base, {base}, with the same tokenizer"
        )


def check_vocabulary(base: Path, others: Mapping[str, Path]) -> None:
    """The part of `check_aligned` that holds for models of which other layers are taken. Raises CheckpointError."""
    origin = inspect(base)
    if found := [
        problem for name, path in others.items() if (problem := _other_vocabulary(name, origin, inspect(path)))
    ]:
        raise CheckpointError("\n".join(found), hint=f"every expert must have the tokenizer of the base, {base}")


def require_same_tensors(base: str, origin: Layout, model: str, other: Layout) -> None:
    """CheckpointError, naming the first few, where two open models differ in their tensors' names or shapes, or the
    model has integers where the base has floating point. `check_aligned` says more, before any work."""
    mine, theirs = set(origin.names), set(other.names)
    both = [(name, origin.tensors[name], other.tensors[name]) for name in mine & theirs]
    shapes = [name for name, one, two in both if one.shape != two.shape]
    kinds = [name for name, one, two in both if one.dtype in FLOATS and two.dtype not in FLOATS]
    if wrong := sorted(mine ^ theirs) or sorted(shapes) or sorted(kinds):
        raise CheckpointError(
            f"{model}: not aligned with {base}: {_some(wrong)}",
            hint="every expert must be fine-tuned from the same base",
        )


def _weight_files(path: Path) -> list[Path]:
    if (path / INDEX).exists():
        weight_map = _json(path / INDEX).get("weight_map")
        if not isinstance(weight_map, dict):
            raise CheckpointError(f"{path / INDEX}: has no weight_map")
        files = [path / name for name in sorted(set(weight_map.values()))]
        if lacking := [file.name for file in files if not file.exists()]:
            raise CheckpointError(
                f"{path}: shards are missing: {', '.join(lacking)}", hint="the download or copy did not finish"
            )
        return files
    if (path / WEIGHTS).exists():
        return [path / WEIGHTS]
    if pickled := sorted(file.name for pattern in _PICKLED for file in path.glob(pattern)):
        raise CheckpointError(
            f"{path}: only pickled weights ({_some(pickled)}), which can run code when loaded", hint=_CONVERT
        )
    raise CheckpointError(f"{path}: no weights", hint=f"a model directory has {WEIGHTS} or {INDEX} with its shards")


def header(file: Path) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file. Raises CheckpointError for a file that is none, or ends too early."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if start == b"version ":
            raise CheckpointError(f"{file}: a Git LFS pointer, not weights", hint="run `git lfs pull`")
        if len(start) < 8 or 8 + length > size:
            raise CheckpointError(f"{file}: truncated, or no safetensors file", hint="copy or download it again")
        try:
            entries = json.loads(stream.read(length))
        except ValueError as error:
            raise CheckpointError(f"{file}: no safetensors file: {error}", hint=_CONVERT) from None
    entries.pop("__metadata__", None)
    ends = [entry["data_offsets"][1] for entry in entries.values()]
    if (expected := 8 + length + max(ends, default=0)) > size:
        raise CheckpointError(
            f"{file}: truncated: {size} bytes of {expected}", hint="the download or copy did not finish"
        )
    return {
        name: TensorInfo(name, tuple(entry["shape"]), entry["dtype"], file, end - begin, 8 + length + begin)
        for name, entry in entries.items()
        for begin, end in [entry["data_offsets"]]
    }


def _json(file: Path, hint: str = "") -> dict[str, Any]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file.parent}: no {file.name}", hint=hint) from None
    except ValueError as error:
        raise CheckpointError(f"{file}: no valid JSON: {error}", hint=hint) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: not a JSON object", hint=hint)
    return value


def _vocabulary(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> int | None:
    given = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    if isinstance(given, int):
        return given
    tables = [info.shape[0] for name, info in tensors.items() if layer_of(name) == "embeddings" and info.shape]
    return max(tables, default=None)


def _differences(name: str, base: Layout, other: Layout) -> list[str]:
    heads = {tensor for tensor in {*base.tensors} ^ {*other.tensors} if layer_of(tensor) == "head"}
    tied = heads if base.ties or other.ties else set()
    missing = sorted(set(base.tensors) - set(other.tensors) - tied)
    extra = sorted(set(other.tensors) - set(base.tensors) - tied)
    shapes = [
        f"{tensor} {_by(other.tensors[tensor].shape)} where the base has {_by(info.shape)}"
        for tensor, info in sorted(base.tensors.items())
        if tensor in other.tensors and other.tensors[tensor].shape != info.shape
    ]
    return [
        f"{name}: {what}: {_some(found)}"
        for what, found in (("lacks tensors", missing), ("extra tensors", extra), ("other shapes", shapes))
        if found
    ]


def _quantised(name: str, layout: Layout) -> str:
    narrow = sorted(n for n, info in layout.tensors.items() if info.dtype.startswith(("F8", "F6", "F4")))
    if "quantization_config" in layout.config or narrow:
        return f"{name}: its weights are quantised, which cannot be merged"
    return ""


def _other_vocabulary(name: str, base: Layout, other: Layout) -> str:
    if base.vocabulary != other.vocabulary:
        return f"{name}: another vocabulary: {other.vocabulary} tokens where the base has {base.vocabulary}"
    files = [layout.path / "tokenizer.json" for layout in (base, other)]
    if not all(file.exists() for file in files) or files[0].read_bytes() == files[1].read_bytes():
        return ""
    first, second = (_tokens(_json(file)) for file in files)
    if first == second:
        return ""
    differing = sorted(token for token, _ in first.items() ^ second.items())
    return f"{name}: another vocabulary: tokenizer.json differs in {_some([repr(token) for token in differing])}"


def tokenizer_vocabulary(path: Path) -> dict[str, int]:
    """Token to id, from a directory's tokenizer.json; {} where there is none."""
    file = path / "tokenizer.json"
    return _tokens(_json(file)) if file.exists() else {}


def _tokens(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Token to id, from the model's table (a mapping, or Unigram's list of pairs) and the added tokens."""
    table = tokenizer.get("model", {}).get("vocab", {})
    tokens = dict(table) if isinstance(table, dict) else {entry[0]: index for index, entry in enumerate(table)}
    return tokens | {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens", ())}


def _by(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
