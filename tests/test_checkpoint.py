"""mixmerge.checkpoint: reading, checking, streaming, pouring, writing and measuring weights."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mixmerge import Checkpoint, CheckpointError, StoreError, TensorStack, checkpoint
from mixmerge.checkpoint import Observer
from mixmerge.types import Derivation

EMBED, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
Q, BIAS = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.bias"


def make(
    path: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    config: Mapping[str, Any] | None = None,
    change: Mapping[str, torch.Tensor | None] | None = None,
) -> Path:
    """A model directory of a few hand-sized tensors; `change` replaces, adds, or with None removes tensors."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {EMBED: (6, 4), NORM: (4,), Q: (4, 4), BIAS: (4,)}
    tensors = {name: torch.randn(shape, generator=draw).to(dtype) for name, shape in shapes.items()}
    tensors |= {name: tensor for name, tensor in (change or {}).items() if tensor is not None}
    for name in [name for name, tensor in (change or {}).items() if tensor is None]:
        del tensors[name]
    path.mkdir(parents=True)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    settings = {"dtype": str(dtype).removeprefix("torch."), "tie_word_embeddings": True, "vocab_size": 6}
    (path / "config.json").write_text(json.dumps(settings | dict(config or {})))
    return path


def stored(path: Path, name: str = "") -> Checkpoint:
    return Checkpoint(name or path.name, path, f"id of {path.name}")


def average(t: TensorStack) -> torch.Tensor:
    return t.base + (t.weights * t.deltas).sum(0)


def derived(base: Path, *experts: Path, weights: Sequence[float] = (0.25, 0.75), **more: Any) -> Checkpoint:
    models = tuple(stored(path) for path in experts)
    settings = {"merge": average, "method": "average", "seed": 3} | more
    return Checkpoint("merge", base, "id of merge", Derivation(stored(base), models, tuple(weights), **settings))


@pytest.fixture
def trio(tmp_path: Path) -> tuple[Path, Path, Path]:
    return make(tmp_path / "base"), make(tmp_path / "one", seed=1), make(tmp_path / "two", seed=2)


def by_hand(trio: Sequence[Path], weights: Sequence[float] = (0.25, 0.75)) -> dict[str, np.ndarray]:
    base, one, two = ({n: t.double().numpy() for n, t in load_file(p / "model.safetensors").items()} for p in trio)
    return {n: base[n] + weights[0] * (one[n] - base[n]) + weights[1] * (two[n] - base[n]) for n in base}


# ---- inspect --------------------------------------------------------------------------------------------------------


def test_inspect_reads_names_shapes_dtypes_and_vocabulary(tmp_path: Path) -> None:
    layout = checkpoint.inspect(make(tmp_path / "m", dtype=torch.bfloat16))
    assert layout.names == tuple(sorted([EMBED, NORM, Q, BIAS]))
    assert (layout.tensors[EMBED].shape, layout.tensors[EMBED].dtype) == ((6, 4), "BF16")
    assert layout.vocabulary == 6
    assert layout.bytes == 2 * (24 + 4 + 16 + 4)


def test_inspect_follows_the_index_of_shards(tmp_path: Path) -> None:
    path = shard(make(tmp_path / "m"))
    assert set(checkpoint.inspect(path).tensors) == {EMBED, NORM, Q, BIAS}
    assert checkpoint.inspect(path).tensors[Q].file.name == "b.safetensors"


