"""`mixmerge merge`: mergekit's configurations, read strictly, against mergekit's own `run_merge` on whole models."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import make_adapter
from safetensors.torch import load_file, save_file

from mixmerge import Checkpoint, CheckpointError, RecipeError, SourceError, checkpoint, merging, sources
from mixmerge.plugins.mergekit import align_tokens, compat, hand_over, parameters_of
from mixmerge.registry import Registry
from mixmerge.types import Reading

MERGEKIT = merging.Mergekit(compat, align_tokens)
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def models(tiny_model_dir: Callable[..., Path]) -> dict[str, str]:
    """Of four layers: gradients need some."""
    names = ("BASE", "ONE", "TWO")
    return {name: str(tiny_model_dir(seed=seed, layers=4, dtype="bfloat16")) for seed, name in enumerate(names)}


def config(path: Path, text: str, models: Mapping[str, str]) -> Path:
    for name, model in models.items():
        text = text.replace(name, model)
    path.write_text(text)
    return path


def merge(file: Path, out: Path, *, exact: bool = False, seed: int = 0) -> dict[str, torch.Tensor]:
    read = merging.read(file, parameters_of)
    found = merging.prepare(read, Registry(), MERGEKIT, compat=exact, seed=seed)
    digest = merging.write(found, read, out)
    assert digest == checkpoint.digest(Checkpoint("m", out, "m"))
    return load_file(out / "model.safetensors")


def theirs(file: Path, out: Path, seed: int = 0, **changed: Any) -> dict[str, torch.Tensor]:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    setting = yaml.safe_load(file.read_text()) | changed
    run_merge(MergeConfiguration.model_validate(setting), str(out), MergeOptions(quiet=True, random_seed=seed))
    found = load_file(out / "model.safetensors")
    found.pop("lm_head.weight", None)  # tied; mergekit writes it a second time
    return found


FILTERED = """\
merge_method: ties
base_model: BASE
models:
  - model: ONE
    parameters:
      weight: [0.1, 0.9]
      density: {filter: mlp, value: 0.3}
  - model: TWO
    parameters:
      weight:
        - {filter: self_attn, value: [1.0, 0.2, 0.5]}
        - value: 0.4
parameters: {density: 0.6, normalize: true, lambda: 0.9}
dtype: bfloat16
"""
PLAIN = """\
merge_method: linear
models:
  - {model: ONE, parameters: {weight: 0.3}}
  - {model: TWO, parameters: {weight: 0.7}}
dtype: bfloat16
"""
TASK = """\
merge_method: task_arithmetic
base_model: BASE
models:
  - {model: BASE}
  - {model: ONE, parameters: {weight: 0.3}}
  - {model: TWO, parameters: {weight: [0.7, -0.1]}}
dtype: bfloat16
"""
STACKED = """\
merge_method: task_arithmetic
base_model: BASE
slices:
  - sources:
      - {model: BASE, layer_range: [0, 2]}
      - {model: ONE, layer_range: [1, 3], parameters: {weight: [0.2, 0.8]}}
  - sources:
      - {model: BASE, layer_range: [1, 4]}
      - {model: ONE, layer_range: [1, 4], parameters: {weight: 0.5}}
dtype: bfloat16
"""
OTHERS = """\
merge_method: breadcrumbs
base_model: BASE
models:
  - {model: ONE, parameters: {weight: 0.3, gamma: 0.05}}
  - {model: TWO, parameters: {weight: 0.7}}
