"""The gate in whole runs: what `contamination:` does to training, to the store and to the report."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TOY

from mixmerge.errors import RecipeError, SourceError
from mixmerge.gate import notes
from mixmerge.plan import Plan, build
from mixmerge.recipe import load
from mixmerge.registry import Registry
from mixmerge.store import Store
from mixmerge.work import perform

Cli = Callable[..., subprocess.CompletedProcess[str]]
TASKS = ("gen_dev", "sum_dev", "gen_test", "sum_test")
SHARED = "write a function that finds every even number in a list and adds up the squares of all others"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry([str(TOY)])


@pytest.fixture
def recipe(toy_recipe: Path) -> Path:
    """The toy recipe, whose evaluator knows its documents: rows 3 and 4 of `gen` share something with `gen_test`."""
    rows = [json.loads(line) for line in (toy_recipe.parent / "gen.jsonl").read_text().splitlines()]
    rows[3]["task_id"] = "Bench/7"
    rows[4]["question"] = f"Please {SHARED}."
    (toy_recipe.parent / "gen.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    documents = {task: [{"id": f"Bench/{i}", "prompt": f"{task} document {i}"} for i in range(3)] for task in TASKS}
    documents["gen_test"] += [{"id": "Bench/7", "prompt": "seven"}, {"id": "Bench/8", "prompt": SHARED}]
    (toy_recipe.parent / "documents.json").write_text(json.dumps(documents))
    text = toy_recipe.read_text()
    open_eval = f"evaluator: {{toy_open_eval: {{documents: {toy_recipe.parent / 'documents.json'}}}}}"
    toy_recipe.write_text(text.replace("evaluator: toy_eval", open_eval))
    return toy_recipe


def say(recipe: Path, contamination: str) -> Path:
    text = recipe.read_text()
    recipe.write_text(text.replace("diagnose:", f"contamination: {contamination}\ndiagnose:"))
    return recipe


def run(mixmerge: Cli, recipe: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return mixmerge("-p", TOY, "recipe", recipe, **more)


def outcomes(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Step name to outcome."""
    found = [json.loads(file.read_text()) for file in (folder / "runs/store/steps").glob("*/record.json")]
    return {one["step"]["name"]: one["outcome"] for one in found if one["step"]["kind"] == kind}


def ids(plan: Plan, *kinds: str) -> set[str]:
    return {step.id for kind in kinds for step in plan.of_kind(kind)}


