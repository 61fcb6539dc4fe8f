"""The bigcode evaluator against the real bigcode-evaluation-harness: its command line, its files, its verdicts.

The contract tests run where the harness is: a clone named by MIXMERGE_BIGCODE, or an editable installation. Its tasks
take their data from the hub; `parity` makes its own, and HumanEval is laid as a local folder where the harness runs.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixmerge import Checkpoint, MixmergeError, Score, SourceError, StepError, TensorStack
from mixmerge.plugins import _bigcode_harness as harness
from mixmerge.plugins import bigcode as plugin
from mixmerge.types import Derivation

GOOD = "def parity(b1,b2,b3,b4):\n    return (b1 + b2 + b3 + b4) % 2"
BAD = "def parity(b1,b2,b3,b4):\n    return 0"
DEFAULTS = plugin.evaluate.complete({})


@pytest.fixture(scope="session")
def clone() -> Path:
    try:
        return harness._folder(None)
    except SourceError:
        pytest.skip(f"no bigcode-evaluation-harness here (set {harness.PLACE} to a clone)")


@pytest.fixture(scope="session")
def found(clone: Path) -> harness.Harness:
    return harness.find(str(clone), None)


def by_metric(scores: list[Score]) -> dict[str, Score]:
    return {score.metric: score for score in scores}


# -- without the harness ----------------------------------------------------------------------------------------


def test_pass_at_k_of_one_answer_to_each_problem() -> None:
    (score,) = plugin.scores("humaneval", {"pass@1": 0.25}, [["x"]] * 8)
    assert (score.task, score.metric, score.value, score.n, score.k, score.primary) == (
        *("humaneval", "pass@1", 0.25, 8, 2),
        True,
    )
    assert score.stderr == pytest.approx(math.sqrt(0.25 * 0.75 / 7))  # of eight values 0 or 1, two of them 1


def test_several_answers_to_a_problem_have_no_k_and_no_error() -> None:
    found = by_metric(plugin.scores("mbpp", {"pass@1": 0.25, "pass@10": 0.5}, [["x"] * 10] * 8))
    assert [(s.n, s.k, s.stderr, s.primary) for s in found.values()] == [(8, None, None, True), (8, None, None, False)]


def test_groups_of_one_problem_get_their_mean() -> None:
    """parity: a group for each of five problems, each over its answers."""
    metrics = {f"{i} bugs": {"pass@1": value} for i, value in enumerate((1.0, 0.5, 0.5, 0.0, 0.0), 1)}
    found = by_metric(plugin.scores("parity", metrics, [["a", "b"]] * 5))
    mean, group = found["pass@1"], found["2 bugs/pass@1"]
    assert (mean.value, mean.n, mean.k, mean.primary) == (pytest.approx(0.4), 5, None, True)
    assert (group.value, group.n, group.k, group.primary) == (0.5, 2, 1, False)


def test_other_shapes() -> None:
    quixbugs = {"gcd": {"pass@1": 1.0}, "lis": {"pass@1": 0.0}, "all": {"pass@1": 0.5}, "num_correct": 1.0}
    found = by_metric(plugin.scores("quixbugs", quixbugs, [["a"], ["b"]]))
    assert (found["pass@1"].value, found["pass@1"].k, found["pass@1"].n, found["pass@1"].primary) == (0.5, 1, 2, True)
    gsm = by_metric(plugin.scores("pal-gsm8k-greedy", {"accuracy": 0.5, "num_failed_execution": 1}, [["a"], ["b"]]))
    assert (gsm["accuracy"].k, gsm["accuracy"].higher_is_better) == (1, True)
    assert (gsm["num_failed_execution"].k, gsm["num_failed_execution"].higher_is_better) == (None, False)
    bleu = by_metric(plugin.scores("conala", {"bleu": 0.5, "precisions": [0.5, 0.1], "x": math.nan}, [["a"], ["b"]]))
    assert [(s.metric, s.k, s.primary) for s in bleu.values()] == [("bleu", None, True)]
    students = [{"group": "First Success", "pass1": 0.5}, {"group": "Last Failure", "pass1": 0.1}]
    found = by_metric(plugin.scores("studenteval", students, [["a"]] * 20))
    assert found["pass1"].value == pytest.approx(0.3)
    assert found["Last Failure/pass1"].value == 0.1


def test_parameters_that_cannot_work_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check = plugin.check
    assert check(**DEFAULTS) == ""
    assert "do_sample: false" in check(**DEFAULTS | {"temperature": 0})
    assert check(**DEFAULTS | {"temperature": 0, "do_sample": False}) == ""
    assert "must be 1" in check(**DEFAULTS | {"do_sample": False, "n_samples": 2})
    monkeypatch.setenv("MIXMERGE_REQUIRE_ISOLATION", "1")
    assert check(**DEFAULTS) == ""
    assert "level 0" in check(**DEFAULTS | {"allow_code_execution": True})


def test_absence_is_said_before_anything_runs(
    tmp_path: Path, tiny_model_dir: Callable[..., Path], mixmerge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    if importlib.util.find_spec("bigcode_eval"):
        pytest.skip("bigcode_eval is installed here")
    lines = [f"base: {{model: {tiny_model_dir(seed=0)}}}", "eval:", "  evaluator: bigcode", "  report_on: [humaneval]"]
    (tmp_path / "r.yaml").write_text("\n".join(lines) + "\n")
    done = mixmerge("check", "r.yaml", env={harness.PLACE: ""})
    assert done.returncode != 0
    assert "r.yaml:4: bigcode: bigcode-evaluation-harness is not installed here" in done.stderr
    assert f"git clone {harness.REPOSITORY}" in done.stderr
    done = mixmerge("check", "r.yaml", env={harness.PLACE: str(tmp_path)})
    assert f"{tmp_path} is no clone of the harness, it has no main.py" in done.stderr


# -- against the harness itself ---------------------------------------------------------------------------------


def test_its_parser_takes_our_command_line(clone: Path) -> None:
    options = {name: value for name, value in DEFAULTS.items() if name in PASSED} | {
        **{"n_samples": 3, "do_sample": False, "limit": 7, "prefix": "--x", "instruction_tokens": "<u>,<e>,<a>"},
        **{"left_padding": True, "precision": "bf16", "seed": 11, "load_data_path": "d.json", "temperature": 0.5},
    }
    program = "import json, main; print('\\n' + json.dumps(vars(main.parse_args())))"
    command = [sys.executable, "-c", program, "--model=m", "--tasks=parity,mbpp", *plugin._flags(options)]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True)
    parsed = json.loads(done.stdout.splitlines()[-1])
    assert {name: parsed[name] for name in options} == options
    assert (parsed["model"], parsed["tasks"]) == ("m", "parity,mbpp")


PASSED = set(DEFAULTS) - {"allow_code_execution", "processes", "path", "python"}


def test_our_defaults_are_its_defaults(clone: Path) -> None:
    program = "import json, main; print('\\n' + json.dumps(vars(main.parse_args())))"
    done = subprocess.run([sys.executable, "-c", program], cwd=clone, capture_output=True, text=True, check=True)
    parsed = json.loads(done.stdout.splitlines()[-1])
    assert {name: parsed[name] for name in PASSED} == {name: DEFAULTS[name] for name in PASSED}


def test_pins(clone: Path) -> None:
    given = DEFAULTS | {"path": str(clone), "allow_code_execution": True}
    pins = plugin.pins(["humaneval", "conala"], given)
    assert pins["humaneval"] == pins["conala"]
    assert pins["humaneval"].startswith("sha256:")
    assert {":python", ":transformers"} < set(pins)
    with pytest.raises(SourceError, match="no task is called 'humanevl'") as caught:
        plugin.pins(["humanevl"], given)
    assert "humaneval" in caught.value.hint
    refusing = DEFAULTS | {"path": str(clone)}
    assert "conala" in plugin.pins(["conala"], refusing)  # BLEU, nothing is executed
    with pytest.raises(SourceError, match="humaneval executes what the model writes") as caught:
        plugin.pins(["conala", "humaneval"], refusing)
    assert "allow_code_execution: true" in caught.value.hint


def test_an_interpreter_without_its_needs_is_said(clone: Path, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(SourceError, match="does not start: ModuleNotFoundError") as caught:
        harness.find(str(clone), str(bare))
    assert "pip install -r" in caught.value.hint
    with pytest.raises(SourceError, match="is no Python interpreter"):
        harness.find(str(clone), str(tmp_path / "nothing"))


def judged(found: harness.Harness, folder: Path, task: str, generations: list[list[str]], *more: str) -> Any:
    """What the harness makes of recorded generations, through the same call as an evaluation."""
    (folder / "generations.json").write_text(json.dumps(generations))
    files = [f"--load_generations_path={folder / 'generations.json'}", f"--metric_output_path={folder / 'm.json'}"]
    found.score(["--model=none", f"--tasks={task}", *files, "--allow_code_execution", *more], True)
    return json.loads((folder / "m.json").read_text())[task]


def test_its_metrics_are_read(found: harness.Harness, tmp_path: Path) -> None:
    generations = [[GOOD, GOOD], [GOOD, BAD], [BAD, BAD], ["def parity(", BAD], ["while True: pass", GOOD]]
    metrics = judged(found, tmp_path, "parity", generations, "--n_samples=2")
    scores = by_metric(plugin.scores("parity", metrics, generations))
    assert {name: score.value for name, score in scores.items()} == pytest.approx(
        {"pass@1": 0.4} | {f"{i} bugs/pass@1": value for i, value in enumerate((1.0, 0.5, 0.0, 0.0, 0.5), 1)}
    )
    assert [scores[f"{i} bugs/pass@1"].k for i in range(1, 6)] == [2, 1, 0, 0, 1]


SPY = """
import ctypes, json, os, socket
def seen():
    told = dict(os.environ)
    with socket.socket() as s:
        s.settimeout(1)
        try:
            s.connect(("127.0.0.1", PORT))
            told["reached"] = "yes"
        except OSError as error:
            told["reached"] = f"no, {error}"
    return told
