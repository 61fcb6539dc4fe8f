from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from conftest import TOY, make_adapter

from mixmerge import RecipeError
from mixmerge.plan import Decision, Plan, build
from mixmerge.recipe import load
from mixmerge.registry import Registry
from mixmerge.run import _folder, kept


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry([str(TOY)])


@pytest.fixture
def plan(toy_recipe: Path, registry: Registry) -> Plan:
    return build(load(toy_recipe, registry))


def ids(plan: Plan, kind: str) -> set[str]:
    return {step.id for step in plan.of_kind(kind)}


def changed(toy_recipe: Path, registry: Registry, old: str, new: str) -> Plan:
    text = toy_recipe.read_text()
    assert old in text
    toy_recipe.write_text(text.replace(old, new))
    return build(load(toy_recipe, registry))


def test_every_point_of_the_sweep_is_a_merge(plan: Plan) -> None:
    merges = [model.name for model in plan.models if model.kind == "merge"]
    assert merges == [
        "linear 0.3/0.7", "ties 0.3/0.7", "linear 0.5/0.5", "ties 0.5/0.5", "linear 0.7/0.3", "ties 0.7/0.3",
    ]  # fmt: skip
    assert len(plan.of_kind("evaluate")) == 4 * 2 + 6


def test_steps_follow_their_inputs(plan: Plan) -> None:
    seen: set[str] = set()
    for step in plan.steps.values():
        assert {needed for ids in step.inputs.values() for needed in ids} <= seen
        seen.add(step.id)


def test_what_the_scores_decide_comes_later(plan: Plan, toy_recipe: Path, registry: Registry) -> None:
    assert plan.later
    assert not plan.of_kind("report")
    decided = {"merged": Decision((), "linear 0.5/0.5", {"linear": "linear 0.5/0.5", "ties": "ties 0.3/0.7"})}
    # A winner without trials means that the strategy is not through: nothing follows yet.
    assert build(plan.recipe, decided).later


def test_equal_recipes_have_equal_ids_and_names_do_not_matter(plan: Plan, toy_recipe: Path, registry: Registry) -> None:
    renamed = changed(toy_recipe, registry, "gen_expert", "coder")
    for kind in ("source", "data", "mixture", "train", "merge", "evaluate"):
        assert ids(renamed, kind) == ids(plan, kind)


