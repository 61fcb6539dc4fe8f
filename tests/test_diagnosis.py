"""`mixmerge diagnose`, the notes beside its numbers, what is refused, and where tensors sit in real architectures."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mixmerge import Checkpoint, CheckpointError, PluginError, TensorPart, TensorView, checkpoint
from mixmerge.checkpoint import Observer, layer_of, measure, type_of
from mixmerge.plugins import diagnostics
from mixmerge.registry import Registry
from mixmerge.work import observer

Cli = Callable[..., subprocess.CompletedProcess[str]]
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def model(tiny_model_dir: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """`model("one", change)`: a copy of a tiny model whose tensors `change(name, tensor)` gives."""

    def make(name: str, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
        shutil.copytree(tiny_model_dir(seed=0), tmp_path / name)
        file = tmp_path / name / "model.safetensors"
        save_file({key: change(key, tensor).contiguous() for key, tensor in load_file(file).items()}, file)
        return tmp_path / name

    return make


def moved(by: float, seed: int, dtype: torch.dtype = torch.float32) -> Callable[[str, torch.Tensor], torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return lambda _, tensor: (tensor + by * torch.randn(tensor.shape, generator=draw)).to(dtype)


def same(_: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def checkpoints(*paths: Path) -> list[Checkpoint]:
    return [Checkpoint(path.name, path, path.name) for path in paths]


def figures(base: Checkpoint, models: list[Checkpoint], *names: str) -> dict[tuple[str, str, tuple[str, ...]], float]:
    observers = [observer(getattr(diagnostics, name), {}, models) for name in names]
    return {(one.metric, one.group, one.models): one.value for one in measure(base, models, observers)}


# ---- the verb -------------------------------------------------------------------------------------------------------


def test_diagnose_prints_a_table_and_writes_curves(model: Callable[..., Path], mixmerge: Cli, tmp_path: Path) -> None:
    paths = [model("base", same), model("one", moved(1e-3, 1)), model("two", moved(1e-3, 2))]
    done = mixmerge("diagnose", *paths, "--out", "figures")
    assert done.returncode == 0, done.stderr
    assert "correlation: pearson\n" in done.stdout
    assert "one × two" in done.stdout
    assert "note:" not in done.stdout
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {"measurements.csv", "l2_mean.svg", "rms.svg", "pearson.svg", "sign_agreement.svg"}
    with (tmp_path / "figures" / "measurements.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    loaded = [
        Checkpoint(name, path, name, kind="expert") for name, path in zip(("base", "one", "two"), paths, strict=True)
    ]
    for key, value in figures(loaded[0], loaded[1:], "l2", "correlation", "changed", "conflict").items():
        (row,) = [one for one in rows if (one["metric"], one["group"], one["models"]) == (*key[:2], " × ".join(key[2]))]
        assert float(row["value"]) == value
    assert "one × two" in (tmp_path / "figures" / "pearson.svg").read_text("utf-8")


def test_diagnose_as_json_with_parameters_and_runs_of_one_task(model: Callable[..., Path], mixmerge: Cli) -> None:
    paths = [model("base", same), *(model(name, moved(1e-3, seed)) for seed, name in enumerate("abc"))]
    told = ("-d", "null", "-d", "spectrum: {rank: 2}", "--same-task", paths[1], paths[3])
    done = mixmerge("diagnose", *paths, "--json", *told)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["models"]) == {"base", "a", "b", "c"}
    assert {tuple(one["models"]) for one in found["measurements"] if one["diagnostic"] == "null"} == {("a", "c")}
    assert "overlap_in" in {one["metric"] for one in found["measurements"]}


def test_diagnose_refuses_what_does_not_fit(model: Callable[..., Path], mixmerge: Cli, tmp_path: Path) -> None:
    base = model("base", same)
    other = model("other", lambda name, tensor: tensor[:-1] if "q_proj" in name else tensor)
    done = mixmerge("diagnose", base, other)
    assert (done.returncode, "other shapes" in done.stderr, "Traceback" in done.stderr) == (1, True, False)
    done = mixmerge("diagnose", base, tmp_path / "nothing")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    done = mixmerge("diagnose", base, base, "-d", "corelation")
    assert "did you mean 'correlation'?" in done.stderr


# ---- notes ----------------------------------------------------------------------------------------------------------


def test_a_note_where_a_change_is_mostly_rounding(model: Callable[..., Path], mixmerge: Cli) -> None:
    narrow = model("base", lambda _, tensor: tensor.bfloat16())
    tiny, large = model("tiny", moved(3e-5, 1, torch.bfloat16)), model("large", moved(1e-2, 1, torch.bfloat16))
    done = mixmerge("diagnose", narrow, tiny, large, "-d", "changed")
    (note,) = [line for line in done.stdout.splitlines() if line.startswith("note:")]
    assert note.startswith("note: tiny: ")
    assert note.endswith("the other figures about it measure rounding")


def test_an_unknown_architecture_has_figures_for_each_tensor_and_a_note(
    model: Callable[..., Path], tmp_path: Path
) -> None:
    def renamed(change: float) -> Path:
        path = model(f"moved by {change}", moved(change, 1))
        file = path / "model.safetensors"
        tensors = {
            key.replace("model.layers.", "tower/").replace("model.", "x/"): t for key, t in load_file(file).items()
        }
        save_file(tensors, file)
        return path

    base, one = checkpoints(renamed(0.0), renamed(1e-3))
    observers = [observer(diagnostics.l2, {}, [one])]
    found = measure(base, [one], observers)
    names = list(load_file(base.path / "model.safetensors"))
    assert {f"tensor {name}" for name in names} <= {measured.group for measured in found}
    (note,) = checkpoint.notes(found)
    assert note.startswith("no place in the model is known for tower/0.input_layernorm.weight, ")
    assert "unknown architecture" in note

    plugin = tmp_path / "tower.py"
    plugin.write_text(
        "import re\nfrom mixmerge import hookimpl\n\n@hookimpl\ndef place_tensor(name):\n"
        "    if found := re.match(r'tower/(\\d+)', name):\n        return f'layer {found[1]}'\n"
        "    return {'x/embed_tokens.weight': 'embeddings', 'x/norm.weight': 'norm'}.get(name)\n"
    )
    registry = Registry([str(plugin)])
    again = measure(base, [one], observers, place=registry.place)
    assert checkpoint.notes(again) == []
    assert {"layer 0", "layer 1", "embeddings", "norm"} <= {measured.group for measured in again}
    assert registry.place("model.layers.3.mlp.up_proj.weight") == "layer 3"  # what the plugin does not know


def test_a_plugin_that_places_a_tensor_nowhere_is_told(tmp_path: Path) -> None:
    plugin = tmp_path / "wrong.py"
    plugin.write_text("from mixmerge import hookimpl\n\n@hookimpl\ndef place_tensor(name):\n    return 'Layer3'\n")
    with pytest.raises(PluginError, match=r"puts x into 'Layer3'"):
        Registry([str(plugin)]).place("x")


# ---- measure --------------------------------------------------------------------------------------------------------


def test_dtypes_may_differ_and_are_subtracted_in_float64(model: Callable[..., Path]) -> None:
    paths = [
        model("base", lambda _, tensor: tensor.bfloat16()),
        model("half", moved(1e-3, 1, torch.float16)),
        model("single", moved(1e-3, 2)),
        model("double", moved(1e-3, 3, torch.float64)),
    ]
    base, *models = checkpoints(*paths)
    found = figures(base, models, "l2", "correlation", "changed")
    origin, *others = (load_file(path / "model.safetensors") for path in paths)
    flat = torch.stack(
        [torch.cat([(one[n].double() - origin[n].double()).flatten() for n in origin]) for one in others]
    )
    names = [one.name for one in models]
    for name, norm in zip(names, flat.norm(dim=1), strict=True):
        assert found["norm", "all", (name,)] == pytest.approx(float(norm), rel=1e-12)
    expected = float(torch.corrcoef(flat)[0, 2])
    assert found["pearson", "all", ("half", "double")] == pytest.approx(expected, rel=1e-10)
    assert found["changed", "all", ("double",)] == 1.0


def test_a_tied_head_is_part_of_the_embeddings_and_shards_are_one_model(
    model: Callable[..., Path], tmp_path: Path
) -> None:
    base, one = model("base", same), model("one", moved(1e-3, 1))
    tensors = load_file(one / "model.safetensors")
    (one / "model.safetensors").unlink()
    files = {"a.safetensors": sorted(tensors)[::2], "b.safetensors": sorted(tensors)[1::2]}
    extra = {"lm_head.weight": tensors["model.embed_tokens.weight"]}  # stored, though nobody reads it
    for file, names in files.items():
        save_file({name: tensors[name] for name in names} | (extra if file[0] == "b" else {}), one / file)
    weight_map = {name: file for file, names in files.items() for name in names} | {"lm_head.weight": "b.safetensors"}
    (one / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    origin, *models = checkpoints(base, one)
    found = figures(origin, models, "l2")
    assert {group for _, group, _ in found if group in ("embeddings", "head")} == {"embeddings"}
    change = (
        tensors["model.embed_tokens.weight"].double()
        - load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    )
    assert found["norm", "embeddings", ("one",)] == pytest.approx(float(change.norm()), rel=1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("broken", ["base", "two"])
def test_what_is_not_finite_is_told(value: float, broken: str, model: Callable[..., Path]) -> None:
    def spoil(name: str, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        if name.endswith("layers.1.mlp.up_proj.weight"):
            tensor[3, 4] = value
        return tensor

    paths = [model(name, spoil if name == broken else moved(1e-3, 1)) for name in ("base", "one", "two")]
    base, *models = checkpoints(*paths)
    with pytest.raises(
        CheckpointError, match=rf"^{broken}: 1 of 512 values of model.layers.1.mlp.up_proj.weight are NaN"
    ):
        figures(base, models, "changed")
    whole = Observer("whole", lambda t: {"sum": t.deltas.double().sum()}, lambda sums, names: [])
    with pytest.raises(
        CheckpointError, match=rf"^{broken}: 1 of 512 values of model.layers.1.mlp.up_proj.weight are NaN"
    ):
        measure(base, models, [whole])


def test_measure_refuses_other_shapes(model: Callable[..., Path]) -> None:
    cut = model("cut", lambda name, tensor: tensor[:-1] if "embed" in name else tensor)
    base, other = checkpoints(model("base", same), cut)
    with pytest.raises(CheckpointError, match=r"cut: not aligned with base: model.embed_tokens.weight"):
        figures(base, [other], "l2")


def _largest(part: TensorPart, power: int) -> Mapping[str, Any]:
    return {"sum": (part.deltas.abs() ** power).sum(1)}


def test_a_plugins_statistic_is_summed_part_by_part_and_shared(
    model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.view, "PART", 100)
    base, one = checkpoints(model("base", same), model("one", moved(1e-3, 1)))
    seen: list[int] = []

    def observe(t: TensorView) -> Mapping[str, torch.Tensor]:
        first = t.total(partial(_largest, power=3))
        assert t.total(partial(_largest, power=3)) is first
        seen.append(len(first["sum"]))
        return first

    def nested(t: TensorView) -> Mapping[str, torch.Tensor]:
        return t.total(lambda part: part.view.total(partial(_largest, power=1)))

    found = measure(
        base, [one], [Observer("cubes", observe, lambda sums, names: [("cubes", ("one",), float(sums["sum"]))])]
    )
    tensors = [load_file(path / "model.safetensors") for path in (base.path, one.path)]
    expected = sum(float(((tensors[1][n].double() - tensors[0][n].double()).abs() ** 3).sum()) for n in tensors[0])
    assert [m.value for m in found if m.group == "all"] == [pytest.approx(expected, rel=1e-12)]
    assert set(seen) == {1}
    with pytest.raises(PluginError, match="asks for a total"):
        measure(base, [one], [Observer("nested", nested, lambda sums, names: [])])


# ---- architectures --------------------------------------------------------------------------------------------------

TINY = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 64, "tie_word_embeddings": False, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_local_experts": 2, "num_experts": 2, "n_routed_experts": 2, "num_experts_per_tok": 1}
EXPERTS |= {
    "moe_intermediate_size": 8,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}
LATENT = {"q_lora_rank": 4, "kv_lora_rank": 4, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        *((kind, {}) for kind in ("llama", "qwen2", "qwen3", "gemma", "gemma2", "mistral", "phi", "phi3", "gpt_neox")),
        *((kind, {}) for kind in ("gpt2", "gpt_bigcode", "starcoder2", "granite", "olmo2", "falcon", "mpt", "opt")),
        *((kind, EXPERTS) for kind in ("mixtral", "qwen2_moe", "qwen3_moe", "granitemoe")),
        *((kind, EXPERTS | LATENT) for kind in ("deepseek_v2", "deepseek_v3")),
    ],
)
def test_every_tensor_of_a_known_architecture_has_its_place(kind: str, more: dict[str, int]) -> None:
    """With the names that transformers itself gives them."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **TINY | more)
    with torch.device("meta"):
        loaded = AutoModelForCausalLM.from_config(config)
    places = {name: layer_of(name) for name, _ in loaded.named_parameters()}
    assert [name for name, place in places.items() if place == "other"] == []
    assert {"embeddings", "layer 0", "layer 1"} <= set(places.values())
    types = {type_of(name) for name, place in places.items() if place.startswith("layer ")}
    assert not [one for one in types if any(part.isdigit() for part in one.split("."))]
    assert len(types) < len([place for place in places.values() if place.startswith("layer ")])