def shard(path: Path) -> Path:
    tensors = load_file(path / "model.safetensors")
    first = {EMBED: tensors.pop(EMBED)}
    save_file(first, path / "a.safetensors")
    save_file(tensors, path / "b.safetensors")
    (path / "model.safetensors").unlink()
    weight_map = dict.fromkeys(first, "a.safetensors") | dict.fromkeys(tensors, "b.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


def pickled(path: Path) -> None:
    torch.save({}, path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


def truncated(path: Path) -> None:
    os.truncate(path / "model.safetensors", (path / "model.safetensors").stat().st_size - 3)


def pointer(path: Path) -> None:
    (path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (shutil.rmtree, "no such model directory", "config.json"),
        (lambda path: (path / "config.json").unlink(), "no config.json", "config.json"),
        (lambda path: (path / "config.json").write_text("{"), "no valid JSON", ""),
        (lambda path: (path / "model.safetensors").unlink(), "no weights", "model.safetensors"),
        (pickled, "only pickled weights \\(pytorch_model.bin\\)", "safetensors"),
        (truncated, "truncated: \\d+ bytes of \\d+", "did not finish"),
        (lambda path: (path / "model.safetensors").write_bytes(b"\x00"), "truncated", "again"),
        (pointer, "Git LFS pointer", "git lfs pull"),
        (lambda path: (shard(path) / "b.safetensors").unlink(), "shards are missing: b.safetensors", "did not finish"),
    ],
)
def test_inspect_says_what_a_directory_lacks(
    tmp_path: Path, spoil: Callable[[Path], object], message: str, hint: str
) -> None:
    path = make(tmp_path / "m")
    spoil(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.inspect(path)
    assert str(path) in caught.value.message
    assert hint in caught.value.hint


def test_inspect_takes_no_torch(tmp_path: Path) -> None:
    path = make(tmp_path / "m")
    code = (
        "import sys, pathlib, mixmerge.checkpoint as c; "
        f"c.check_aligned(pathlib.Path({str(path)!r}), {{'m': pathlib.Path({str(path)!r})}}); "
        "assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- check_aligned --------------------------------------------------------------------------------------------------


def test_check_aligned_lists_everything_at_once(tmp_path: Path) -> None:
    base = make(tmp_path / "base")
    others = {
        "short": make(tmp_path / "short", change={NORM: None}),
        "long": make(tmp_path / "long", change={"model.layers.2.mlp.weight": torch.zeros(2)}),
        "wide": make(tmp_path / "wide", change={Q: torch.zeros(4, 5)}),
        "foreign": make(tmp_path / "foreign", config={"vocab_size": 7}, change={EMBED: torch.zeros(7, 4)}),
        "int4": make(tmp_path / "int4", config={"quantization_config": {"bits": 4}}),
    }
    with pytest.raises(CheckpointError) as caught:
        checkpoint.check_aligned(base, others)
    assert caught.value.message.splitlines() == [
        f"short: lacks tensors: {NORM}",
        "long: extra tensors: model.layers.2.mlp.weight",
        f"wide: other shapes: {Q} 4×5 where the base has 4×4",
        f"foreign: other shapes: {EMBED} 7×4 where the base has 6×4",
        "foreign: another vocabulary: 7 tokens where the base has 6",
        "int4: its weights are quantised, which cannot be merged",
    ]


@pytest.mark.parametrize("kind", ["mapping", "pairs"])
def test_check_aligned_compares_tokenizers(tmp_path: Path, kind: str) -> None:
    def tokenizer(path: Path, *tokens: str, note: str = "") -> Path:
        table: object = {token: index for index, token in enumerate(tokens)}
        table = table if kind == "mapping" else [[token, -1.0] for token in tokens]
        added = [{"id": 9, "content": "<end>"}]
        text = json.dumps({"note": note, "model": {"vocab": table}, "added_tokens": added})
        (path / "tokenizer.json").write_text(text)
        return path

    base = tokenizer(make(tmp_path / "base"), "a", "b", "c")
    same = tokenizer(make(tmp_path / "same"), "a", "b", "c", note="another file, the same vocabulary")
    other = tokenizer(make(tmp_path / "other"), "a", "c", "b")
    checkpoint.check_aligned(base, {"same": same})
    with pytest.raises(
        CheckpointError, match=r"other: another vocabulary: tokenizer.json differs in 'b', 'b', 'c', 'c'"
    ):
        checkpoint.check_aligned(base, {"other": other})


def test_a_tied_head_in_one_file_only_is_no_error(tmp_path: Path) -> None:
    base = make(tmp_path / "base")
    headed = make(tmp_path / "headed", seed=1, change={HEAD: torch.ones(6, 4)})
    checkpoint.check_aligned(base, {"headed": headed})
    checkpoint.check_aligned(headed, {"base": base})
    assert [stack.name for stack in checkpoint.stacks(stored(headed), [stored(base)], [1.0], 0)] == sorted(
        [EMBED, NORM, Q, BIAS]
    )
    untied = {"tie_word_embeddings": False}
    base = make(tmp_path / "base2", config=untied)
    headed = make(tmp_path / "headed2", config=untied, change={HEAD: torch.ones(6, 4)})
    with pytest.raises(CheckpointError, match=f"headed2: extra tensors: {HEAD}"):
        checkpoint.check_aligned(base, {"headed2": headed})


# ---- streams --------------------------------------------------------------------------------------------------------


def test_tensors_of_a_stored_checkpoint_are_those_on_disk(tmp_path: Path) -> None:
    path = shard(make(tmp_path / "m", dtype=torch.bfloat16, change={"steps": torch.tensor([3])}))
    found = list(checkpoint.tensors(stored(path)))
    expected = load_file(path / "a.safetensors") | load_file(path / "b.safetensors")
    assert [name for name, _ in found] == sorted(expected)
    for name, tensor in found:
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])


def test_stacks_are_float32_deltas_with_broadcastable_weights(trio: tuple[Path, ...]) -> None:
    base, one, two = trio
    experts = [stored(one), stored(two)]
    stacks = {stack.name: stack for stack in checkpoint.stacks(stored(base), experts, [0.5, 2], 11)}
    assert list(stacks) == sorted([EMBED, NORM, Q, BIAS])
    stack = stacks[Q]
    files = [load_file(path / "model.safetensors")[Q].numpy() for path in trio]
    np.testing.assert_array_equal(stack.base.numpy(), files[0])
    np.testing.assert_array_equal(stack.deltas.numpy(), np.stack([files[1] - files[0], files[2] - files[0]]))
    assert (stack.deltas.dtype, stack.weights.shape, stacks[NORM].weights.shape) == (torch.float32, (2, 1, 1), (2, 1))
    assert stack.weights.flatten().tolist() == [0.5, 2.0]
    assert (stack.experts, stack.seed) == (("id of one", "id of two"), 11)


def test_a_derived_checkpoint_streams_what_its_formula_says(trio: tuple[Path, ...]) -> None:
    expected = by_hand(trio)
    found = dict(checkpoint.tensors(derived(*trio)))
    assert list(found) == sorted(expected)
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-6, atol=1e-7)


