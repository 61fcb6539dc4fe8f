"""The README is executed: every block in it is run, or is the very code that another test runs."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TESTS

from mixmerge import TensorStack

ROOT = TESTS.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
Cli = Callable[..., subprocess.CompletedProcess[str]]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]


def test_every_language_of_a_block_is_run_below() -> None:
    assert set(re.findall(r"^```(\w+)$", README, re.MULTILINE)) == {"sh", "yaml", "python", "console"}


RECIPES = [text for text in blocks("yaml") if text.startswith("base:")]
TASKS = [text for text in blocks("yaml") if text.startswith("include:")]
DATA = [text for text in blocks("yaml") if text.startswith("data:")]


def test_every_yaml_is_one_of_these() -> None:
    assert sorted([*RECIPES, *TASKS, *DATA]) == sorted(blocks("yaml"))


@pytest.mark.parametrize("text", RECIPES)
def test_recipes(text: str, mixmerge: Cli, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    done = mixmerge("check", "r.yaml")
    assert done.returncode == 0, done.stderr
    assert "note:" not in done.stderr


def test_data_of_ones_own(mixmerge: Cli, tmp_path: Path) -> None:
    (text,) = DATA
    (tmp_path / "my").mkdir()
    row = {"instruction": "a", "input": "b", "output": "c", "language": "python"}
    (tmp_path / "my" / "rows.jsonl").write_text(json.dumps(row))
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (tmp_path / "talks.jsonl").write_text(json.dumps({"messages": talk}))
    (tmp_path / "r.yaml").write_text(
        f"base: {{model: 'hf:OWNER/NAME'}}\n{text}train:\n  one: {{data: {{own: all, sum: all, chat: all}}, "
        "trainer: {sft: {lr: 1e-5}}}\n"
    )
    done = mixmerge("check", "r.yaml")
    assert done.returncode == 0, done.stderr
    (tmp_path / "my" / "rows.jsonl").write_text(json.dumps({**row, "language": 3}))
    assert "can have language 'python'" in mixmerge("check", "r.yaml").stderr


@pytest.mark.slow
def test_a_task_of_ones_own_gives_pass_at_10(
    data_dir: Path, tiny_model_dir: Callable[..., Path], mixmerge: Cli, tmp_path: Path
) -> None:
    """As it is printed: many answers for each problem, sampled, with the stops of the task that it includes."""
    (text,) = TASKS
    (line,) = [line for line in COMMANDS if line.startswith("lm_eval") and "FOLDER" in line]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "task.yaml").write_text(text.replace("TASKS", mixmerge("tasks", "--path").stdout.strip()))
    found = lm_eval(line.replace("FOLDER", "own"), tiny_model_dir(seed=0), tmp_path, data_dir)
    (results,) = (tmp_path / "out").rglob("results_*.json")
    content = json.loads(results.read_text())
    assert content["results"]["mm_humaneval_chat_20"]["pass@10,executed"] == 0
    told = content["configs"]["mm_humaneval_chat_20"]
    assert (told["repeats"], told["generation_kwargs"]["do_sample"]) == (20, True)
    assert "\n```\n" in told["generation_kwargs"]["until"]
    assert "pass@1" in found


def test_the_plugin_is_the_one_that_a_run_is_tested_with() -> None:
    """tests/test_cli.py runs a recipe with this file."""
    assert blocks("python")[0] == (TESTS / "data" / "sign_mean.py").read_text()


@pytest.mark.parametrize("text", blocks("python")[1:])
def test_the_other_programs_run(text: str) -> None:
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_rowwise_plugin_does_what_it_says() -> None:
    found: dict[str, Any] = {}
    exec(blocks("python")[1], found)
    draw = torch.Generator().manual_seed(3)
    deltas = torch.randn(2, 8, 5, generator=draw) * torch.tensor([1.0, 4.0]).reshape(2, 1, 1)
    base, weights = torch.randn(8, 5, generator=draw), torch.tensor([0.3, 0.7]).reshape(2, 1, 1)
    merged = found["one_size"].function(TensorStack("w", base, deltas, weights, ("a", "b")))
    one, two = (float(delta.norm()) for delta in deltas)
    mean = (one + two) / 2
    torch.testing.assert_close(merged, base + 0.3 * mean / one * deltas[0] + 0.7 * mean / two * deltas[1])


def test_console() -> None:
    for block in blocks("console"):
        command, *expected = block.rstrip("\n").split("\n")
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command.removeprefix("$ "),
            shell=True,
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": path},
        )
        assert done.stdout.rstrip("\n").split("\n") == expected


def test_make_targets_exist() -> None:
    commands = [line.split("#")[0].split() for line in COMMANDS]
    for command in commands:
        if command[0] == "make":
            done = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        else:
            assert command[:2] in (["lm_eval", "run"], ["mixmerge", "score"])


def test_samples_are_scored(data_dir: Path, tmp_path: Path) -> None:
    """Each `mixmerge score` as it is printed, on canonical solutions in the files that it names."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("mixmerge score")]
    programs = [line for line in lines if "code2text" not in line]
    assert len(programs) == 3
    for line in programs:
        _, _, task, file, *_ = shlex.split(line, comments=True)
        name = "HumanEvalPlus" if "humaneval" in task else "MbppPlus"
        with gzip.open(next(data_dir.glob(f"*/{name}.jsonl.gz")), "rt", encoding="utf-8") as rows:
            problems = [json.loads(row) for row, _ in zip(rows, range(2), strict=False)]
        samples = [sample(problem, logged="samples_" in file) for problem in problems]
        (tmp_path / file).write_text("".join(json.dumps(one) + "\n" for one in samples))
        done = subprocess.run(
            [str(BIN / "python"), "-m", *shlex.split(line, comments=True)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "MIXMERGE_DATA": str(data_dir), "MIXMERGE_CACHE": str(tmp_path / "cache")},
        )
        assert done.returncode == 0, done.stderr
        if "--json" in line:
            assert json.loads(done.stdout)["plus"] == {"k": 2, "pass@1": 1.0}
        else:
            assert "plus  2 of 2  pass@1 1.0000" in done.stdout


