"""Makes checkpoints of a real shape with synthetic weights: a base, and experts that moved from it as training would.

    python benchmarks/checkpoints.py OUT [--shape 7b] [--experts 2] [--dtype bfloat16 …] [--layers N] [--tied]

OUT/base and OUT/expert1, expert2, … appear, in shards of 5 GB with an index, as the hub has them. What is there already
stays. A 7B model takes 13.5 GB in bfloat16. `--dtype` may name one for each model: bfloat16 float16 float32.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import torch

SHARD_BYTES = 5_000_000_000
_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
_POOL = 1 << 24  # random numbers are drawn once; each tensor takes them from another place on


@dataclass(frozen=True)
class Shape:
    """A Llama. `key_values` is the width of keys and values together with all their heads."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    key_values: int
    tied: bool = False

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}"
            for name, rows, columns in (
                ("self_attn.q_proj", self.hidden, self.hidden),
                ("self_attn.k_proj", self.key_values, self.hidden),
                ("self_attn.v_proj", self.key_values, self.hidden),
                ("self_attn.o_proj", self.hidden, self.hidden),
                ("mlp.gate_proj", self.intermediate, self.hidden),
                ("mlp.up_proj", self.intermediate, self.hidden),
                ("mlp.down_proj", self.hidden, self.intermediate),
            ):
                yield f"{prefix}.{name}.weight", (rows, columns)
            for name in ("input_layernorm", "post_attention_layernorm"):
                yield f"{prefix}.{name}.weight", (self.hidden,)
        yield "model.norm.weight", (self.hidden,)
        if not self.tied:
            yield "lm_head.weight", (self.vocabulary, self.hidden)

    @property
    def parameters(self) -> int:
        return sum(torch.Size(shape).numel() for _, shape in self.tensors())


SHAPES = {
    "7b": Shape(4096, 11008, 32, 32000, 4096),  # Llama-2-7B; DeepSeek-Coder-7B has 102,400 words
    "1b": Shape(2048, 5504, 24, 32256, 2048),  # DeepSeek-Coder-1.3B
    "68m": Shape(512, 1376, 16, 32000, 512, tied=True),
    "tiny": Shape(64, 176, 2, 320, 64),
}


def make_checkpoints(
    folder: Path, shape: Shape, experts: int = 2, dtypes: Sequence[torch.dtype] = (torch.bfloat16,), scale: float = 1e-3
) -> list[Path]:
    """The base and `experts` models that moved from it by about `scale` per weight, half of which they share.

    `dtypes`: one for all, or one for each. Returns the directories, the base first. Needs some 100 MB of memory.
    """
    draw = torch.Generator().manual_seed(2025)
    base, shared = (torch.randn(_POOL, generator=draw) for _ in range(2))
    found = []
    for model in range(experts + 1):
        own = torch.randn(_POOL, generator=draw) if model else base
        out = folder / (f"expert{model}" if model else "base")
        found.append(out)
        if (out / "config.json").exists():
            continue
        weights = base * 0.02 + (scale * 0.5 * (shared + own) if model else 0)
        vector = torch.ones(_POOL) + (weights - base * 0.02)  # norms are about one
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        dtype = dtypes[model % len(dtypes)]
        _write(out, shape, weights.to(dtype), vector.to(dtype))
        (out / "config.json").write_text(json.dumps(_config(shape)))  # last: it says that the rest is there
    return found


def _write(out: Path, shape: Shape, weights: torch.Tensor, vector: torch.Tensor) -> None:
    width = weights.dtype.itemsize
    shards: list[dict[str, int]] = [{}]  # name to bytes
    for name, tensor in shape.tensors():
        taken = torch.Size(tensor).numel() * width
        if shards[-1] and sum(shards[-1].values()) + taken > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = taken
    shapes = dict(shape.tensors())
    offset, weight_map = 0, {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with (out / file).open("wb") as stream:
            stream.write(_header(shard, shapes, _NAMES[weights.dtype]))
            for name, size in shard.items():
                offset += 7919 * width  # a prime: no two tensors begin at the same place
                pool = weights if len(shapes[name]) > 1 else vector
                _copy(stream, pool.view(torch.uint8).numpy().data, offset, size)
        weight_map.update(dict.fromkeys(shard, file))
    index = {"metadata": {"total_size": shape.parameters * width}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index))


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


def _config(shape: Shape) -> dict[str, object]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.hidden // min(128, shape.hidden),
        "num_key_value_heads": shape.key_values // min(128, shape.hidden),
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--layers", type=int, help="fewer or more than the shape has")
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--tied", action="store_true", help="no output head of its own")
    parser.add_argument("--dtype", nargs="+", default=["bfloat16"], help="one for all, or one for each model")
    given = parser.parse_args()
    shape = SHAPES[given.shape]
    shape = replace(shape, layers=given.layers or shape.layers, tied=given.tied or shape.tied)
    need = shape.parameters * max(getattr(torch, name).itemsize for name in given.dtype) * (1 + given.experts)
    print(f"{shape.parameters / 1e9:.2f} billion parameters each, at most {need / 1e9:.1f} GB in all")
    for path in make_checkpoints(given.out, shape, given.experts, [getattr(torch, name) for name in given.dtype]):
        print(path)


if __name__ == "__main__":
    main()