def test_merged_prepares_once_for_each_key_and_merges_once_for_each_point(trio: tuple[Path, ...]) -> None:
    prepared: list[tuple[str, float]] = []
    merges: list[str] = []

    def prepare(t: TensorStack, factor: float) -> torch.Tensor:
        prepared.append((t.name, factor))
        return factor * t.deltas

    def merge(t: TensorStack) -> torch.Tensor:
        merges.append(t.name)
        return average(t)

    base, one, two = (stored(path) for path in trio)
    points = [
        Derivation(
            base, (one, two), (w, 1 - w), 0, merge, prepare=lambda t, f=f: prepare(t, f), prepare_key=f"times {f}"
        )
        for w in (0.1, 0.5, 0.9)
        for f in (0.5, 2.0)
    ]
    points.append(Derivation(base, (one, two), (0.3, 0.7), 0, merge))
    found = dict(checkpoint.merged(points))
    assert sorted(prepared) == sorted((name, f) for name in found for f in (0.5, 2.0))
    assert len(merges) == len(found) * len(points)
    for index, (w, f) in enumerate([(w, f) for w in (0.1, 0.5, 0.9) for f in (0.5, 2.0)]):
        expected = by_hand(trio, (f * w, f * (1 - w)))
        for name, tensors in found.items():
            np.testing.assert_allclose(tensors[index].numpy(), expected[name], rtol=1e-5, atol=1e-6)
    for name, tensors in found.items():
        np.testing.assert_allclose(tensors[-1].numpy(), by_hand(trio, (0.3, 0.7))[name], rtol=1e-5, atol=1e-6)