def test_summaries_are_scored(data_dir: Path, tmp_path: Path) -> None:
    """As it is printed, on the summaries of Codex that CodeXGLUE's evaluator scored 21.88."""
    (line,) = [line for block in blocks("sh") for line in block.splitlines() if "mm_code2text" in line]
    codex = data_dir / "generations" / "code2text" / "java" / "codex_10shot.output"
    rows = [one.partition("\t") for one in codex.read_text(encoding="utf-8").splitlines()]
    text = "".join(json.dumps({"id": int(id), "output": output}) + "\n" for id, _, output in rows)
    (tmp_path / "summaries.jsonl").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [str(BIN / "python"), "-m", *shlex.split(line, comments=True), "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "MIXMERGE_DATA": str(data_dir)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert f"{found['metrics']['bleu4_codexglue']:.2f}" == "21.88"
    low, high = found["intervals"]["bleu4_codexglue"]
    assert low < 21.88 < high


def sample(problem: dict[str, str], *, logged: bool) -> dict[str, object]:
    """A solution in EvalPlus' form, or in the form of lm-eval's log."""
    solution = problem["prompt"] + problem["canonical_solution"]
    if not logged:
        return {"task_id": problem["task_id"], "solution": solution}
    return {"doc": {"id": problem["task_id"]}, "resps": [[f"\n{solution}\n```\n"]], "filter": "executed"}


def lm_eval(line: str, model: Path, tmp_path: Path, data: Path | None = None) -> str:
    """Run a command of lm-eval on a tiny model, on so few problems and tokens that it is quick."""
    command = shlex.split(line.replace("DIR", str(model)))
    command = [str(BIN / command[0]), *command[1:], "--limit", "2", "--device", "cpu", "--output_path", "out"]
    command = [f"{part},max_gen_toks=4" if part.startswith("do_sample") else part for part in command]
    include = command.index("--include_path") + 1
    command[include] = str(ROOT / command[include]) if command[include] == "tasks" else command[include]
    env = {**os.environ, **({"MIXMERGE_DATA": str(data)} if data else {}), "MIXMERGE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tasks_run_in_plain_lm_eval(tiny_model_dir: Callable[..., Path], tmp_path: Path) -> None:
    (line,) = [line for line in COMMANDS if line.startswith("lm_eval") and "--include_path tasks" in line]
    assert "pass@1" in lm_eval(line, tiny_model_dir(seed=0), tmp_path)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)h#][^)]*)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
