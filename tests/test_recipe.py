"""Every kind of bad input gives one clear error with file:line and a hint, before anything runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TOY

from mixmerge.errors import RecipeError
from mixmerge.recipe import load
from mixmerge.registry import Registry


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry([str(TOY)])


def problems(path: Path, registry: Registry, old: str, new: str) -> str:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RecipeError) as caught:
        load(path, registry)
    return str(caught.value)


BAD = {
    "unknown section": ("diagnose:", "diagnos:", 21, "unknown key 'diagnos'", "did you mean 'diagnose'?"),
    "unknown key": ("experts:", "expert:", 13, "unknown key 'expert'", "did you mean 'experts'?"),
    "unknown trainer": (
        "trainer: toy_train",
        "trainer: toy_trian",
        8,
        "no trainer is called 'toy_trian'",
        "'toy_train'",
    ),
    "unknown merger": ("[linear, ties", "[linaer, ties", 16, "no merger is called 'linaer'", "did you mean 'linear'?"),
    "unknown parameter": ("density: 0.5", "densty: 0.5", 16, "unknown parameter 'densty'", "ties takes"),
    "unknown data": ("{gen: 1.0}", "{gne: 1.0}", 8, "no dataset is called 'gne'", "did you mean 'gen'?"),
    "unknown expert": ("[gen_expert, sum", "[gen_exprt, sum", 13, "no expert is called 'gen_exprt'", "'gen_expert'"),
    "unknown task": ("[gen_dev,", "[gen_dve,", 19, "no task is called 'gen_dve'", "gen_dev"),
    "unknown data key": ("prompt: question", "promt: question", 4, "unknown key 'promt'", "did you mean 'prompt'?"),
    "wrong type": ("step: 0.05", "step: fast", 8, "should be a valid number", "allowed: float"),
    "wrong seed": ("seed: 7", "seed: seven", 2, "should be a valid integer", "allowed: int"),
    "three weights for two experts": (
        "[0.5, 0.5]",
        "[0.5, 0.2, 0.3]",
        15,
        "3 weights for 2 experts",
        "in the order of experts",
    ),
    "weights all zero": ("[0.5, 0.5]", "[0.0, 0.0]", 15, "[0.0, 0.0]", "not all zero"),
    "density 0": ("density: 0.5", "density: 0", 16, "greater than 0", "float > 0 <= 1"),
    "density 1.5": ("density: 0.5", "density: 1.5", 16, "less than or equal to 1", "float > 0 <= 1"),
    "della out of range": (
        "ties: {density: 0.5}",
        "della: {density: 0.9, epsilon: 0.2}",
        16,
        "(0, 1)",
        "mixmerge show della",
    ),
    "empty sweep": ("method: [linear, ties: {density: 0.5}]", "method: []", 16, "sweep.method is empty", "a list"),
    "no method": ("method: [", "methods: [", 16, "unknown key 'methods'", "did you mean 'method'?"),
    "overlap": ("[gen_test,", "[gen_dev,", 20, "'gen_dev' is in choose_on and in report_on", "allow_overlap"),
    "share over 1": ("{gen: 1.0}", "{gen: 2}", 8, "is 2", "a share in (0, 1]"),
    "shares that do not add up": ("{gen: all, sum: all}", "{gen: 0.5, sum: 0.2}", 10, "add up to 0.7", "fraction"),
    "all with shares": (
        "{gen: all, sum: all}",
        "{gen: all, sum: 0.2}",
        10,
        "mixes `all` with shares",
        "every one `all`",
    ),
    "one expert": ("[gen_expert, sum_expert]", "[gen_expert]", 12, "merges 1 expert", "two or more"),
    "key twice": ("seed: 7", "seed: 7\nseed: 8", 3, "'seed' stands twice", ""),
    "no YAML": ("seed: 7", "seed: [7", 3, "no valid YAML", ""),
    "missing model": ("base: {model: ", "base: {model: /nowhere", 1, "/nowhere", ""),
    "missing file": ("gen.jsonl", "none.jsonl", 4, "none.jsonl", ""),
    "no base": ("base:", "bass:", 1, "unknown key 'bass'", "did you mean 'base'?"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error(case: str, toy_recipe: Path, registry: Registry) -> None:
    old, new, line, what, hint = BAD[case]
    text = problems(toy_recipe, registry, old, new)
    assert f"{toy_recipe}:{line}: " in text
    assert what in text
    assert hint in text


def test_every_problem_is_reported_at_once(toy_recipe: Path, registry: Registry) -> None:
    text = (
        toy_recipe.read_text()
        .replace("seed: 7", "seed: x")
        .replace("toy_eval", "toy_evil")
        .replace("0.3]]", "0.3, 9]]")
    )
    toy_recipe.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load(toy_recipe, registry)
    assert [problem.where.rpartition(":")[2] for problem in caught.value.problems] == ["2", "15", "18"]


def test_tasks_are_looked_at_while_the_evaluator_is_misspelt(toy_recipe: Path, registry: Registry) -> None:
    """Every one of them, and what stands in both lists; models too, while a seed or a dataset is wrong."""
    text = (
        toy_recipe.read_text()
        .replace("seed: 7", "seed: x")
        .replace("base: {model: ", "base: {model: /nowhere")
        .replace("toy_eval", "toy_evl")
        .replace("[gen_dev, sum_dev]", "[gen_dve, sum_dve, gen_test]")
    )
    toy_recipe.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load(toy_recipe, registry)
    told = [f"{problem.where.rpartition(':')[2]} {problem.what}" for problem in caught.value.problems]
    assert told[1:] == [
        "2 seed: input should be a valid integer, not 'x'",
        "18 no evaluator is called 'toy_evl'",
        "19 no task is called 'gen_dve'",
        "19 no task is called 'sum_dve'",
        "20 'gen_test' is in choose_on and in report_on",
    ]
    assert "/nowhere" in told[0]


def test_an_expert_is_held_against_the_base_while_something_else_is_wrong(
    toy_recipe: Path, registry: Registry, tiny_model_dir: Callable[..., Path]
) -> None:
    models = f"seed: x\nmodels:\n  other: {{model: {tiny_model_dir(layers=3)}}}"
    text = problems(toy_recipe, registry, "seed: 7", models)
    assert "layers.2" in text
    assert "seed: input should be a valid integer" in text


def test_defaults_fill_in_what_an_entry_leaves_out(toy_recipe: Path, registry: Registry) -> None:
    recipe = load(toy_recipe, registry)
    assert recipe.train["gen_expert"].trainer.parameters["step"] == 0.05
    assert recipe.train["sum_expert"].trainer.parameters["step"] == 0.1
    assert recipe.train["gen_expert"].trainer.parameters["sleep_s"] == 0.0


def test_experts_are_what_a_merge_names(toy_recipe: Path, registry: Registry) -> None:
    recipe = load(toy_recipe, registry)
    assert {name: entry.kind for name, entry in recipe.train.items()} == {
        "gen_expert": "expert",
        "sum_expert": "expert",
        "mixed": "mixture",
    }


def test_scientific_notation_is_a_number(toy_recipe: Path, registry: Registry) -> None:
    """PyYAML alone reads 5e-6 as text, and a learning rate would be wrong or refused."""
    toy_recipe.write_text(toy_recipe.read_text().replace("step: 0.05", "step: 5e-6"))
    assert load(toy_recipe, registry).train["gen_expert"].trainer.parameters["step"] == 5e-6


def _spoil(folder: Path, how: str) -> None:
    from safetensors.torch import load_file, save_file

    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    name = "model.layers.1.mlp.up_proj.weight"
    if how == "no config":
        (folder / "config.json").unlink()
    elif how == "no weights":
        weights.unlink()
    elif how == "pickled":
        weights.rename(folder / "pytorch_model.bin")
    elif how == "missing":
        save_file({key: value for key, value in tensors.items() if key != name}, weights)
    elif how == "extra":
        save_file({**tensors, "model.layers.9.extra": tensors[name].clone()}, weights)
    elif how == "shape":
        save_file({**tensors, name: tensors[name][:8].clone()}, weights)
    elif how == "vocabulary":
        file = folder / "tokenizer.json"
        file.write_text(file.read_text().replace('"function"', '"functions"').replace('"<|end|>"', '"<|fin|>"'))
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("density: 0.5", "density: [0.5, 0.4, 0.3]", "ties: density has 3 values, and there are 2 experts"),
        ("[0.7, 0.3]", "[1, -1]", "linear: the weights 1, -1 sum to zero"),
    ],
)
def test_a_method_that_cannot_do_with_the_weights_is_an_error(
    toy_recipe: Path, registry: Registry, old: str, new: str, message: str
) -> None:
    text = problems(toy_recipe, registry, old, new)
    assert message in text
    assert "hint: see `mixmerge show" in text


def test_a_model_that_is_given_twice_is_an_error(
    toy_recipe: Path, registry: Registry, tiny_model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    one = tiny_model_dir(seed=1)
    (tmp_path / "other").symlink_to(one)
    for again in (one, f"path:{one}/", tmp_path / "other"):
        models = f"models:\n  a: {{model: {one}}}\n  b: {{model: '{again}'}}\ntrain:\n"
        before = toy_recipe.read_text()
        text = problems(toy_recipe, registry, "train:\n", models)
        assert f"{toy_recipe}:8: models.b is the same model as models.a" in text
        toy_recipe.write_text(before)


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("no config", "has no config.json"),
        ("no weights", "no safetensors weights"),
        ("pickled", "pickled"),
        ("missing", "model.layers.1.mlp.up_proj.weight"),
        ("extra", "model.layers.9.extra"),
        ("shape", "model.layers.1.mlp.up_proj.weight"),
        ("vocabulary", "vocabulary"),
        ("truncated", "model.safetensors"),
    ],
)
def test_an_expert_that_does_not_fit_is_an_error_before_work_starts(
    how: str, what: str, toy_recipe: Path, registry: Registry, tiny_model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    spoilt = Path(shutil.copytree(tiny_model_dir(seed=1), tmp_path / "spoilt"))
    _spoil(spoilt, how)
    models = f"models:\n  other: {{model: {spoilt}}}\ntrain:\n"
    text = problems(toy_recipe, registry, "train:\n", models)
    assert f"{toy_recipe}:7: " in text
    assert what in text
    assert "hint: " in text
