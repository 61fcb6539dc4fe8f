"""Whole runs through the command line, with real workers: resume, failure, kill, keep, payloads that were dropped."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import TOY, make_adapter, write_toy_recipe

from mixmerge.sources import resolve_model

Cli = Callable[..., subprocess.CompletedProcess[str]]


def run(mixmerge: Cli, recipe: Path, *extra: object, **more: object) -> subprocess.CompletedProcess[str]:
    return mixmerge("-p", TOY, "recipe", recipe, *extra, **more)


def rows(mixmerge: Cli, recipe: Path, *extra: object) -> list[dict[str, object]]:
    done = mixmerge("-p", TOY, "report", recipe, "--json", *extra)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def edit(recipe: Path, old: str, new: str) -> None:
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Callable[..., Path]) -> Path:
    """The folder of one finished toy run, for tests that only look."""
    folder = tmp_path_factory.mktemp("finished")
    write_toy_recipe(folder, tiny_model_dir(seed=0))
    command = [sys.executable, "-m", "mixmerge", "-p", str(TOY), "recipe", "toy.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_ends_with_the_path_of_its_report(finished: Path, mixmerge: Cli) -> None:
    done = run(mixmerge, finished / "toy.yaml", "--out", finished / "runs")
    assert done.returncode == 0, done.stderr
    report = Path(done.stdout.splitlines()[-1])
    assert (report / "report.md").is_file()
    assert "nothing to do" in done.stderr


def test_results_hold_every_model_on_every_task(finished: Path, mixmerge: Cli) -> None:
    found = rows(mixmerge, finished / "toy.yaml", "--out", finished / "runs")
    assert {"model", "kind", "task", "metric", "value", "stderr", "n"} <= set(found[0])
    tasks_of: dict[str, set[str]] = {}
    for row in found:
        tasks_of.setdefault(str(row["model"]), set()).add(str(row["task"]))
    everything = {"gen_dev", "sum_dev", "gen_test", "sum_test"}
    assert all(tasks_of[name] == everything for name in ("base", "gen_expert", "sum_expert", "mixed"))
    assert len(tasks_of) == 4 + 6
    with_test = [
        name
        for name, tasks in tasks_of.items()
        if name not in ("base", "gen_expert", "sum_expert", "mixed") and "gen_test" in tasks
    ]
    assert sorted(name.split()[0] for name in with_test) == ["linear", "ties"]


def test_the_winner_is_kept_whole(finished: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    names = {path.name for path in (finished / "runs" / "toy" / "models").iterdir()}
    trained = {"gen_expert", "sum_expert", "mixed"}
    assert trained < names
    kept = finished / "runs" / "toy" / "models" / (names - trained).pop()
    assert (kept / "README.md").read_text().startswith("---\n")
    AutoModelForCausalLM.from_pretrained(kept)
    assert AutoTokenizer.from_pretrained(kept)("write a function")["input_ids"]


def test_a_second_run_trains_nothing_and_a_changed_recipe_only_what_changed(
    toy_recipe: Path, mixmerge: Cli, tmp_path: Path
) -> None:
    counter = tmp_path / "counter"
    env = {"TOY_COUNTER": str(counter)}
    assert run(mixmerge, toy_recipe, env=env).returncode == 0
    assert counter.read_text().count("train") == 3
    assert run(mixmerge, toy_recipe, env=env).returncode == 0
    assert counter.read_text().count("train") == 3
    edit(toy_recipe, "step: 0.1", "step: 0.2")
    assert run(mixmerge, toy_recipe, env=env).returncode == 0
    assert counter.read_text().count("train") == 4


def test_a_payload_that_was_dropped_is_made_again_only_when_it_is_needed(
    toy_recipe: Path, mixmerge: Cli, tmp_path: Path
) -> None:
    assert run(mixmerge, toy_recipe).returncode == 0
    before = rows(mixmerge, toy_recipe)
    for weights in (tmp_path / "runs" / "store" / "steps").glob("*/out/model.safetensors"):
        weights.unlink()
    edit(toy_recipe, "[0.7, 0.3]", "[0.8, 0.2]")
    done = run(mixmerge, toy_recipe)
    assert done.returncode == 0, done.stderr
    after = rows(mixmerge, toy_recipe)
    assert [row for row in after if row["model"] == "linear 0.5/0.5"] == [
        row for row in before if row["model"] == "linear 0.5/0.5"
    ]


@pytest.mark.parametrize("again", [False, True])
def test_a_model_that_moves_is_read_where_it_is_now(
    toy_recipe: Path, mixmerge: Cli, tmp_path: Path, again: bool
) -> None:
    """What is done stays done, and what is new finds the model, whatever became of the first place. Only the model
    is looked at, and the report, which says where it lies, made again."""
    base = Path(yaml.safe_load(toy_recipe.read_text())["base"]["model"])
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(base, first)
    edit(toy_recipe, str(base), str(first))
    counter = tmp_path / "counter"
    assert run(mixmerge, toy_recipe, env={"TOY_COUNTER": str(counter)}).returncode == 0
    shutil.copytree(first, second)
    for file in first.glob("*"):
        file.write_text("gone bad")
    edit(toy_recipe, str(first), str(second))
    if again:
        edit(toy_recipe, "[0.7, 0.3]", "[0.8, 0.2]")
    done = run(mixmerge, toy_recipe, env={"TOY_COUNTER": str(counter)})
    assert done.returncode == 0, done.stderr
    assert counter.read_text().count("train") == 3
    kinds = {line.split()[2] for line in done.stderr.splitlines() if " start " in line}
    assert kinds == {"fetch", "advise:", "report:", *(["score"] if again else [])}
    shown = mixmerge("show", "base", env={"TOY_COUNTER": str(counter)}).stdout
    assert f"directory   {second}" in shown


def test_a_failed_step_keeps_its_log_and_the_rest_goes_on(toy_recipe: Path, mixmerge: Cli) -> None:
    edit(toy_recipe, "trainer: {toy_train: {step: 0.1}}", "trainer: {toy_train: {step: 0.1, fail: true}}")
    done = run(mixmerge, toy_recipe)
    assert done.returncode == 1
    assert "train sum_expert failed: loss is nan at step 3" in done.stderr
    assert "Traceback" not in done.stderr
    log = Path(done.stderr.split("log: ")[1].splitlines()[0])
    assert "loss is nan at step 3" in log.read_text()
    assert {"gen_expert", "mixed"} <= {str(row["model"]) for row in rows(mixmerge, toy_recipe)}
    edit(toy_recipe, ", fail: true", "")
    assert run(mixmerge, toy_recipe).returncode == 0


def test_a_recipe_may_start_from_experts_that_exist(
    toy_recipe: Path, mixmerge: Cli, tiny_model_dir: Callable[..., Path]
) -> None:
    text = toy_recipe.read_text()
    start, end = text.index("data:"), text.index("merge:")
    paths = {"gen_expert": tiny_model_dir(seed=1), "sum_expert": tiny_model_dir(seed=2)}
    models = "models:\n" + "".join(f"  {name}: {{model: {path}}}\n" for name, path in paths.items())
    toy_recipe.write_text(text[:start] + models + text[end:])
    done = run(mixmerge, toy_recipe)
    assert done.returncode == 0, done.stderr
    assert {row["kind"] for row in rows(mixmerge, toy_recipe)} == {"base", "expert", "merge"}


def test_an_adapter_is_an_expert(toy_recipe: Path, mixmerge: Cli, tmp_path: Path) -> None:
    """Scored, merged and diagnosed as the model that PEFT makes of it."""
    edit(toy_recipe, "evaluator: toy_eval", "evaluator: {toy_eval: {limit: 25}}")
    text, base = toy_recipe.read_text(), yaml.safe_load(toy_recipe.read_text())["base"]["model"]
    start, end = text.index("data:"), text.index("merge:")
    paths = {name: make_adapter(tmp_path / name, base, seed) for seed, name in enumerate(("gen_expert", "sum_expert"))}
    found = {}
    for out, below in (("adapters", ""), ("whole", "merged")):
        for path in paths.values():
            for file in Path(base).glob("token*"):
                shutil.copy(file, path / "merged")
        models = "models:\n" + "".join(f"  {name}: {{model: {path / below}}}\n" for name, path in paths.items())
        toy_recipe.write_text(text[:start] + models + text[end:])
        done = run(mixmerge, toy_recipe, "--out", tmp_path / out)
        assert done.returncode == 0, done.stderr
        scores = rows(mixmerge, toy_recipe, "--out", tmp_path / out)
        found[out] = [(row["model"], row["task"], row["k"]) for row in scores]
    assert found["adapters"] == found["whole"]
    report = (tmp_path / "whole" / "toy" / "report" / "report.md").read_text()
    assert "Only the first 25 documents of each task were scored (limit: 25)" in report
    written = {out: len(list((tmp_path / out).glob("store/steps/*/out/model.safetensors"))) for out in found}
    assert written == {"adapters": 3, "whole": 1}  # both experts, and the winner


def test_an_adapter_that_does_not_fit_is_named(
    toy_recipe: Path, mixmerge: Cli, tiny_model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_adapter(tmp_path / "lora", tiny_model_dir(layers=3), 1)
    edit(toy_recipe, "train:\n", f"models:\n  other: {{model: {path}}}\ntrain:\n")
    done = mixmerge("-p", TOY, "check", toy_recipe)
    assert done.returncode == 1
    assert "lora: changes model.layers.2.mlp.down_proj.weight, (16, 32), which is not there" in done.stderr
    assert "toy.yaml:" in done.stderr
    toy_recipe.write_text(f"base: {{model: {path}}}\n")
    done = mixmerge("check", toy_recipe)
    assert "is a LoRA adapter, and a base is a whole model" in done.stderr


def test_an_expert_that_does_not_fit_is_named(
    toy_recipe: Path, mixmerge: Cli, tiny_model_dir: Callable[..., Path]
) -> None:
    edit(toy_recipe, "train:\n", f"models:\n  other: {{model: {tiny_model_dir(layers=3)}}}\ntrain:\n")
    edit(toy_recipe, "[gen_expert, sum_expert]", "[gen_expert, other]")
    done = run(mixmerge, toy_recipe)
    assert done.returncode == 1
    assert "layers.2" in done.stderr


@pytest.mark.parametrize("after_s", [1.5, 4.0, 7.0])
def test_kill_9_at_any_moment_then_the_same_command(
    finished: Path, mixmerge: Cli, tmp_path: Path, after_s: float
) -> None:
    """The same results as a run that nobody killed, and no process left behind."""
    slow = tmp_path / "toy.yaml"
    slow.write_text((finished / "toy.yaml").read_text())
    edit(slow, "trainer: {toy_train: {step: 0.05}}", "trainer: {toy_train: {step: 0.05, sleep_s: 1.0}}")
    command = [sys.executable, "-m", "mixmerge", "-p", str(TOY), "recipe", str(slow)]
    killed = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(after_s)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    time.sleep(0.5)
    assert not _workers(tmp_path)
    done = run(mixmerge, slow)
    assert done.returncode == 0, done.stderr
    assert rows(mixmerge, slow) == rows(mixmerge, finished / "toy.yaml", "--out", finished / "runs")


def _workers(folder: Path) -> list[str]:
    """Command lines of workers on a store below `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = process.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if " worker " in text and str(folder) in text:
            found.append(text)
    return found


def test_a_search_asks_for_more_points_when_it_has_seen_scores(toy_recipe: Path, mixmerge: Cli) -> None:
    edit(toy_recipe, "[[0.3, 0.7], [0.5, 0.5], [0.7, 0.3]]", str([[w / 10, 1 - w / 10] for w in range(1, 10)]))
    edit(toy_recipe, "    sweep:", "    strategy: {refine: {points: 8}}\n    sweep:")
    done = run(mixmerge, toy_recipe)
    assert done.returncode == 0, done.stderr
    merges = {row["model"] for row in rows(mixmerge, toy_recipe) if row["kind"] == "merge"}
    assert len(merges) == 8


def test_an_executor_is_chosen_on_the_command_line(toy_recipe: Path, mixmerge: Cli) -> None:
    done = run(mixmerge, toy_recipe, "--executor", "local: {workers: 1, threads: 1}")
    assert done.returncode == 0, done.stderr
    wrong = run(mixmerge, toy_recipe, "--executor", "local: {worker: 1}")
    assert "unknown parameter 'worker'" in wrong.stderr


@pytest.mark.slow
def test_ray_gives_the_same_results(toy_recipe: Path, mixmerge: Cli, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    done = run(mixmerge, toy_recipe, "--executor", "ray", "--out", tmp_path / "ray")
    assert done.returncode == 0, done.stderr
    assert run(mixmerge, toy_recipe).returncode == 0
    assert rows(mixmerge, toy_recipe) == rows(mixmerge, toy_recipe, "--out", tmp_path / "ray")


def test_licences_reach_every_card_and_the_report(toy_recipe: Path, mixmerge: Cli, tmp_path: Path) -> None:
    edit(toy_recipe, "gen.jsonl, prompt", "gen.jsonl, licence: CC BY-NC 4.0, prompt")
    done = run(mixmerge, toy_recipe, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    report = (Path(done.stdout.splitlines()[-1]) / "report.md").read_text()
    table = report.split("## Data and licences")[1]
    assert "| gen | " in table
    assert "| 20 | gen\\_expert: 20, mixed: 20 | CC BY-NC 4.0 |" in table
    assert "which is for non-commercial use; trained on it: gen\\_expert, mixed, and through them every merge" in report
    assert "The licence of sum" in report
    cards = {path.parent: path.read_text() for path in (tmp_path / "runs/store/steps").glob("*/out/README.md")}
    trained = [text for text in cards.values() if "Trained by mixmerge" in text]
    assert sum("CC BY-NC 4.0, which is for non-commercial use" in text for text in trained) == 2
    assert sum("the licence of sum" in text for text in trained) == 2
    assert len(trained) == 3
    (kept,) = [path for path in (tmp_path / "runs/toy/models").iterdir() if "_0." in path.name]
    assert "gen (20 rows, CC BY-NC 4.0)" in (kept / "README.md").read_text()
    # and on, into what another recipe makes of it
    found = resolve_model(str(kept))
    assert [(one["name"], one["licence"], one["rows"]) for one in found.data] == [
        ("gen", "CC BY-NC 4.0", 20),
        ("sum", "unknown", 20),
    ]
    toy_recipe.write_text(
        f"base: {{model: {kept}}}\nmodels:\n  one: {{model: {kept}}}\n  two: {{model: {kept.parent}/sum_expert}}\n"
        "merge:\n  again:\n"
        "    experts: [one, two]\n    weights: [0.5, 0.5]\n    method: linear\n    keep: all\n"
        "eval: {evaluator: toy_eval, report_on: [gen_test]}\nreport: [markdown]\n"
    )
    done = run(mixmerge, toy_recipe, "--out", tmp_path / "more")
    assert done.returncode == 0, done.stderr
    (again,) = (tmp_path / "more/toy/models").iterdir()
    assert "gen (" in (again / "README.md").read_text()
    assert "is under CC BY-NC 4.0, which is for non-commercial use" in (again / "README.md").read_text()
    report = (Path(done.stdout.splitlines()[-1]) / "report.md").read_text()
    assert "in the model one, is under CC BY-NC 4.0" in report