def test_prepare_may_not_look_at_weights(trio: tuple[Path, ...]) -> None:
    model = derived(*trio, prepare=lambda t: t.weights * t.deltas, prepare_key="peeks")
    with pytest.raises(CheckpointError, match="NaN"):
        list(checkpoint.tensors(model))


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        (lambda t: t.base + t.deltas.mul_(2).sum(0), "changed its input in place"),
        (lambda t: t.base + 0 * t.stored[1].add_(1), "changed its input in place"),
        (lambda t: t.base + (t.weights.mul_(2) * t.deltas).sum(0), "changed its input in place"),
        (lambda t: t.base[:1], r"merge method average gave shape \(1, 4\) for model.embed_tokens.weight, not \(6, 4\)"),
        (lambda t: t.base / 0, "merge method average: .* NaN or infinite"),
    ],
)
def test_a_merger_that_breaks_its_contract_is_named(
    trio: tuple[Path, ...], merge: Callable[[TensorStack], torch.Tensor], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        list(checkpoint.tensors(derived(*trio, merge=merge)))


def test_a_prepare_that_breaks_its_contract_is_named(trio: tuple[Path, ...]) -> None:
    model = derived(*trio, prepare=lambda t: t.deltas.mul_(2), prepare_key="k")
    with pytest.raises(CheckpointError, match="the first part of merge method average changed its input in place"):
        list(checkpoint.tensors(model))
    model = derived(*trio, prepare=lambda t: t.deltas[0], prepare_key="k")
    with pytest.raises(CheckpointError, match=r"gave shape \(6, 4\) for model.embed_tokens.weight, not \(2, 6, 4\)"):
        list(checkpoint.tensors(model))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_names_tensor_and_model(tmp_path: Path, value: float) -> None:
    base = make(tmp_path / "base")
    broken = make(tmp_path / "broken", change={Q: torch.full((4, 4), value)})
    with pytest.raises(CheckpointError, match=f"broken: 16 of 16 values of {Q} are NaN or infinite"):
        list(checkpoint.stacks(stored(base), [stored(broken)], [1.0], 0))


def test_integers_are_copied_from_the_base(tmp_path: Path) -> None:
    paths = [
        make(tmp_path / name, change={"steps": torch.tensor([step]), "mask": torch.tensor([True, False])})
        for name, step in (("base", 5), ("one", 6), ("two", 7))
    ]
    found = dict(checkpoint.tensors(derived(*paths)))
    assert found["steps"].tolist() == [5]
    assert found["mask"].tolist() == [True, False]
    assert "steps" not in {stack.name for stack in checkpoint.stacks(stored(paths[0]), [], [], 0)}


def test_a_merge_of_merges_streams_too(trio: tuple[Path, ...]) -> None:
    inner = derived(*trio)
    outer = Derivation(stored(trio[0]), (inner, stored(trio[1])), (0.5, 0.5), 0, average)
    expected = by_hand(trio, (0.125 + 0.5, 0.375))
    for name, tensor in checkpoint.tensors(Checkpoint("outer", trio[0], "outer", outer)):
        np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-5, atol=1e-6)


# ---- pour -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_poured_model_is_the_written_one(
    tiny_model_dir: Callable[..., Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    from transformers import AutoModelForCausalLM

    base, one, two = (tiny_model_dir(seed=seed) for seed in range(3))
    merge = derived(base, one, two)
    checkpoint.write(merge, tmp_path / "out")
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=dtype).eval()
    poured = AutoModelForCausalLM.from_pretrained(base, dtype=dtype).eval()
    place = poured.get_input_embeddings().weight.data_ptr()
    checkpoint.pour(merge, poured)
    tokens = torch.tensor([[5, 7, 11]])
    with torch.no_grad():
        assert torch.equal(written(tokens).logits, poured(tokens).logits)
        checkpoint.pour(stored(one), poured)
        alone = AutoModelForCausalLM.from_pretrained(one, dtype=dtype).eval()
        assert torch.equal(alone(tokens).logits, poured(tokens).logits)
    assert poured.get_input_embeddings().weight.data_ptr() == place
    assert poured.lm_head.weight.data_ptr() == place


def test_pour_finds_names_that_leave_out_the_prefix(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    torch.manual_seed(0)
    source, target = GPT2LMHeadModel(config).eval(), GPT2LMHeadModel(config).eval()
    path = tmp_path / "gpt2"
    path.mkdir()
    # As on the hub: no "transformer." in front, the causal mask in the file, no head.
    old = {name.removeprefix("transformer."): t.clone() for name, t in source.transformer.state_dict().items()}
    save_file(old | {"h.0.attn.bias": torch.ones(1, 1, 8, 8)}, path / "model.safetensors")
    config.save_pretrained(path)
    checkpoint.pour(stored(path), target)
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(source(tokens).logits, target(tokens).logits)


def test_pour_names_what_does_not_fit(tiny_model_dir: Callable[..., Path]) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir(seed=0))
    with pytest.raises(CheckpointError, match=r"parameters without a value: model.layers.1"):
        checkpoint.pour(stored(tiny_model_dir(seed=0, layers=1)), model)
    with pytest.raises(CheckpointError, match=r"tensors without a place: model.layers.2"):
        checkpoint.pour(stored(tiny_model_dir(seed=0, layers=3)), model)


