"""`mixmerge score` from the command line: every form of samples, what it prints and keeps, and what is wrong first."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixmerge import SourceError
from mixmerge.scoring import read_samples, results_file, score

Cli = Callable[..., subprocess.CompletedProcess[str]]
RIGHT, WRONG = "    return n + 1\n", "    return 4\n"
PROMPT = "def f(n):\n"


def problem(number: int) -> dict[str, Any]:
    """In EvalPlus' format, and in no released set. WRONG passes the base test."""
    row = {"task_id": f"Own/{number}", "prompt": PROMPT, "entry_point": "f", "canonical_solution": RIGHT}
    return row | {"base_input": [[3]], "plus_input": [[4], [5]], "atol": 0, "contract": ""}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIXMERGE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(problem(number)) + "\n" for number in range(3)))
    return path


def lines(path: Path, rows: list[Any]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_score_prints_and_keeps(data: Path, tmp_path: Path, mixmerge: Cli) -> None:
    samples = lines(
        tmp_path / "mine.jsonl",
        [{"task_id": "Own/0", "completion": RIGHT}, {"task_id": "Own/1", "solution": PROMPT + WRONG}],
    )
    done = mixmerge("score", "mm_humaneval_plus", samples, "--data", data, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["task"], found["n"], found["without_sample"]) == ("mm_humaneval_plus", 2, 1)
    assert found["base"] == {"k": 2, "pass@1": 1.0}
    assert found["plus"] == {"k": 1, "pass@1": 0.5}
    assert found["verdicts"] == {"Own/0": {"base": "pass", "plus": "pass"}, "Own/1": {"base": "pass", "plus": "fail"}}
    assert set(found["isolation"]) == {"level", "layers", "landlock_abi", "uid", "kernel"}
    assert found["verdict_by"] == "data"
    assert found["limits"]["memory_mb"] == 4096
    kept = json.loads((tmp_path / "mine.eval_results.json").read_text())
    assert set(kept) >= {"date", "hash", "eval", "pass_at_k", "isolation", "limits", "verdict_by"}
    assert kept["pass_at_k"] == {"base": {"pass@1": 1.0}, "plus": {"pass@1": 0.5}}
    assert kept["eval"]["Own/1"] == [
        {
            "task_id": "Own/1",
            "solution": PROMPT + WRONG,
            "base_status": "pass",
            "plus_status": "fail",
            "base_fail_tests": [],
            "plus_fail_tests": [[4]],
        }
    ]
    readable = mixmerge("score", "mm_humaneval_plus", samples, "--data", data, "--workers", 1, "--out", "other.json")
    assert readable.stdout.splitlines() == [
        "mm_humaneval_plus  base  2 of 2  pass@1 1.0000",
        "mm_humaneval_plus  plus  1 of 2  pass@1 0.5000",
        "1 problems have no sample and are not counted",
    ]
    assert (tmp_path / "other.json").is_file()
    again = mixmerge("score", "mm_humaneval_plus", "mine.eval_results.json", "--data", data, "--json")
    assert json.loads(again.stdout)["verdicts"] == found["verdicts"]
    assert json.loads((tmp_path / "mine.eval_results.json").read_text()) == kept  # what was read is left alone


def test_every_form_of_samples(data: Path, tmp_path: Path) -> None:
    whole = PROMPT + RIGHT
    logged = {"doc_id": 0, "doc": {"id": "Own/0"}, "resps": [[f"\n{whole}\n```\nDone.", "no program"]], "filter": "a"}
    folder = tmp_path / "folder"
    (folder / "Own_0").mkdir(parents=True)
    (folder / "Own_0" / "0.py").write_text(whole)
    forms = {
        "gz": lines(tmp_path / "s.jsonl.gz", [{"task_id": "Own/0", "solution": whole}]),
        "folder": folder,
        "log": lines(tmp_path / "samples_mm_humaneval_plus_chat.jsonl", [logged, {**logged, "filter": "b"}]),
        "answer": lines(tmp_path / "o.jsonl", [{"id": "Own/0", "output": f"So:\n```python\n{whole}\n```"}]),
    }
    (tmp_path / "old_eval_results.json").write_text(
        json.dumps({"eval": {"Own/0": [{"solution": whole, "base_status": "fail"}]}})
    )
    forms["results"] = tmp_path / "old_eval_results.json"
    for name, path in forms.items():
        found = score("mm_humaneval_plus_chat", path, data=data).summary
        assert (found["n"], found["plus"]["k"]) == ((2, 1) if name == "log" else (1, 1)), name
        one = {"base": "pass", "plus": "pass"}
        several = {"base": ["pass", "fail"], "plus": ["pass", "fail"]}
        assert found["verdicts"] == {"Own/0": several if name == "log" else one}


def test_solutions_are_scored_as_they_stand_unless_asked(data: Path, tmp_path: Path) -> None:
    fenced = lines(tmp_path / "s.jsonl", [{"task_id": "Own/0", "solution": f"```python\n{PROMPT}{RIGHT}```"}])
    assert score("mm_humaneval_plus", fenced, data=data).summary["base"]["k"] == 0
    assert score("mm_humaneval_plus", fenced, data=data, sanitize=True).summary["base"]["k"] == 1


def test_pass_at_10_where_there_are_ten(data: Path, tmp_path: Path) -> None:
    rows = [{"task_id": "Own/0", "completion": RIGHT if number < 2 else WRONG} for number in range(10)]
    found = score("mm_humaneval_plus", lines(tmp_path / "s.jsonl", rows), data=data).summary
    assert found["base"] == {"k": 10, "pass@1": 1.0, "pass@10": 1.0}
    assert found["plus"] == {"k": 2, "pass@1": pytest.approx(0.2), "pass@10": 1.0}


def test_endless_programs_are_called_what_evalplus_calls_them(data: Path, tmp_path: Path) -> None:
    """A call that does not end fails; a program that does not load runs into the limit of the whole."""
    rows = [{"task_id": "Own/0", "solution": "def f(n):\n    while True: pass"}]
    rows += [{"task_id": "Own/1", "solution": "while True: pass"}, {"task_id": "Own/2", "solution": "def g(: pass"}]
    found = score("mm_humaneval_plus", lines(tmp_path / "s.jsonl", rows), data=data).summary["verdicts"]
    assert [found[f"Own/{number}"]["base"] for number in range(3)] == ["fail", "timeout", "fail"]


def test_mbpps_own_tests(tmp_path: Path) -> None:
    row = {"task_id": 11, "text": "Add one.", "code": "def f(n):\r\n  return n + 1", "test_setup_code": ""}
    row |= {"test_list": ["assert f(1) == 2", "assert f(2) == 3"], "challenge_test_list": []}
    data = lines(tmp_path / "mbpp.jsonl", [row])
    rows = [
        {"task_id": 11, "solution": "def f(n): return n + 1"},
        {"task_id": "MBPP/11", "solution": "def f(n): return 2"},
    ]
    found = score("mm_mbpp", lines(tmp_path / "s.jsonl", rows), data=data).summary
    assert found["verdicts"] == {"Mbpp/11": {"base": ["pass", "fail"]}}
    assert "plus" not in found
    assert found["verdict_by"] == "split"


@pytest.mark.parametrize(
    ("rows", "where", "hint"),
    [
        (
            [{"task_id": "Own/0", "completion": RIGHT}, {"task_id": "Own/9", "completion": RIGHT}],
            ":2: no problem",
            "Own/",
        ),
        ([{"task_id": "Own/0"}], ":1: there is no solution, completion or output", "task_id"),
        ([{"completion": RIGHT}], ":1: there is no task_id", "task_id"),
        ([{"task_id": "Own/0", "solution": ["a"]}], ":1: solution is no text but list", "several lines"),
        (["text"], ":1: no object but str", "samples are"),
        ([], "holds no samples", "samples are"),
    ],
)
def test_bad_samples_are_one_clear_error(rows: list[Any], where: str, hint: str, data: Path, tmp_path: Path) -> None:
    samples = lines(tmp_path / "bad.jsonl", rows)
    with pytest.raises(SourceError) as error:
        score("mm_humaneval_plus", samples, data=data)
    assert where in error.value.message
    assert "bad.jsonl" in error.value.message
    assert hint in error.value.hint
    assert not (tmp_path / "cache").exists()  # nothing was executed


def test_what_else_can_be_wrong(data: Path, tmp_path: Path, mixmerge: Cli) -> None:
    samples = tmp_path / "broken.jsonl"
    samples.write_text('{"task_id": "Own/0", "completion": ""}\n{"task_id": \n')
    for arguments, message in [
        (("mm_humaneval_plus", samples, "--data", data), "broken.jsonl:2: cannot be read as JSON"),
        (("mm_humaneval_plus", "none.jsonl"), "there is no file none.jsonl"),
        (("mm_humaneval_plus", samples, "--data", "none.jsonl"), "there is no file none.jsonl"),
        (("mm_humaneval_pluss", samples), "did you mean mm_humaneval_plus"),
        (("mm_code", samples), "is a group of tasks"),
        (("mm_list_pipelines", samples), "can be scored from a file"),
    ]:
        done = mixmerge("score", *arguments)
        assert done.returncode == 1, arguments
        assert message in done.stderr, done.stderr
        assert "hint: " in done.stderr
        assert "Traceback" not in done.stderr
    assert mixmerge("score", "mm_mbpp", samples, "--workers", "0").returncode == 2


def test_isolation_can_be_required(data: Path, tmp_path: Path, mixmerge: Cli) -> None:
    samples = lines(tmp_path / "s.jsonl", [{"task_id": "Own/0", "completion": RIGHT}])
    done = mixmerge("score", "mm_humaneval_plus", samples, "--data", data, "--require-isolation", 1, "--json")
    assert json.loads(done.stdout)["isolation"]["level"] >= 1


def test_results_lie_where_evalplus_puts_them(tmp_path: Path) -> None:
    assert results_file(Path("a/s.jsonl")) == Path("a/s.eval_results.json")
    assert results_file(Path("a/s.jsonl.gz")) == Path("a/s.eval_results.json")
    assert results_file(Path("a/s.eval_results.json")) == Path("a/s.rescored.eval_results.json")
    assert results_file(tmp_path) == tmp_path / "eval_results.json"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "name", "base", "plus"),
    [
        ("mm_humaneval_plus", "humaneval_plus/mistral-7b-instruct-v0.2.json", 0.4512, 0.3902),
        ("mm_mbpp_plus", "mbpp_plus/llama3-base-dpo.json", 0.6138, 0.5000),
    ],
)
def test_published_scores(
    task: str, name: str, base: float, plus: float, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXMERGE_DATA", str(data_dir))
    monkeypatch.setenv("MIXMERGE_CACHE", str(tmp_path))
    found = score(task, data_dir / "generations" / name).summary
    assert round(found["base"]["pass@1"], 4) == base
    assert round(found["plus"]["pass@1"], 4) == plus


def test_read_samples_keeps_places(tmp_path: Path) -> None:
    path = lines(tmp_path / "s.jsonl", [{"task_id": "Own/0", "completion": "a"}, {"task_id": 3, "solution": "b"}])
    found = read_samples(path)
    assert [(each.place, each.id, each.kind) for each in found] == [
        (f"{path}:1", "Own/0", "completion"),
        (f"{path}:2", "3", "solution"),
    ]


def test_results_that_cannot_be_written_are_said_before_the_work(data: Path, tmp_path: Path, mixmerge: Cli) -> None:
    samples = lines(tmp_path / "s.jsonl", [{"task_id": "Own/0", "completion": RIGHT}])
    for out, why in ((tmp_path / "nowhere" / "r.json", "no such file"), (tmp_path, "is a folder")):
        done = mixmerge("score", "mm_humaneval_plus", samples, "--data", data, "--out", out)
        assert (done.returncode, done.stdout) == (1, "")
        assert why in done.stderr
        assert "programs run" not in done.stderr
    assert not list(tmp_path.glob(".*"))


def test_where_samples_lie_in_a_folder_that_cannot_be_written_results_are_printed(
    data: Path, tmp_path: Path, mixmerge: Cli
) -> None:
    """A name that is too long for the results is as good as a folder of someone else's, also for root."""
    samples = lines(tmp_path / f"{'s' * 245}.jsonl", [{"task_id": "Own/0", "completion": RIGHT}])
    done = mixmerge("score", "mm_humaneval_plus", samples, "--data", data, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["base"]["k"] == 1
    assert done.stderr.startswith("warning: results will only be printed: cannot write")


def test_results_that_are_replaced_are_said(data: Path, tmp_path: Path, mixmerge: Cli) -> None:
    samples = lines(tmp_path / "s.jsonl", [{"task_id": "Own/0", "completion": RIGHT}])
    assert ".bak" not in mixmerge("score", "mm_humaneval_plus", samples, "--data", data).stderr
    again = mixmerge("score", "mm_humaneval_plus_chat", samples, "--data", data)
    assert "(what was there is now s.eval_results.json.bak)" in again.stderr
    assert (tmp_path / "s.eval_results.json.bak").is_file()


def test_samples_and_problems_are_told_apart(data: Path, tmp_path: Path, mixmerge: Cli) -> None:
    rows = [{"task_id": f"Own/{number}", "completion": RIGHT if number < 2 else WRONG} for number in (0, 0, 0, 1, 2)]
    done = mixmerge("score", "mm_humaneval_plus", lines(tmp_path / "s.jsonl", rows), "--data", data)
    assert "mm_humaneval_plus  plus  4 of 5  pass@1 0.6667  (mean over 3 problems)" in done.stdout


def test_talk_around_a_program_is_pointed_out(data: Path, tmp_path: Path, mixmerge: Cli) -> None:
    talk = f"Sure! Here it is:\n```python\n{PROMPT}{RIGHT}```\nHope that helps."
    samples = lines(tmp_path / "s.jsonl", [{"task_id": "Own/0", "solution": talk}])
    done = mixmerge("score", "mm_humaneval_plus", samples, "--data", data)
    assert "note: 1 sample is no Python as it stands; --sanitize looks for a program" in done.stderr
    sanitized = mixmerge("score", "mm_humaneval_plus", samples, "--data", data, "--sanitize")
    assert "note:" not in sanitized.stderr
    assert "plus  1 of 1" in sanitized.stdout


def test_data_that_is_a_folder_is_called_one(data: Path, tmp_path: Path) -> None:
    samples = lines(tmp_path / "s.jsonl", [{"task_id": "Own/0", "completion": RIGHT}])
    with pytest.raises(SourceError, match="is a folder"):
        score("mm_humaneval_plus", samples, data=tmp_path)
