from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TESTS, TOY

Cli = Callable[..., subprocess.CompletedProcess[str]]
RECIPES = sorted((TESTS.parent / "recipes").glob("*.yaml"))
PAPER = [path for path in RECIPES if path.stem.startswith(("deepseek", "qwen"))]


def test_help_is_quick() -> None:
    """Under 0.3 s, as the design asks; the median of five, since the machine may be busy."""

    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "mixmerge", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    assert statistics.median(once() for _ in range(5)) < 0.6  # twice the goal: this is no benchmark


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_checks_and_plans_offline(path: Path, mixmerge: Cli, request: pytest.FixtureRequest) -> None:
    if path.stem == "paper_tables" and not (request.getfixturevalue("data_dir").parent / "paper").is_dir():
        pytest.skip("the paper's tables are not here: paper/results.csv beside the test data")
    done = mixmerge("check", path)
    assert done.returncode == 0, done.stderr
    planned = mixmerge("plan", path, "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["steps"]


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_papers_recipes_have_its_36_merges(path: Path, mixmerge: Cli) -> None:
    assert "36 merges" in mixmerge("check", path).stdout


def test_plan_says_what_is_done_and_what_it_needs(toy_recipe: Path, mixmerge: Cli) -> None:
    before = mixmerge("-p", TOY, "plan", toy_recipe)
    assert before.stdout.count("  to do  ") == 24
    assert "disk needed" in before.stdout
    assert mixmerge("-p", TOY, "recipe", toy_recipe).returncode == 0
    after = mixmerge("-p", TOY, "plan", toy_recipe)
    assert "to do  " not in after.stdout.replace("steps to do", "")
    assert "0 of " in after.stdout


def test_show_explains_a_component_and_a_step(toy_recipe: Path, mixmerge: Cli) -> None:
    shown = mixmerge("show", "ties").stdout
    assert "arXiv:2306.01708" in shown
    assert "density: float > 0 <= 1 | list[float > 0 <= 1]  (required)" in shown
    assert mixmerge("-p", TOY, "recipe", toy_recipe).returncode == 0
    plan = json.loads(mixmerge("-p", TOY, "plan", toy_recipe, "--json").stdout)
    step = next(step for step in plan["steps"] if step["name"] == "train mixed")
    record = json.loads(mixmerge("show", step["id"], "--json").stdout)
    assert record["outcome"]["figures"]["steps"] == 1.0
    assert Path(record["log"]).is_file()
    assert (Path(record["payload"]) / "model.safetensors").is_file()
    for name in (step["id"], step["id"][:6], "mixed", "train mixed"):
        told = mixmerge("show", name).stdout
        assert told.startswith(f"train mixed (train {step['id']})\n  state       done, 2")
        assert f"  directory   {record['payload']}\n" in told
        assert f"by          toy_train, version {record['step']['version']}\n" in told
        assert "made from   fetch base (" in told


def test_show_finds_models_data_tasks_and_what_was_never_written(
    toy_recipe: Path, mixmerge: Cli, tmp_path: Path
) -> None:
    assert mixmerge("-p", TOY, "recipe", toy_recipe).returncode == 0
    assert "outcome     rows: 20" in mixmerge("show", "gen").stdout
    assert "derived from its experts" in mixmerge("show", "linear 0.3/0.7").stdout
    (kept,) = [path.resolve() for path in (tmp_path / "runs" / "toy" / "models").iterdir() if "0." in path.name]
    written = kept.parent.name
    name = json.loads(mixmerge("show", written, "--json").stdout)["step"]["name"].removeprefix("write ")
    assert f"directory   {kept}" in mixmerge("show", name).stdout
    assert mixmerge("show", "mm_mbpp_plus").stdout.startswith("mm_mbpp_plus (task of lm_eval)\n\nMBPP+")
    for source in ("data", "mbpp", "packages"):
        assert "{code|without_docstring}" in mixmerge("show", source).stdout
    wrong = mixmerge("show", "gen_exprt")
    assert (wrong.returncode, "did you mean 'gen_expert'?" in wrong.stderr) == (1, True)


def test_show_suggests(mixmerge: Cli) -> None:
    done = mixmerge("show", "tise")
    assert (done.returncode, "did you mean 'ties'?" in done.stderr) == (1, True)


def test_plugins_lists_all_kinds(mixmerge: Cli) -> None:
    found = json.loads(mixmerge("plugins", "--json").stdout)
    assert {one["kind"] for one in found} == {
        "trainer", "merger", "evaluator", "diagnostic", "strategy", "advisor", "executor", "reporter",
    }  # fmt: skip
    mergers = {one["name"] for one in found if one["kind"] == "merger"}
    assert {"linear", "ties", "dare_linear", "dare_ties", "della", "della_linear", "mergekit"} <= mergers
    assert all(one["summary"] for one in found)


def test_tasks_lists_what_comes_with_mixmerge(mixmerge: Cli) -> None:
    names = {one["name"] for one in json.loads(mixmerge("tasks", "--json").stdout)}
    assert {"mm_list_pipelines", "mm_stdlib_summary"} <= names


def test_doctor_tells_what_was_tried(mixmerge: Cli) -> None:
    found = json.loads(mixmerge("doctor", "--json").stdout)
    assert {"machine", "memory", "accelerator", "isolation", "extras", "versions"} <= set(found)
    assert len(found["sandbox"]) > 20
    if found["isolation"][0] >= "level 2":
        assert [one["what"] for one in found["sandbox"] if not one["ok"]] == []


def test_a_single_file_plugin_is_a_whole_merge_method(toy_recipe: Path, mixmerge: Cli) -> None:
    """The twelve lines of the design and the README, through a whole run."""
    toy_recipe.write_text(toy_recipe.read_text().replace("method: [linear,", "method: [sign_mean, linear,"))
    done = mixmerge("-p", TESTS / "data" / "sign_mean.py", "-p", TOY, "recipe", toy_recipe)
    assert done.returncode == 0, done.stderr
    rows = json.loads(mixmerge("-p", TESTS / "data" / "sign_mean.py", "-p", TOY, "report", toy_recipe, "--json").stdout)
    assert {row["task"] for row in rows if row["model"].startswith("sign_mean")} >= {"gen_dev", "sum_dev", "gen_test"}


def test_an_installed_package_is_found_through_its_entry_point(tmp_path: Path, mixmerge: Cli) -> None:
    import shutil

    source = shutil.copytree(TESTS / "example_plugin", tmp_path / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(source)], check=True, capture_output=True)
    assert "median_delta" not in mixmerge("plugins").stdout
    assert "median_delta" in mixmerge("plugins", env={"PYTHONPATH": str(tmp_path / "site")}).stdout


