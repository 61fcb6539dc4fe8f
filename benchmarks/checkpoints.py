"""Synthetic checkpoints for benchmarks/sweep.py: a base and experts near it, bfloat16, in the shapes of a Llama."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class Shape:
    """A Llama: `tied` is whether the output head is the embedding."""

    hidden: int
    inner: int
    layers: int
    vocabulary: int
    tied: bool = True

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        wide, inner = self.hidden, self.inner
        yield "model.embed_tokens.weight", (self.vocabulary, wide)
        for layer in range(self.layers):
            at = f"model.layers.{layer}."
            for name in ("q", "k", "v", "o"):
                yield f"{at}self_attn.{name}_proj.weight", (wide, wide)
            yield f"{at}mlp.gate_proj.weight", (inner, wide)
            yield f"{at}mlp.up_proj.weight", (inner, wide)
            yield f"{at}mlp.down_proj.weight", (wide, inner)
            yield f"{at}input_layernorm.weight", (wide,)
            yield f"{at}post_attention_layernorm.weight", (wide,)
        yield "model.norm.weight", (wide,)
        if not self.tied:
            yield "lm_head.weight", (self.vocabulary, wide)

    @property
    def parameters(self) -> int:
        return sum(torch.Size(shape).numel() for _, shape in self.tensors())

    def config(self) -> dict[str, object]:
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden // 64,
            "num_key_value_heads": self.hidden // 64,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
            "dtype": "bfloat16",
            "max_position_embeddings": 2048,
        }


GRID = Shape(hidden=512, inner=1408, layers=16, vocabulary=32_000)  # 67.8 M parameters
QUICK = Shape(hidden=64, inner=176, layers=2, vocabulary=2_000)
SEVEN = Shape(hidden=4096, inner=11_008, layers=30, vocabulary=102_400, tied=False)  # 6.9 G, DeepSeek-Coder-7B's


def make(folder: Path, shape: Shape, experts: int = 2, shard_bytes: int = SHARD_BYTES) -> list[Path]:
    """Write a base and its experts below `folder`; returns their directories, the base first.

    Weights have the size of real ones: 0.02, and changes of 0.001. They are cut out of one pool of random numbers at
    another place for every tensor, because drawing 20 G numbers takes longer than any merge.
    """
    draw = torch.Generator().manual_seed(0)
    pool = torch.randn(min(1 << 25, 2 * shape.parameters) + 12_345, generator=draw)
    found = []
    for number in range(experts + 1):
        path = folder / ("base" if not number else f"expert{number}")
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps(shape.config()))
        _write(path, shape, pool, number, shard_bytes)
        found.append(path)
    return found


def _write(path: Path, shape: Shape, pool: torch.Tensor, number: int, shard_bytes: int) -> None:
    shard: dict[str, torch.Tensor] = {}
    weight_map: dict[str, str] = {}
    size = 0

    def flush() -> None:
        nonlocal shard, size
        name = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
        save_file(shard, path / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, name))
        shard, size = {}, 0

    for place, (name, wanted) in enumerate(shape.tensors()):
        count = torch.Size(wanted).numel()
        weights = 0.02 * _cut(pool, 7919 * place, count)
        if number:
            weights += 0.001 * _cut(pool, 7919 * place + 104_729 * number, count)
        shard[name] = weights.to(torch.bfloat16).reshape(wanted)
        size += 2 * count
        if size > shard_bytes:
            flush()
    if shard:
        flush()
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _cut(pool: torch.Tensor, start: int, count: int) -> torch.Tensor:
    found = torch.empty(count)
    done, at = 0, start % len(pool)
    while done < count:
        step = min(count - done, len(pool) - at)
        found[done : done + step] = pool[at : at + step]
        done, at = done + step, 0
    return found
