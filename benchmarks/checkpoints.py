"""Synthetic checkpoints for the other benchmarks: a base and experts near it, in the shapes of a Llama, in shards.

    python benchmarks/checkpoints.py OUT [--shape seven|grid|quick] [--experts 2] [--dtype bfloat16 [float16 …]]

OUT/base, OUT/expert1, … appear; what is whole already stays. `seven` takes 13.8 GB for each model.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

SHARD_BYTES = 5_000_000_000
_POOL = 1 << 24  # random numbers are drawn once, and every tensor takes them from another place on
_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


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
SHAPES = {"seven": SEVEN, "grid": GRID, "quick": QUICK}


def make(
    folder: Path,
    shape: Shape,
    experts: int = 2,
    shard_bytes: int = SHARD_BYTES,
    dtypes: Sequence[torch.dtype] = (torch.bfloat16,),
) -> list[Path]:
    """Write a base and its experts below `folder`, where they are not there yet; returns their directories, the base
    first. `dtypes`: one for all, or one for each. Needs some 300 MB of memory whatever the shape.

    Weights have the size of real ones: 0.02, and changes of 0.0007, half of whose variance the experts share.
    """
    draw = torch.Generator().manual_seed(2025)
    pool, shared = (torch.randn(_POOL, generator=draw) for _ in range(2))
    found = []
    for number in range(experts + 1):
        own = torch.randn(_POOL, generator=draw) if number else pool
        path = folder / (f"expert{number}" if number else "base")
        found.append(path)
        if (path / "config.json").exists():
            continue
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        dtype = dtypes[number % len(dtypes)]
        change = 0.0005 * (shared + own) if number else torch.zeros(_POOL)
        _write(path, shape, ((0.02 * pool + change).to(dtype), (1 + change).to(dtype)), shard_bytes)
        (path / "config.json").write_text(json.dumps(shape.config()))  # last: it says that the rest is there
    return found


def _write(path: Path, shape: Shape, pools: tuple[torch.Tensor, torch.Tensor], shard_bytes: int) -> None:
    """Straight from the pools, of matrices and of vectors, into the files."""
    width = pools[0].dtype.itemsize
    shards: list[dict[str, int]] = [{}]  # name to bytes
    for name, wanted in shape.tensors():
        size = torch.Size(wanted).numel() * width
        if shards[-1] and sum(shards[-1].values()) + size > shard_bytes:
            shards.append({})
        shards[-1][name] = size
    shapes = dict(shape.tensors())
    offset, weight_map = 0, {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with (path / file).open("wb") as stream:
            stream.write(_header(shard, shapes, _NAMES[pools[0].dtype]))
            for name, size in shard.items():
                offset += 7919 * width  # a prime: no two tensors begin at the same place
                pool = pools[len(shapes[name]) == 1]
                _copy(stream, pool.view(torch.uint8).numpy().data, offset, size)
        weight_map.update(dict.fromkeys(shard, file))
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _header(shard: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]], dtype: str) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, size in shard.items():
        header[name] = {"dtype": dtype, "shape": list(shapes[name]), "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _copy(stream: IO[bytes], pool: memoryview, offset: int, size: int) -> None:
    """`size` bytes of the pool from `offset` on, round and round."""
    while size:
        begin = offset % len(pool)
        piece = pool[begin : begin + min(size, len(pool) - begin)]
        stream.write(piece)
        offset, size = offset + len(piece), size - len(piece)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--shape", choices=SHAPES, default="seven")
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--dtype", nargs="+", default=["bfloat16"], help="one for all, or one for each model")
    given = parser.parse_args()
    shape = SHAPES[given.shape]
    print(f"{shape.parameters / 1e9:.2f} billion parameters each")
    for path in make(given.out, shape, given.experts, dtypes=[getattr(torch, name) for name in given.dtype]):
        print(path)


if __name__ == "__main__":
    main()