# ---- write ----------------------------------------------------------------------------------------------------------


def test_write_leaves_a_model_directory_and_copies_what_belongs_to_it(
    tiny_model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    base, one, two = (tiny_model_dir(seed=seed) for seed in range(3))
    out = tmp_path / "deep" / "out"
    found = checkpoint.write(derived(base, one, two), out)
    beside = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {file.name for file in out.iterdir()} == beside | {"model.safetensors"}
    assert all((out / name).read_bytes() == (base / name).read_bytes() for name in beside)
    expected = by_hand((base, one, two))
    for name, tensor in load_file(out / "model.safetensors").items():
        np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-5, atol=1e-7)
    assert found == checkpoint.digest(stored(out)) == checkpoint.digest(derived(base, one, two))
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_digest_is_what_its_description_says(tmp_path: Path) -> None:
    path = make(tmp_path / "m", dtype=torch.float16)
    expected = hashlib.sha256()
    for name, tensor in sorted(load_file(path / "model.safetensors").items()):
        expected.update(f"{name}\0F16\0{tuple(tensor.shape)}\0".encode() + tensor.numpy().tobytes())
    assert checkpoint.digest(stored(path)) == expected.hexdigest()
    assert checkpoint.digest(stored(shard(path))) == expected.hexdigest()