parameters: {density: 0.6}
dtype: bfloat16
"""
SLERP = """\
merge_method: slerp
base_model: BASE
models: [{model: BASE}, {model: ONE}]
parameters: {t: [0.2, 0.8]}
dtype: bfloat16
"""
ALL = {"ties": FILTERED, "linear": PLAIN, "task": TASK, "slices": STACKED, "breadcrumbs": OTHERS}


@pytest.mark.parametrize("name", ALL)
def test_compat_is_mergekit_bit_for_bit(models: dict[str, str], tmp_path: Path, name: str) -> None:
    file = config(tmp_path / "c.yml", ALL[name], models)
    expected = theirs(file, tmp_path / "theirs")
    found = merge(file, tmp_path / "ours", exact=True)
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        assert torch.equal(tensor.view(torch.int16), expected[key].view(torch.int16)), key


@pytest.mark.parametrize("name", ALL)
def test_the_default_is_mergekit_in_float32_rounded_once(models: dict[str, str], tmp_path: Path, name: str) -> None:
    file = config(tmp_path / "c.yml", ALL[name], models)
    expected = theirs(file, tmp_path / "theirs", dtype="float32")
    found = merge(file, tmp_path / "ours")
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        assert tensor.dtype == torch.bfloat16
        near = torch.isclose(tensor.float(), expected[key].float(), rtol=2**-8, atol=1e-6)
        # TIES: of values equal to the smallest that stays, mergekit keeps others
        assert near.float().mean() >= (0.97 if name == "ties" else 1.0), key


def test_random_masks_are_mergekits_in_compat(models: dict[str, str], tmp_path: Path) -> None:
    text = OTHERS.replace("breadcrumbs", "della").replace(", gamma: 0.05", "")
    file = config(tmp_path / "c.yml", text, models)
    expected = theirs(file, tmp_path / "theirs", seed=5)
    found = merge(file, tmp_path / "ours", exact=True, seed=5)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in found.items())


def test_slices_change_the_number_of_layers(models: dict[str, str], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    merge(config(tmp_path / "c.yml", STACKED, models), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 5
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()


def test_a_chat_template_and_the_configuration_lie_beside_the_weights(models: dict[str, str], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    text = PLAIN + "out_dtype: float32\nchat_template: '{{ messages[0].content }}!'\n"
    file = config(tmp_path / "c.yml", text, models)
    found = merge(file, tmp_path / "out")
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    how, kept = (tmp_path / "out" / "mergekit_config.yml").read_text().split("\n", 1)
    assert (how, kept) == ("# by mixmerge 0.1.0: mixmerge merge c.yml OUT --seed 0", file.read_text())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Merged by mixmerge 0.1.0: mixmerge merge c.yml OUT --seed 0" in card
    assert f"- {models['ONE']}: weight 0.3" in card
    assert f"Of {models['ONE']}, unchanged: tokenizer.json." in card  # the config has another dtype
    assert f"the licence of the expert {models['TWO']} is not known" in card
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    message = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(message, tokenize=False) == "hello!"


def test_nothing_is_left_of_a_merge_that_fails(models: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model-00009-of-00009.safetensors").touch()  # a stale shard
    file = config(tmp_path / "c.yml", PLAIN, models)
    with pytest.raises(CheckpointError, match="out: exists already"):
        merge(file, tmp_path / "out")
    broken = tmp_path / "broken"
    tensors = load_file(Path(models["TWO"]) / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    broken.mkdir()
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json"):
        (broken / name).write_bytes((Path(models["TWO"]) / name).read_bytes())
    file = config(tmp_path / "d.yml", PLAIN, models | {"TWO": str(broken)})
    with pytest.raises(CheckpointError, match=r"1 of 16 values of model\.norm\.weight are NaN"):
        merge(file, tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "c.yml", "d.yml", "broken"}


# ---- strictness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (TASK + "lambda: 1.3\n", 8, "'lambda' stands at the top"),
        (TASK + "lamda: 1.3\n", 8, "unknown key 'lamda'"),
        (TASK.replace("weight: 0.3", "weight: 0.3, wieght: 1"), 5, "task_arithmetic has no parameter 'wieght'"),
        (TASK.replace("weight: 0.3", "weight: 0.3, normalize: true"), 5, "'normalize' belongs to the merge"),
        (TASK.replace("weight: 0.3", "weight: much"), 5, "weight is the text 'much', not a number"),
        (TASK.replace("weight: 0.3", "weight: .nan"), 5, "weight is nan"),
        (TASK.replace("weight: 0.3", "weight: -.inf"), 5, "weight is -inf"),
        (
            TASK.replace("{model: BASE}", "{model: BASE, parameters: {weight: 1}}"),
            3,
            "is the base, which takes no 'weight'",
        ),
        (TASK.replace("{model: ONE, parameters: {weight: 0.3}}", "{model: ONE}"), 3, "no 'weight'"),
        (TASK.replace("base_model: BASE\n", ""), 1, "task_arithmetic needs `base_model`"),
        (PLAIN + "base_model: BASE\n", 6, "would average the base in"),
        (PLAIN + "dtype: int8\n", 6, "'dtype' stands twice"),
        (PLAIN.replace("bfloat16", "int8"), 5, "dtype is the text 'int8'"),
        (PLAIN.replace("linear", "liner"), 1, "no method 'liner'"),
        (PLAIN.replace("linear", "passthrough"), 1, "it copies one model"),
        (OTHERS.replace("density: 0.6", "density: 1.5"), 6, "density is 1.5"),
        (PLAIN.replace("TWO", "ONE/../" + "{ONE_NAME}"), 4, "stands twice in models, first as"),
        (PLAIN + "slices: []\n", 1, "one of models, slices and modules, not models, slices"),
        (STACKED.replace("[1, 4], parameters", "[1, 3], parameters"), 7, "sources of different numbers of layers"),
        (STACKED.replace("layer_range: [0, 2]", "layer_range: [2, 0]"), 5, "not [FIRST, END]"),
    ],
)
def test_what_mergekit_lets_pass_is_a_problem_with_its_line(
    models: dict[str, str], tmp_path: Path, text: str, line: int, message: str
) -> None:
    text = text.replace("{ONE_NAME}", Path(models["ONE"]).name)
    with pytest.raises(RecipeError) as caught:
        merging.read(config(tmp_path / "c.yml", text, models), parameters_of)
    found = [problem for problem in caught.value.problems if message in problem.what]
    assert found, str(caught.value)
    assert found[0].where == f"{tmp_path / 'c.yml'}:{line}"


def test_another_vocabulary_is_refused(
    models: dict[str, str], tiny_model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    larger = str(tiny_model_dir(seed=1, layers=4, vocab=330, dtype="bfloat16"))
    with pytest.raises(CheckpointError, match="another vocabulary") as caught:
        merge(config(tmp_path / "c.yml", PLAIN, models | {"TWO": larger}), tmp_path / "out")
    assert "tokenizer_source: union` and --mergekit" in caught.value.hint


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("text", [STACKED, STACKED + "tokenizer_source: union\n"], ids=["plain", "union"])
def test_slices_of_another_vocabulary_are_refused(
    models: dict[str, str], tmp_path: Path, exact: bool, text: str
) -> None:
    turned = tmp_path / "turned"
    shutil.copytree(models["ONE"], turned)
    tokenizer = json.loads((turned / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    last = max(vocabulary.values())
    tokenizer["model"]["vocab"] = {token: last - row for token, row in vocabulary.items()}
    (turned / "tokenizer.json").write_text(json.dumps(tokenizer))
    file = config(tmp_path / "c.yml", text, models | {"ONE": str(turned)})
    wanted = "tokenizer_source is not supported" if "union" in text else "another vocabulary"
    with pytest.raises(CheckpointError, match=wanted):
        merge(file, tmp_path / "out", exact=exact)


@pytest.mark.parametrize("source", ["union", "base", "TWO"])
def test_vocabularies_are_aligned_as_mergekit_does(
    models: dict[str, str], tiny_model_dir: Callable[..., Path], tmp_path: Path, source: str
) -> None:
    larger = str(tiny_model_dir(seed=2, layers=4, vocab=330, dtype="bfloat16"))
    assert len(checkpoint.tokenizer_vocabulary(Path(larger))) > len(
        checkpoint.tokenizer_vocabulary(Path(models["ONE"]))
    )
    file = config(tmp_path / "c.yml", TASK + f"tokenizer_source: {source}\n", models | {"TWO": larger})
    expected = theirs(file, tmp_path / "theirs", dtype="float32")
    found = merge(file, tmp_path / "out")
    assert {name: t.shape for name, t in found.items()} == {name: t.shape for name, t in expected.items()}
    vocabulary, other = (checkpoint.tokenizer_vocabulary(tmp_path / name) for name in ("out", "theirs"))
    assert vocabulary.keys() == other.keys()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == len(vocabulary)
    order = torch.tensor([other[token] for token in sorted(vocabulary, key=lambda token: vocabulary[token])])
    for name, tensor in found.items():
        wanted = expected[name].float()
        if name == "model.embed_tokens.weight":  # new tokens of a union come in an order that mergekit leaves to chance
            wanted = wanted[order]
        torch.testing.assert_close(tensor.float(), wanted, rtol=2**-8, atol=1e-6)


def test_an_unknown_method_is_one_problem(models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        merging.read(config(tmp_path / "c.yml", FILTERED.replace("ties", "tiess"), models), parameters_of)
    assert [problem.hint for problem in caught.value.problems] == ["did you mean 'ties'?"]


def test_every_problem_is_told_at_once(models: dict[str, str], tmp_path: Path) -> None:
    text = TASK.replace("0.3", "much").replace("bfloat16", "int8") + "lambda: 2\n"
    with pytest.raises(RecipeError) as caught:
        merging.read(config(tmp_path / "c.yml", text, models), parameters_of)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN.replace("0.7", "-0.3"), "the weights 0.3, -0.3 of model.embed_tokens.weight sum to zero"),
        (FILTERED.replace("0.2, 0.5]", "0.2, -0.9]"), "the weights 0.9, -0.9 of model.layers.3.self_attn"),
        (
            TASK.replace("weight: 0.3", "weight: {filter: mlp, value: 0.3}"),
            "ONE has no 'weight' for model.embed_tokens",
        ),
        (OTHERS.replace("breadcrumbs", "della").replace(", gamma: 0.05", "").replace("0.6", "0.9"), "0.75 to 1.05"),
        (PLAIN + "modules: {}\n", "one of models"),
        (PLAIN.replace("{model: ONE", "{model: nowhere/at-all"), "there is no directory nowhere/at-all in "),
        (
            PLAIN + "tokenizer: {source: union, pad_to_multiple_of: 64}\n",
            "not supported: `tokenizer.pad_to_multiple_of`",
        ),
        (PLAIN + "chat_template: auto\n", "not supported: `chat_template: auto`"),
        (STACKED.replace("[1, 3]", "[3, 5]"), "has 4 layers, so there is no layer 4"),
        (FILTERED.replace("filter: mlp", "filter: mpl"), "no tensor is left for filter 'mpl' of density"),
        (
            TASK.replace("0.3", "[{filter: self_attn, value: 1}, {filter: q_proj, value: 2}, {value: 3}]"),
            "no tensor is left for filter 'q_proj' of weight",
        ),
    ],
)
def test_what_cannot_be_merged_is_told_before_any_work(
    models: dict[str, str], tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises((CheckpointError, RecipeError, SourceError)) as caught:
        merge(config(tmp_path / "c.yml", text, models), tmp_path / "out")
    expected = message.replace("ONE", models["ONE"])
    assert expected in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_filter_may_name_a_tied_head(models: dict[str, str], tmp_path: Path) -> None:
    text = PLAIN.replace("weight: 0.3", "weight: [{filter: lm_head, value: 0.9}, {value: 0.3}]")
    found = merge(config(tmp_path / "c.yml", text, models), tmp_path / "out")
    plain = merge(config(tmp_path / "d.yml", PLAIN, models), tmp_path / "plain")
    read = merging.read(tmp_path / "c.yml", parameters_of)
    assert "filter 'lm_head' of weight: nothing" in "\n".join(merging.prepare(read, Registry(), MERGEKIT).lines)
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in found)


def test_what_every_parameter_does_is_said(models: dict[str, str], tmp_path: Path) -> None:
    file = merging.read(config(tmp_path / "c.yml", FILTERED, models), parameters_of)
    lines = "\n".join(merging.prepare(file, Registry(), MERGEKIT).lines)
    assert "ties of 2 models; arithmetic: mixmerge's, in float32, rounded once" in lines
    assert f"{models['ONE']}: weight 0.1 → 0.9, density 0.3 where the name has 'mlp'" in lines
    assert "normalize True; rescale False (default); lambda 0.9" in lines
    assert "at model.layers.0.input_layernorm.weight: effective scale of the merged change: 0.9" in lines
    assert "its weight cancels" in lines
    plain = merging.read(config(tmp_path / "d.yml", PLAIN, models), parameters_of)
    assert "no base_model is given, so it is the first model" in "\n".join(
        merging.prepare(plain, Registry(), MERGEKIT).lines
    )


# ---- adapters -------------------------------------------------------------------------------------------------------


PATTERNS = {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"layers.1.*q_proj": 3, "down_proj": 5, "proj": 7}}


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, PATTERNS, {"init_lora_weights": "gaussian"}])
def test_an_adapter_is_what_peft_merges(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    path = make_adapter(tmp_path / "lora", models["BASE"], 1, **settings)
    model = Checkpoint("m", Path(models["BASE"]), "m", reading=Reading(adapter=path))
    expected = load_file(path / "merged" / "model.safetensors")
    changed = 0
    for name, tensor in checkpoint.tensors(model, rounded=False):
        torch.testing.assert_close(tensor.float(), expected[name], rtol=1e-6, atol=1e-6)
        changed += tensor.dtype == torch.float32
    assert changed == 8  # two weights in each of four layers


def test_a_recipe_says_how_an_adapter_becomes_a_model(models: dict[str, str], tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "lora", models["BASE"], 1)
    with pytest.raises(SourceError, match="is a LoRA adapter and no whole model") as caught:
        sources.resolve_model(str(path))
    text = str(caught.value.hint).partition("with c.yml: ")[2]
    found = merge(config(tmp_path / "c.yml", text, models), tmp_path / "out")
    for name, expected in load_file(path / "merged" / "model.safetensors").items():
        torch.testing.assert_close(found[name].float(), expected, rtol=2**-8, atol=1e-6)  # stored as the base is
    assert sources.resolve_model(str(tmp_path / "out")).path == tmp_path / "out"


def test_adapters_are_experts(models: dict[str, str], tmp_path: Path) -> None:
    one, two = (make_adapter(tmp_path / f"lora{seed}", models["BASE"], seed) for seed in (1, 2))
    text = TASK.replace("ONE", f"BASE+{one}").replace("TWO", f"BASE+{two}").replace("[0.7, -0.1]", "0.5")
    file = config(tmp_path / "c.yml", text.replace("bfloat16", "float32"), models)
    found = merge(file, tmp_path / "out")
    base, *experts = (
        {name: tensor.double() for name, tensor in load_file(path / "model.safetensors").items()}
        for path in (Path(models["BASE"]), one / "merged", two / "merged")
    )
    for name, tensor in found.items():
        expected = base[name] + 0.3 * (experts[0][name] - base[name]) + 0.5 * (experts[1][name] - base[name])
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "adapter_config.json").unlink(), "no LoRA adapter"),
        (lambda path: edit(path, use_dora=True), "not a plain LoRA adapter: DoRA"),
        (lambda path: edit(path, alora_invocation_tokens=[1]), "not a plain LoRA adapter: activated LoRA"),
        (lambda path: edit(path, some_new_method=True), "not a plain LoRA adapter: some_new_method True"),
        (lambda path: edit(path, init_lora_weights="pissa_niter_4"), "init_lora_weights 'pissa_niter_4', whose base"),
        (lambda path: edit(path, init_lora_weights="olora"), "init_lora_weights 'olora', whose base is not"),
        (lambda path: edit(path, r=8), "has rank 4, and adapter_config.json says 8"),
        (lambda path: spoil_values(path), "lora_A.weight has values that are not finite"),
        (lambda path: edit(path, bias="all"), "bias 'all'"),
        (lambda path: rename(path, "q_proj", "other"), "self_attn.other.weight, \\(16, 16\\), which is not there"),
    ],
)
def test_an_adapter_that_is_more_or_elses_is_refused(
    models: dict[str, str], tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    path = make_adapter(tmp_path / "lora", models["BASE"], 1)
    spoil(path)
    with pytest.raises(CheckpointError, match=message):
        list(checkpoint.tensors(Checkpoint("m", Path(models["BASE"]), "m", reading=Reading(adapter=path))))


def edit(path: Path, **changed: Any) -> None:
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def spoil_values(path: Path) -> None:
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = math.nan
    save_file(tensors, file)


def rename(path: Path, before: str, after: str) -> None:
    file = path / "adapter_model.safetensors"
    save_file({name.replace(before, after): tensor for name, tensor in load_file(file).items()}, file)


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_merges_plans_and_hands_over(mixmerge: Run, models: dict[str, str], tmp_path: Path) -> None:
    config(tmp_path / "c.yml", SLERP, models)
    done = mixmerge("merge", "c.yml", "out", "--compat", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == checkpoint.digest(Checkpoint("m", tmp_path / "out", "m"))
    done = mixmerge("merge", "c.yml", "handed", "--mergekit")
    assert done.returncode == 0, done.stderr
    handed = load_file(tmp_path / "handed" / "model.safetensors")
    assert all(torch.equal(t, handed[name]) for name, t in load_file(tmp_path / "out" / "model.safetensors").items())
    lora = make_adapter(tmp_path / "lora", models["BASE"], 1)
    config(tmp_path / "l.yml", PLAIN.replace("ONE", f"BASE+{lora}"), models)
    hand_over(tmp_path / "l.yml", tmp_path / "adapted", 0)
    assert (tmp_path / "adapted" / "model.safetensors").is_file()
    done = mixmerge("plan", "c.yml", "--json")
    found = json.loads(done.stdout)
    size = checkpoint.inspect(Path(models["ONE"])).bytes
    assert (found["bytes_read"], found["bytes_written"]) == (2 * size, size)
    assert found["peak_bytes"] < 2**30
    done = mixmerge("merge", "c.yml", "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert "out: exists already" in done.stderr
    (tmp_path / "file").touch()
    done = mixmerge("merge", "c.yml", tmp_path / "file" / "below")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"error: {tmp_path / 'file'}: file exists")