def test_errors_have_no_traceback(tmp_path: Path, mixmerge: Cli) -> None:
    for arguments in (["check", "nowhere.yaml"], ["-p", "nothing.py", "plugins"], ["report", "nowhere.yaml"]):
        done = mixmerge(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr


def test_an_edited_plugin_is_run_again_and_nothing_else(toy_recipe: Path, mixmerge: Cli, tmp_path: Path) -> None:
    """Even where `version` stays as it is."""
    own = tmp_path / "sign_mean.py"
    own.write_text((TESTS / "data" / "sign_mean.py").read_text())
    toy_recipe.write_text(toy_recipe.read_text().replace("method: [linear,", "method: [sign_mean, linear,"))
    assert mixmerge("-p", own, "-p", TOY, "recipe", toy_recipe).returncode == 0
    own.write_text(own.read_text().replace("t.base + scale * kept", "t.base - 9 * scale * kept"))
    plan = json.loads(mixmerge("-p", own, "-p", TOY, "plan", toy_recipe, "--json").stdout)
    begun = {step["name"] for step in plan["steps"] if step["state"] != "done" and step["kind"] == "evaluate"}
    assert begun == {f"score sign_mean {weights} on choose_on" for weights in ("0.3/0.7", "0.5/0.5", "0.7/0.3")}
    assert not [step for step in plan["steps"] if step["state"] != "done" and step["kind"] == "train"]
    done = mixmerge("-p", own, "-p", TOY, "recipe", toy_recipe)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (["chek", "r.yaml"], "there is no verb 'chek'", "did you mean 'check'?"),
        (["recipe", "r.yaml", "--excutor", "local"], "unknown argument '--excutor'", "did you mean '--executor'?"),
        (["score", "t", "s", "--require-isolation", "0"], "choose from", ""),
    ],
)
def test_wrong_usage_suggests(arguments: list[str], what: str, hint: str, mixmerge: Cli) -> None:
    done = mixmerge(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert what in done.stderr
    assert hint in done.stderr
    assert "worker," not in done.stderr


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "recipes/quickstart.yaml"])
def test_a_recipe_of_ours_is_found_from_anywhere(name: str, mixmerge: Cli) -> None:
    done = mixmerge("check", name)
    assert done.returncode == 0, done.stderr
    wrong = mixmerge("check", "quickstrat")
    assert (wrong.returncode, "such as quickstart" in wrong.stderr) == (1, True)


def test_a_file_of_ones_own_comes_before_a_recipe_of_ours(toy_recipe: Path, mixmerge: Cli) -> None:
    toy_recipe.rename(toy_recipe.with_name("quickstart.yaml"))
    assert "3 trainings, 6 merges" in mixmerge("-p", TOY, "check", "quickstart.yaml").stdout


def test_report_gives_the_answer_also_after_an_edit_that_changes_nothing(toy_recipe: Path, mixmerge: Cli) -> None:
    assert mixmerge("-p", TOY, "recipe", toy_recipe).returncode == 0
    told = mixmerge("-p", TOY, "report", toy_recipe).stdout.splitlines()[-2]
    assert told.startswith(("undecided: ", "mix: ", "merge: "))
    toy_recipe.write_text(f"# a comment\n{toy_recipe.read_text()}")
    assert mixmerge("-p", TOY, "report", toy_recipe).stdout.splitlines()[-1] == told


def test_a_recipe_and_a_mergekit_yaml_are_told_apart(toy_recipe: Path, mixmerge: Cli, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("merge_method: linear\nmodels: []\n")
    for arguments, told in (
        (("check", "c.yml"), "c.yml is a mergekit YAML and no recipe\n  hint: `mixmerge plan c.yml` checks it"),
        (("merge", toy_recipe, "out"), "is a recipe and no mergekit YAML\n  hint: `mixmerge recipe"),
    ):
        done = mixmerge(*arguments)
        assert done.returncode == 1
        assert told in done.stderr