with open("OUT", "w") as file:
    json.dump(seen(), file)
if ctypes.CDLL(None).fork() == 0:
    ctypes.CDLL(None).sleep(60)
    ctypes.CDLL(None)._exit(0)
"""


def test_what_it_executes_has_no_network_no_secrets_and_leaves_nothing(
    found: harness.Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    if not harness.isolation()[1]:
        pytest.skip("unshare does not work here")
    monkeypatch.setenv("HF_TOKEN", "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        spy = SPY.replace("PORT", str(server.getsockname()[1])).replace("OUT", str(tmp_path / "spied.json"))
        judged(found, tmp_path, "parity", [[spy + GOOD]] + [[GOOD]] * 4)
    spied = json.loads((tmp_path / "spied.json").read_text())
    assert spied["reached"].startswith("no,")
    assert "HF_TOKEN" not in spied
    assert not Path(spied["TMPDIR"]).exists()
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.name != str(os.getpid())]
    assert not [line for line in lines if str(tmp_path).encode() in line]


def test_a_merge_is_written_generated_with_scored_and_removed(
    clone: Path, tiny_model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    base, one = (Checkpoint(f"m{seed}", tiny_model_dir(seed=seed), f"id{seed}") for seed in (0, 1))

    def linear(stack: TensorStack) -> Any:
        return stack.base + (stack.weights * stack.deltas).sum(0)

    merge = Checkpoint("merge", base.path, "id-merge", Derivation(base, (one,), (0.5,), 0, linear))
    given = DEFAULTS | {"path": str(clone), "allow_code_execution": True, "max_length_generation": 400}
    run = plugin.evaluate.function
    scores = by_metric(list(run(merge, ("parity",), tmp_path, 5, **given | {"n_samples": 2, "batch_size": 2})))
    assert set(scores) == {"pass@1", *(f"{i} bugs/pass@1" for i in range(1, 6))}
    assert (scores["pass@1"].n, scores["1 bugs/pass@1"].n, scores["1 bugs/pass@1"].k) == (5, 2, 0)  # random weights
    generations = json.loads((tmp_path / "generations_parity.json").read_text())
    assert [len(answers) for answers in generations] == [2] * 5
    assert all(answer.startswith("def") for answers in generations for answer in answers)
    whole = json.loads((tmp_path / "results.json").read_text())
    assert whole["isolation"]["level"] == 0
    assert whole["isolation"]["tasks"] == ["parity"]
    assert (whole["config"]["n_samples"], whole["config"]["seed"]) == (2, 5)
    said = json.loads((tmp_path / "metrics_parity.json").read_text())["config"]["model"]
    assert said != str(base.path)
    assert not Path(said).exists()


def test_humaneval_from_prompts_to_pass_at_1(
    clone: Path, data_dir: Path, tiny_model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    """A local folder with the name of its hub set takes the hub's place, where the harness is run."""
    folder = tmp_path / "harness"
    shutil.copytree(clone, folder, ignore=shutil.ignore_patterns(".git"))
    (folder / "openai_humaneval").mkdir()
    with gzip.open(data_dir / "humaneval_plus" / "HumanEvalPlus-OriginFmt.jsonl.gz", "rt") as file:
        problems = [json.loads(line) for line in file][:3]
    columns = ("task_id", "prompt", "entry_point", "canonical_solution")
    rows = [{name: row[name] for name in columns} | {"test": "def check(f):\n    assert True"} for row in problems]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "openai_humaneval" / "test.jsonl").write_text(text)

    model = Checkpoint("tiny", tiny_model_dir(seed=0), "id")
    given = DEFAULTS | {"path": str(folder), "allow_code_execution": True, "limit": 2, "max_length_generation": 480}
    given |= {"do_sample": False, "temperature": 0.0}
    (score,) = plugin.evaluate.function(model, ("humaneval",), tmp_path, 5, **given)
    assert (score.metric, score.n, score.primary) == ("pass@1", 2, True)
    assert score.k in (0, 1, 2)
    generations = json.loads((tmp_path / "generations_humaneval.json").read_text())
    assert [answers[0].startswith(row["prompt"].strip()) for answers, row in zip(generations, rows, strict=False)] == [
        True,
        True,
    ]
    solved = [[row["prompt"] + row["canonical_solution"]] for row in rows]
    solved[1] = ["raise SystemExit"]
    metrics = judged(harness.find(str(folder), None), tmp_path, "humaneval", solved)
    (score,) = plugin.scores("humaneval", metrics, solved)
    assert (score.k, score.n, score.value) == (2, 3, pytest.approx(2 / 3))


def test_its_failure_is_ours(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = DEFAULTS | {"path": str(clone), "allow_code_execution": True}
    with pytest.raises(StepError, match="generation ended with exit status 1") as caught:
        plugin.evaluate.function(Checkpoint("none", tmp_path, "id"), ("parity",), tmp_path, 0, **given)
    assert "log" in caught.value.hint
    monkeypatch.setenv("MIXMERGE_REQUIRE_ISOLATION", "2")
    with pytest.raises(MixmergeError, match="level 0"):
        plugin.evaluate.function(Checkpoint("none", tmp_path, "id"), ("parity",), tmp_path, 0, **given)