# -- the recipe and the plan ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "what", "hint"),
    [
        ("fial", "contamination is the text 'fial', not fail, drop or warn", "did you mean 'fail'?"),
        ("true", "contamination is true, not fail, drop or warn", "write contamination: drop"),
        ("{drop: {rule: [id]}}", "unknown key 'rule' in contamination.drop", "did you mean 'rules'?"),
        ("{drop: {rules: [ids]}}", "no rule is called 'ids'", "did you mean 'id'?"),
        ("{drop: {rules: []}}", "contamination names no rule", "allowed: id, solution, 13-gram, 10-gram"),
    ],
)
def test_a_wrong_value_is_one_clear_error(recipe: Path, registry: Registry, value: str, what: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(say(recipe, value), registry)
    assert f"{recipe}:21: {what}" in str(caught.value)
    assert hint in str(caught.value)


def test_to_fail_or_drop_the_evaluator_must_know_its_documents(toy_recipe: Path, registry: Registry) -> None:
    with pytest.raises(RecipeError, match=r":21: evaluator 'toy_eval' cannot say what its tasks hold") as caught:
        load(say(toy_recipe, "fail"), registry)
    assert "contamination: warn" in str(caught.value)


def test_one_check_for_each_dataset_that_is_trained_on(recipe: Path, registry: Registry) -> None:
    plan = build(load(recipe, registry))
    assert [step.name for step in plan.of_kind("contamination")] == [
        "compare gen with the evaluation sets",
        "compare sum with the evaluation sets",
    ]
    step = plan.of_kind("contamination")[0]
    assert step.content["tasks"] == list(TASKS)
    assert set(step.parameters) == {"documents"}  # how many samples are drawn does not change what the tasks hold


def test_only_dropping_makes_another_training_set(recipe: Path, registry: Registry) -> None:
    warn = build(load(recipe, registry))
    text = recipe.read_text()
    fail = build(load(say(recipe, "fail"), registry))
    recipe.write_text(text)
    drop = build(load(say(recipe, "drop"), registry))
    assert ids(warn, "data", "mixture", "train") == ids(fail, "data", "mixture", "train")
    assert not ids(warn, "mixture", "train") & ids(drop, "mixture", "train")
    assert (warn.gates, drop.gates, set(fail.gates)) == ((), (), ids(fail, "contamination"))


def test_a_check_depends_on_data_and_tasks(recipe: Path, registry: Registry) -> None:
    before = ids(build(load(recipe, registry)), "contamination")
    file = recipe.parent / "gen.jsonl"
    file.write_text(file.read_text().replace("reply 9", "another reply"))
    assert len(before & ids(build(load(recipe, registry)), "contamination")) == 1
    recipe.write_text(recipe.read_text().replace(", sum_test]", "]"))
    assert not before & ids(build(load(recipe, registry)), "contamination")


# -- runs -------------------------------------------------------------------------------------------------------


def test_warn_trains_and_says_it(recipe: Path, mixmerge: Cli, tmp_path: Path) -> None:
    done = run(mixmerge, recipe)
    assert done.returncode == 0, done.stderr
    assert "2 of 20 rows share something with an evaluation set" in done.stderr
    found = outcomes(tmp_path, "contamination")["compare gen with the evaluation sets"]
    expected = {"id": [1, 1], "solution": [0, 0], "13-gram": [1, 1], "10-gram": [1, 1]}
    assert found["sets"]["gen_test"] == {"documents": 5, "found": expected}
    assert found["examples"][0] == "gen_test: row Bench/7 and Bench/7, by id"
    report = (tmp_path / "runs/toy/report/report.md").read_text()
    assert "1 of 5 documents by id (1 of 20 rows)" in report
    assert "These rows were trained on." in report
    assert "| gen<br>20 rows | gen\\_test<br>5 documents | 1 · 1 | – | 1 · 1 | 1 · 1 |" in report
    with open(tmp_path / "runs/toy/report/contamination.csv") as file:
        lines = [one for one in csv.DictReader(file) if one["rows"] != "0"]
    assert [(one["data"], one["task"], one["rule"]) for one in lines] == [
        ("gen", "gen_test", rule) for rule in ("id", "13-gram", "10-gram")
    ]
    assert "nothing to do" in run(mixmerge, recipe).stderr
    shown = mixmerge("show", "compare gen with the evaluation sets").stdout
    assert "in all      2 of 20 rows, by id, solution, 13-gram: they are reported\n" in shown
    hits = Path(shown.split("every hit   ")[1].splitlines()[0])
    assert {json.loads(line)["id"] for line in hits.read_text().splitlines()} == {"Bench/7", "4"}


def test_fail_stops_before_anything_is_trained_or_scored(recipe: Path, mixmerge: Cli, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    done = run(mixmerge, say(recipe, "fail"), env={"TOY_COUNTER": str(counter)})
    assert done.returncode == 1
    assert not counter.exists()
    assert not outcomes(tmp_path, "evaluate")
    assert "2 of 20 training rows share something with an evaluation set" in done.stderr
    assert "gen_test: 1 of 5 documents by id (1 of 20 rows)" in done.stderr
    assert done.stderr.count("such as gen_test: row Bench/7 and Bench/7, by id") == 1
    assert "hint: write contamination: drop" in done.stderr
    assert "Traceback" not in done.stderr
    file = Path(done.stderr.split("every row: ")[1].splitlines()[0])
    assert {json.loads(line)["id"] for line in file.read_text().splitlines()} == {"Bench/7", "4"}


def test_fail_passes_what_its_rules_do_not_find(recipe: Path, registry: Registry, tmp_path: Path) -> None:
    perform_data(say(recipe, "{fail: {rules: [solution]}}"), registry, Store(tmp_path / "runs/store"))
    assert outcomes(tmp_path, "mixture")["mix data of gen_expert"]["rows"] == 20


def perform_data(recipe: Path, registry: Registry, store: Store) -> Plan:
    """The steps of a recipe up to what would be trained on, in this process."""
    plan = build(load(recipe, registry))
    for step in plan.steps.values():
        store.put_spec(step)
        if step.kind in ("data", "contamination", "mixture"):
            perform(step, store, registry)
    return plan


def test_drop_leaves_the_rows_out(recipe: Path, registry: Registry, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs/store")
    plan = perform_data(say(recipe, "drop"), registry, store)
    mixtures = outcomes(tmp_path, "mixture")
    assert mixtures["mix data of gen_expert"]["rows"] == 18
    assert mixtures["mix data of mixed"]["rows"] == 38
    assert sorted(mixtures["mix data of mixed"]["dropped"].values()) == [0, 2]
    trained = "".join(file.read_text() for file in (tmp_path / "runs/store/steps").glob("*/out/mixture.jsonl"))
    assert "gen question 2" in trained
    assert "gen question 3" not in trained
    assert SHARED not in trained
    (note,) = notes(plan.manifest, store)
    assert note.startswith(
        "gen shares something with what models are evaluated on; 2 rows were left out: gen_test: 1 of"
    )


def test_rules_say_what_is_dropped(recipe: Path, registry: Registry, tmp_path: Path) -> None:
    perform_data(say(recipe, "{drop: {rules: [id]}}"), registry, Store(tmp_path / "runs/store"))
    assert outcomes(tmp_path, "mixture")["mix data of gen_expert"]["rows"] == 19


def test_nothing_left_to_train_on_is_an_error(recipe: Path, registry: Registry, tmp_path: Path) -> None:
    lines = [json.dumps({"question": f"Now {SHARED}, {i} times", "reply": "yes"}) for i in range(5)]
    (tmp_path / "gen.jsonl").write_text("\n".join(lines))
    with pytest.raises(SourceError, match="none is left to train on"):
        perform_data(say(recipe, "drop"), registry, Store(tmp_path / "runs/store"))


def test_a_set_that_cannot_be_had_is_said(recipe: Path, registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "documents.json"
    file.write_text(json.dumps({task: of for task, of in json.loads(file.read_text()).items() if task != "sum_test"}))
    text, store = recipe.read_text(), Store(tmp_path / "runs/store")
    for policy in ("fail", "drop"):
        with pytest.raises(SourceError, match="sum_test: not written down") as caught:
            perform_data(say(recipe, policy), registry, store)
        assert "make them available" in str(caught.value)
        recipe.write_text(text)
    plan = perform_data(recipe, registry, store)
    assert "gen was not compared with sum_test: not written down" in notes(plan.manifest, store)


def test_an_evaluator_that_cannot_say_is_said(toy_recipe: Path, registry: Registry, tmp_path: Path) -> None:
    plan = build(load(toy_recipe, registry))
    assert not plan.of_kind("contamination")
    (note,) = notes(plan.manifest, Store(tmp_path))
    assert "evaluator toy_eval cannot say what its tasks hold" in note


def test_rows_take_their_id_from_their_benchmark(data_dir: Path) -> None:
    from mixmerge.sources import DataSpec, load_rows

    some = {"task_id": [601, 602]}
    spec = DataSpec(str(data_dir / "mbpp/mbpp.jsonl"), prompt="text", answer="code", where=some)
    assert sorted(one["id"] for one in load_rows(spec, 0).rows) == ["mbpp/601", "mbpp/602"]