@pytest.mark.parametrize(
    ("name", "place", "kind"),
    [
        ("model.layers.3.mlp.experts.17.down_proj.weight", "layer 3", "mlp.experts.down_proj"),
        ("model.layers.3.self_attn.q_proj.bias", "layer 3", "self_attn.q_proj.bias"),
        ("transformer.h.11.attn.c_attn.weight", "layer 11", "attn.c_attn"),
        ("gpt_neox.layers.0.attention.query_key_value.weight", "layer 0", "attention.query_key_value"),
        ("vision_tower.encoder.layers.3.mlp.fc1.weight", "other", "mlp.fc1"),
        ("model.language_model.layers.5.mlp.up_proj.weight", "layer 5", "mlp.up_proj"),
    ],
)
def test_place_and_type(name: str, place: str, kind: str) -> None:
    assert (layer_of(name), type_of(name)) == (place, kind)


# ---- in a recipe ----------------------------------------------------------------------------------------------------


def test_a_recipe_knows_learning_rates_seeds_and_kinds(toy_recipe: Path, mixmerge: Cli, tmp_path: Path) -> None:
    """`null` unquoted is nothing to YAML; here it is a name. A second seed of a task is compared with the first."""
    text = toy_recipe.read_text()
    again = "  gen_again: {data: {gen: 1.0}, trainer: toy_train, seed: 11}\n  sum_expert"
    text = text.replace("  sum_expert", again, 1).replace("[l2, correlation]", "[l2, correlation, conflict, null]")
    toy_recipe.write_text(text)
    toy = Path(__file__).parent / "data" / "toy.py"
    done = mixmerge("-p", toy, "recipe", toy_recipe)
    assert done.returncode == 0, done.stderr
    plan = json.loads(mixmerge("-p", toy, "plan", toy_recipe, "--json").stdout)
    names = {step["id"]: step["name"].removeprefix("train ") for step in plan["steps"]}
    (step,) = [one["id"] for one in plan["steps"] if one["name"] == "diagnose experts and mixtures"]
    found_in = Path(json.loads(mixmerge("show", step, "--json").stdout)["payload"])
    found = json.loads((found_in / "measurements.json").read_text("utf-8"))
    values = {
        (one["diagnostic"], one["metric"], one["group"], tuple(names[model] for model in one["models"])): one["value"]
        for one in found
    }
    assert {about for diagnostic, *_, about in values if diagnostic == "null"} == {("gen_expert", "gen_again")}
    assert {about for diagnostic, *_, about in values if diagnostic == "conflict"} == {("gen_expert", "sum_expert")}
    for model, rate in (("gen_expert", 0.05), ("sum_expert", 0.1)):
        plain = values["l2", "rms", "layers", (model,)]
        assert values["l2", "rms_per_lr_step", "layers", (model,)] == pytest.approx(plain / rate, rel=1e-12)