def test_write_shards_what_is_too_large_for_one_file(trio: tuple[Path, ...], tmp_path: Path) -> None:
    checkpoint.write(derived(*trio), tmp_path / "whole")
    found = checkpoint.write(derived(*trio), tmp_path / "parts", max_shard_bytes=90)
    layout = checkpoint.inspect(tmp_path / "parts")
    index = json.loads((tmp_path / "parts" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == layout.bytes
    assert len(set(index["weight_map"].values())) == 3  # 96 bytes alone, 16 + 64, and the last 16
    assert found == checkpoint.digest(stored(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("base", "experts", "wanted", "expected"),
    [
        ("bfloat16", ("float32", "bfloat16"), None, "float32"),
        ("float32", ("bfloat16", "bfloat16"), None, "bfloat16"),
        ("float32", ("bfloat16", "float16"), None, "float32"),
        ("bfloat16", ("bfloat16", "bfloat16"), None, "bfloat16"),
        ("float32", ("float32", "float32"), "float16", "float16"),
    ],
)
def test_the_dtype_is_the_widest_of_the_experts(
    tmp_path: Path, base: str, experts: tuple[str, str], wanted: str | None, expected: str
) -> None:
    dtypes = (base, *experts)
    paths = [make(tmp_path / str(i), seed=i, dtype=getattr(torch, dtype)) for i, dtype in enumerate(dtypes)]
    model = derived(*paths)
    found = checkpoint.write(model, tmp_path / "out", dtype=wanted)
    streamed = dict(checkpoint.tensors(model))
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert tensor.dtype == getattr(torch, expected)
        assert torch.equal(tensor, streamed[name].to(tensor.dtype))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == expected
    same = base == expected
    assert ((tmp_path / "out" / "config.json").read_bytes() == (paths[0] / "config.json").read_bytes()) == same
    assert found == checkpoint.digest(model, dtype=wanted)


def test_a_stored_checkpoint_is_written_as_it_is(tmp_path: Path) -> None:
    extra = {HEAD: torch.ones(6, 4), "steps": torch.tensor([3]), "flag": torch.tensor(True), "none": torch.empty(0, 3)}
    path = make(tmp_path / "m", dtype=torch.bfloat16, change=extra)
    checkpoint.write(stored(path), tmp_path / "out")
    before, after = (load_file(folder / "model.safetensors") for folder in (path, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)


def test_tensors_of_whole_pages_start_on_a_page(tmp_path: Path) -> None:
    wide, half = torch.randn(64, 64), torch.randn(64, 32).bfloat16()
    extra = {"a.odd": torch.ones(3).bfloat16(), "b.wide": wide, "c.odd": torch.ones(5), "d.half": half}
    path = make(tmp_path / "m", dtype=torch.bfloat16, change=extra)
    checkpoint.write(stored(path), tmp_path / "out")
    places = {name: info.offset for name, info in checkpoint.inspect(tmp_path / "out").tensors.items()}
    assert [places["b.wide"] % 4096, places["d.half"] % 4096, places["c.odd"] % 4] == [0, 0, 0]
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in extra.items())


def test_write_many_gives_what_write_gives(trio: tuple[Path, ...], tmp_path: Path) -> None:
    reads: list[str] = []

    def prepare(t: TensorStack) -> torch.Tensor:
        reads.append(t.name)
        return 2 * t.deltas

    points = [derived(*trio, weights=(w, 1 - w), prepare=prepare, prepare_key="double") for w in (0.2, 0.5, 0.8)]
    models = [points[0], stored(trio[1]), *points[1:]]
    found = checkpoint.write_many(models, [tmp_path / "many" / str(i) for i in range(4)])
    assert sorted(reads) == sorted([EMBED, NORM, Q, BIAS])
    assert found == [checkpoint.write(model, tmp_path / "single" / str(i)) for i, model in enumerate(models)]
    assert len(set(found)) == 4


def test_write_leaves_nothing_when_it_fails(trio: tuple[Path, ...], tmp_path: Path) -> None:
    folder = tmp_path / "outs"
    with pytest.raises(CheckpointError):
        checkpoint.write(derived(*trio, merge=lambda t: t.base / 0), folder / "out")
    assert list(folder.iterdir()) == []
    (folder / "taken").mkdir()
    (folder / "taken" / "file").touch()
    with pytest.raises(CheckpointError, match="taken: exists already"):
        checkpoint.write(derived(*trio), folder / "taken")
    with pytest.raises(CheckpointError, match="unknown dtype 'int8'"):
        checkpoint.write(derived(*trio), folder / "out", dtype="int8")


def test_what_a_killed_write_left_is_replaced(trio: tuple[Path, ...], tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from mixmerge import Checkpoint, checkpoint
from mixmerge.types import Derivation

def merge(t):
    if t.name.startswith("model.norm"):  # the last of the four
        os.kill(os.getpid(), 9)
    return t.base

base, out = (Path(argument) for argument in sys.argv[1:])
model = Checkpoint("base", base, "base")
checkpoint.write(Checkpoint("m", base, "m", Derivation(model, (model,), (1.0,), 0, merge)), out)
"""
    out = tmp_path / "outs" / "out"
    killed = subprocess.run([sys.executable, "-c", code, str(trio[0]), str(out)])
    assert killed.returncode == -9
    assert [path.name for path in out.parent.iterdir()] == [".out.partial"]
    found = checkpoint.write(derived(*trio), out)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert found == checkpoint.digest(stored(out))


def test_a_full_disk_is_said_before_anything_is_written(
    trio: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 0))
    with pytest.raises(StoreError, match=r"0\.0 GB free"):
        checkpoint.write(derived(*trio), tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


FILL = """
import shutil, sys
from collections import namedtuple
from pathlib import Path
from mixmerge import Checkpoint, StoreError, checkpoint
shutil.disk_usage = lambda path: namedtuple("usage", "free")(10**9)  # the space goes after the check
source, out = Path(sys.argv[1]), Path(sys.argv[2]) / "out"
try:
    checkpoint.write(Checkpoint("big", source, "big"), out)
except StoreError as error:
    print(error.message, [path.name for path in out.parent.iterdir()])
"""


def test_a_disk_that_fills_up_while_writing_is_a_store_error(tmp_path: Path) -> None:
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = "mount -t tmpfs -o size=64k none"
    small = tmp_path / "small"
    small.mkdir()
    try:
        subprocess.run([*namespace, "sh", "-c", f"{mount} {small}"], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("needs a mount namespace for a disk of 64 kB")
    source = make(tmp_path / "big", change={Q: torch.ones(200, 200)})
    command = f'{mount} {small} && exec "$0" -c "$1" {source} {small}'
    done = subprocess.run(
        [*namespace, "sh", "-c", command, sys.executable, FILL], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"{small}/out: the disk is full []\n"


# ---- layer_of and measure -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.12.mlp.down_proj.weight", "layer 12"),
        ("model.layers.3.input_layernorm.weight", "layer 3"),
        ("model.embed_tokens.weight", "embeddings"),
        ("model.norm.weight", "norm"),
        ("lm_head.weight", "head"),
        ("h.11.attn.c_attn.bias", "layer 11"),
        ("transformer.h.0.ln_1.weight", "layer 0"),
        ("wte.weight", "embeddings"),
        ("transformer.wpe.weight", "embeddings"),
        ("transformer.ln_f.bias", "norm"),
        ("gpt_neox.layers.5.attention.query_key_value.weight", "layer 5"),
        ("gpt_neox.embed_in.weight", "embeddings"),
        ("gpt_neox.final_layer_norm.weight", "norm"),
        ("embed_out.weight", "head"),
        ("transformer.word_embeddings.weight", "embeddings"),
        ("transformer.blocks.7.norm_1.weight", "layer 7"),
        ("transformer.norm_f.weight", "norm"),
        ("backbone.embeddings.weight", "embeddings"),
        ("something.else", "other"),
    ],
)
def test_layer_of(name: str, expected: str) -> None:
    assert checkpoint.layer_of(name) == expected


def test_measure_sums_over_groups_in_one_pass(trio: tuple[Path, ...]) -> None:
    base, one, two = trio
    seen: list[str] = []

    def observe(t: TensorStack) -> Mapping[str, torch.Tensor]:
        seen.append(t.name)
        return {"sum": t.deltas.double().reshape(len(t.deltas), -1).sum(1)}

    def finish(sums: Mapping[str, torch.Tensor], models: Sequence[str]) -> list[tuple[str, tuple[str, ...], float]]:
        return [("total", (model,), float(value)) for model, value in zip(models, sums["sum"], strict=True)]

    models = [stored(one), derived(*trio), stored(two), derived(*trio, weights=(1, 1))]
    models = [Checkpoint(f"m{i}", m.path, m.id, m.derivation) for i, m in enumerate(models)]
    found = checkpoint.measure(stored(base), models, [Observer("adder", observe, finish)])
    assert seen == sorted([EMBED, NORM, Q, BIAS])
    groups = {"layer 0": [Q], "layer 1": [BIAS], "embeddings": [EMBED], "norm": [NORM]}
    groups |= {"layers": [Q, BIAS], "all": [EMBED, NORM, Q, BIAS]}
    groups |= {"type self_attn.q_proj": [Q], "type self_attn.q_proj.bias": [BIAS]}
    assert list(dict.fromkeys(one.group for one in found)) == list(groups)
    files = [load_file(path / "model.safetensors") for path in trio]
    for one in found:
        assert (one.diagnostic, one.metric) == ("adder", "total")
        weights = {"m0": (1, 0), "m1": (0.25, 0.75), "m2": (0, 1), "m3": (1, 1)}[one.models[0]]
        expected = sum(
            weight * float((files[1 + i][name].double() - files[0][name].double()).sum())
            for name in groups[one.group]
            for i, weight in enumerate(weights)
        )
        assert one.value == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_a_merge_is_measured_as_it_is_written(trio: tuple[Path, ...], tmp_path: Path) -> None:
    for path in trio:
        short = {name: tensor.bfloat16() for name, tensor in load_file(path / "model.safetensors").items()}
        folder = tmp_path / "short" / path.name
        shutil.copytree(path, folder)
        save_file(short, folder / "model.safetensors", {"format": "pt"})
    found = derived(*(tmp_path / "short" / path.name for path in trio), weights=(0.3, 0.4))
    checkpoint.write(found, tmp_path / "out")
    written = stored(tmp_path / "out")

    def observe(t: TensorStack) -> Mapping[str, torch.Tensor]:
        return {"sum": t.deltas.double().reshape(len(t.deltas), -1).abs().sum(1)}

    def finish(sums: Mapping[str, torch.Tensor], models: Sequence[str]) -> list[tuple[str, tuple[str, ...], float]]:
        return [("total", (model,), float(value)) for model, value in zip(models, sums["sum"], strict=True)]

    models = [Checkpoint("derived", found.path, found.id, found.derivation), written]
    measured = checkpoint.measure(
        stored(tmp_path / "short" / trio[0].name), models, [Observer("adder", observe, finish)]
    )
    by_group: dict[str, list[float]] = {}
    for one in measured:
        by_group.setdefault(one.group, []).append(one.value)
    assert all(first == second for first, second in by_group.values())
    files = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(tensor, files[name]) for name, tensor in checkpoint.tensors(found) if name in files)
