"""benchmarks/execution.py and benchmarks/sweep.py run, on little."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "execution.py"


def execution(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, env={**os.environ}
    )


def test_help_says_what_is_timed() -> None:
    done = execution("--help")
    assert done.returncode == 0
    assert "from solutions to verdicts" in " ".join(done.stdout.split())


CHURN = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
import execution

until = time.monotonic() + 1

def churn():
    while time.monotonic() < until:
        threads = [threading.Thread(target=time.sleep, args=(0.001,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

threading.Thread(target=churn).start()
while time.monotonic() < until:
    assert execution.children() == []
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_thread_that_ends_while_children_are_counted_does_no_harm() -> None:
    done = subprocess.run([sys.executable, "-c", CHURN, str(SCRIPT.parent)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_three_problems_without_rivals(data_dir: Path) -> None:
    sets = ["humaneval_plus", "mbpp_plus"]
    done = execution("--data", data_dir, "--suites", *sets, "--problems", 3, "--repeat", 1, "--no-rivals", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in sets:
        passed = found["passed"][name]
        assert all(counts == [3, 3] for counts in passed.values())
        assert all(seconds > 0 for each in found["seconds"][name].values() for seconds in each)
        assert found[f"{name}_vs_evalplus"] is None
    assert found["isolation"]["level"] >= 1


def test_a_rival_that_is_absent_is_named_with_how_to_get_it(data_dir: Path, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    options = ("--problems", 1, "--repeat", 1, "--python", bare)
    done = execution("--data", data_dir, "--suites", "humaneval_plus", *options)
    assert done.returncode == 0, done.stderr
    assert "absent: evalplus: No module named 'evalplus'; pip install evalplus==0.3.1" in done.stdout


def test_missing_data_is_said(tmp_path: Path) -> None:
    done = execution("--data", tmp_path, "--suites", "mbpp_plus")
    assert done.returncode == 2
    assert f"no mbpp_plus/MbppPlus.jsonl.gz in {tmp_path}" in done.stderr
    assert "hint: --data DIR" in done.stderr


def test_metrics_are_the_libraries_own(data_dir: Path) -> None:
    script = SCRIPT.with_name("metrics.py")
    options = ["--data", data_dir, "--samples", 60, "--repeat", 1, "--json"]
    done = subprocess.run([sys.executable, str(script), *map(str, options)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["largest_difference"] < 1e-9
    assert found["samples"] == 60
    assert {"meteor", "chrfpp", "rouge_l", "bleu4_nltk"} <= set(found["differences"])
    assert all(seconds > 0 for rounds in found["rounds"].values() for seconds in rounds)


@pytest.mark.slow
def test_a_quick_sweep_runs_whole_and_compat_is_identical(tmp_path: Path) -> None:
    script = SCRIPT.with_name("sweep.py")
    command = [sys.executable, str(script), "--quick", "--json", "--only", "single", "grid", "seven"]
    done = subprocess.run([*command, "--work", str(tmp_path)], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["compat_identical"] == {"linear": 2, "ties": 2, "dare_linear": 2, "della": 2}
    assert found["grid_vs_command"] is None  # was not asked for
    for name in ("grid_vs_run_merge", "grid_written_vs_run_merge", "compat_vs_run_merge", "single_linear_vs_io"):
        assert found[name] > 0
    assert 0 < found["peak_gib_7b"] < 1
    assert list(tmp_path.iterdir()) == []