def test_a_data_file_that_is_moved_is_the_same_data(
    plan: Plan, toy_recipe: Path, registry: Registry, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(tmp_path / "gen.jsonl", elsewhere)
    moved = changed(toy_recipe, registry, str(tmp_path / "gen.jsonl"), str(elsewhere / "gen.jsonl"))
    assert ids(moved, "mixture") == ids(plan, "mixture")
    assert str(elsewhere / "gen.jsonl") in [step.content["source"] for step in moved.of_kind("data")]
    (elsewhere / "gen.jsonl").write_text((tmp_path / "gen.jsonl").read_text().replace("gen question 3", "other"))
    edited = build(load(toy_recipe, registry))
    assert len(ids(edited, "data") & ids(plan, "data")) == 1


def test_an_adapter_counts_by_its_bytes_alone(plan: Plan, toy_recipe: Path, registry: Registry, tmp_path: Path) -> None:
    base = yaml.safe_load(toy_recipe.read_text())["base"]["model"]
    one = make_adapter(tmp_path / "one", base, 1)
    named = changed(toy_recipe, registry, "train:\n", f"models:\n  lora: {{model: {one}}}\ntrain:\n")
    shutil.copytree(one, tmp_path / "two")  # at another place, and of another time
    moved = changed(toy_recipe, registry, str(one), str(tmp_path / "two"))
    assert ids(moved, "source") == ids(named, "source")
    assert ids(moved, "evaluate") == ids(named, "evaluate")
    make_adapter(tmp_path / "two", base, 2)
    assert ids(build(load(toy_recipe, registry)), "source") != ids(named, "source")


def test_a_model_counts_by_what_it_holds(plan: Plan, toy_recipe: Path, registry: Registry, tmp_path: Path) -> None:
    base = yaml.safe_load(toy_recipe.read_text())["base"]["model"]
    shutil.copytree(base, tmp_path / "copy")
    moved = changed(toy_recipe, registry, base, str(tmp_path / "copy"))
    for kind in ("source", "train", "merge", "evaluate"):
        assert ids(moved, kind) == ids(plan, kind)
    (tmp_path / "copy" / "README.md").write_text("what it is good for")
    assert ids(build(load(toy_recipe, registry)), "source") == ids(plan, "source")
    config = tmp_path / "copy" / "tokenizer_config.json"
    config.write_text(config.read_text().replace("{", '{"chat_template": "another",', 1))
    assert not ids(build(load(toy_recipe, registry)), "train") & ids(plan, "train")


@pytest.mark.parametrize(
    ("old", "new", "kept", "new_kinds"),
    [
        ("step: 0.1", "step: 0.2", {"source", "data", "mixture"}, {"train", "merge", "evaluate"}),
        ("seed: 7", "seed: 8", {"source"}, {"data", "mixture", "train", "merge", "evaluate"}),
        ("density: 0.5", "density: 0.4", {"source", "data", "mixture", "train"}, {"merge", "evaluate"}),
        ("evaluator: toy_eval", "evaluator: {toy_eval: {samples: 9}}", {"train", "merge"}, {"evaluate"}),
    ],
)
def test_what_changes_the_outcome_changes_the_id(
    plan: Plan, toy_recipe: Path, registry: Registry, old: str, new: str, kept: set[str], new_kinds: set[str]
) -> None:
    other = changed(toy_recipe, registry, old, new)
    assert all(ids(other, kind) == ids(plan, kind) for kind in kept)
    assert all(ids(other, kind) != ids(plan, kind) for kind in new_kinds)


def test_what_only_changes_speed_is_no_part_of_an_id(plan: Plan, toy_recipe: Path, registry: Registry) -> None:
    slower = changed(toy_recipe, registry, "{step: 0.1}", "{step: 0.1, sleep_s: 3.0}")
    assert ids(slower, "train") == ids(plan, "train")
    assert {step.parameters["sleep_s"] for step in slower.of_kind("train")} == {0.0, 3.0}


def test_changed_data_changes_the_id(plan: Plan, toy_recipe: Path, registry: Registry) -> None:
    file = toy_recipe.parent / "gen.jsonl"
    file.write_text(file.read_text().replace("reply 3", "another reply"))
    other = build(load(toy_recipe, registry))
    assert len(ids(other, "data") & ids(plan, "data")) == 1
    assert len(ids(other, "train") & ids(plan, "train")) == 1


def test_a_kept_model_has_a_folder_that_needs_no_quotes() -> None:
    assert _folder("ties 0.5/0.5") == "ties_0.5-0.5"
    assert _folder("dare_linear(density=[0.5, 0.2], rescale=none) 1/-1") == (
        "dare_linear_density_0.5_0.2_rescale_none_1--1"
    )


def test_a_copy_of_a_model_is_no_other_model(toy_recipe: Path, registry: Registry, tmp_path: Path) -> None:
    base = yaml.safe_load(toy_recipe.read_text())["base"]["model"]
    for name in ("one", "two"):
        shutil.copytree(base, tmp_path / name)
    models = f"models:\n  a: {{model: {tmp_path / 'one'}}}\n  b: {{model: {tmp_path / 'two'}}}\ntrain:\n"
    with pytest.raises(RecipeError, match=r"models\.b holds the same weights as models\.a"):
        changed(toy_recipe, registry, "train:\n", models)


def test_weights_that_differ_little_have_other_names(toy_recipe: Path, registry: Registry) -> None:
    close = changed(toy_recipe, registry, "[0.7, 0.3]", "[0.33333333, 0.5], [0.333333334, 0.5]")
    names = {model.name for model in close.models if model.kind == "merge"}
    assert {"linear 0.33333333/0.5", "linear 0.333333334/0.5"} < names


@pytest.mark.parametrize(("keep", "count"), [("none", 0), ("winner", 1), ("best_of_each_method", 2), ("all", 6)])
def test_what_will_be_kept_is_counted_before_it_is_known(
    toy_recipe: Path, registry: Registry, keep: str, count: int
) -> None:
    assert kept(changed(toy_recipe, registry, "eval:\n", f"    keep: {keep}\neval:\n")) == count


def test_points_with_other_parameters_of_one_method_have_other_names(toy_recipe: Path, registry: Registry) -> None:
    other = changed(
        toy_recipe, registry, "[linear, ties: {density: 0.5}]", "[ties: {density: 0.5}, ties: {density: 0.2}]"
    )
    names = [model.name for model in other.models if model.kind == "merge"]
    assert "ties(density=0.5) 0.3/0.7" in names
    assert len(set(names)) == 6


def test_a_merger_that_is_told_a_method_goes_by_it(toy_recipe: Path, registry: Registry) -> None:
    """In every label, alone or beside others of its name; options stand as a reader would write them."""
    slerp = "mergekit: {{method: slerp, with_base: true, options: {{t: {}}}}}"
    methods = f"[mergekit: {{method: nuslerp}}, {slerp.format(0.5)}, {slerp.format(0.7)}]"
    other = changed(toy_recipe, registry, "[linear, ties: {density: 0.5}]", methods)
    merges = [model for model in other.models if model.kind == "merge"][:3]
    assert [model.name for model in merges] == [
        "mergekit nuslerp 0.3/0.7",
        "mergekit slerp(t=0.5) 0.3/0.7",
        "mergekit slerp(t=0.7) 0.3/0.7",
    ]
    assert [model.method for model in merges] == ["mergekit nuslerp", "mergekit slerp", "mergekit slerp"]
