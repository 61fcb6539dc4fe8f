"""HumanEval+, MBPP+ and MBPP's validation problems as lm-eval tasks.

Problems come from the hub, or from the folder that the environment variable MIXMERGE_DATA names. A candidate's process
only supplies values; so does the reference solution's, which is run beside it (once per process) on the same inputs.
They are compared here, by EvalPlus' rules (arXiv 2305.01210; HumanEval+ v0.1.10, MBPP+ v0.2.0).
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from mixmerge.sandbox import Limits, Outcome, Program, run_programs


def _beside(name: str) -> Any:
    """Another file of this folder; lm-eval imports this one by its path, outside any package."""
    spec = importlib.util.spec_from_file_location(f"mm_evalplus_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where its dataclasses look
    spec.loader.exec_module(module)
    return module


problems = _beside("problems")
compare = _beside("compare")

INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
)
# EvalPlus gives each call four times what the reference took, at least a second, and 4 GiB. Here time is over all calls
# of a program. References of SLOW need more than ten seconds of it; all others ended within that, even on a busy host.
LIMITS = Limits(cpu_s=10.0, memory_mb=4096, output_kb=16 * 1024)
SLOW = frozenset(["Mbpp/255", "Mbpp/599"])
SLOW_LIMITS = replace(LIMITS, cpu_s=120.0)
LARGE = 10_000
"""The longest text or list that travels as it is. A few references return up to a gigabyte."""

_SUPPLY = """

def mixmerge_supply(*arguments):
    def frozen(value):
        return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value
    value = {entry_point}(*arguments)
    if type(value) in (str, list, tuple) and len(value) > {large}:
        return "hash", type(value).__name__, len(value), hash(frozen(value))
    return value
"""
# Both the reference's and the candidate's large values become hashes, equal for equal values: hash(1.0) is hash(1), and
# the sandbox fixes the seed of text. What a candidate makes of this is still only a value.


def humaneval_plus(**_: Any) -> dict[str, Any]:
    return _dataset("humaneval_plus")


def mbpp_plus(**_: Any) -> dict[str, Any]:
    return _dataset("mbpp_plus")


def mbpp_dev(**_: Any) -> dict[str, Any]:
    return _dataset("mbpp_dev")


def _dataset(name: str) -> dict[str, Any]:
    """Inputs stay out of the docs: they hold tuples, sets and complex numbers, and samples are logged."""
    from datasets import Dataset

    return {"test": Dataset.from_list([_doc(name, problem) for problem in _problems(name).values()])}


def _doc(name: str, problem: Any) -> dict[str, str]:
    return {
        "set": name,
        "id": problem.id,
        "question": f"{INSTRUCTION}\n```\n{problem.prompt.strip()}\n```\n",
        "reference": problem.reference,
        "entry_point": problem.entry_point,
    }


@cache
def _problems(name: str) -> Mapping[str, Any]:
    return {problem.id: problem for problem in problems.load(name)}


def extract_program(response: str, entry_point: str) -> str:
    """The program in a response that begins inside a code fence.

    The first part between fences that defines `entry_point`, without the last lines that do not parse; of it, imports
    and what `entry_point` reaches, as EvalPlus' `sanitize` keeps: examples and asserts that a model adds are not run.
    """
    parts = [_parsable(part) for part in re.split(r"^```.*$|```", response, flags=re.MULTILINE)]
    for tree in parts:
        if entry_point in {name for node in tree.body for name in _defined(node)}:
            return ast.unparse(_reached(tree, entry_point))
    return ast.unparse(parts[0])


def _parsable(text: str) -> ast.Module:
    lines = text.strip("\n").split("\n")
    for end in range(len(lines), 0, -1):
        try:
            return ast.parse("\n".join(lines[:end]))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return ast.Module([], [])


def _reached(tree: ast.Module, entry_point: str) -> ast.Module:
    uses = {
        name: {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        for node in tree.body
        for name in _defined(node)
    }
    wanted, new = set[str](), {entry_point}
    while new:
        wanted |= new
        new = {used for name in new for used in uses.get(name, ())} - wanted
    kept = [
        node
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom) or any(name in wanted for name in _defined(node))
    ]
    return ast.Module(kept, [])


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from (inner.id for inner in ast.walk(target) if isinstance(inner, ast.Name))


def judge(responses: Sequence[Sequence[str]], docs: Sequence[dict[str, str]]) -> list[list[dict[str, Any]]]:
    """Run every response of every doc, all together in the sandbox.

    A filter of lm-eval: takes and gives one list for each doc. A verdict holds `base` and `plus` (whether all tests of
    that kind pass; the two are run apart, as EvalPlus does), `detail` (why not, where the sandbox knows), and `code`.
    """
    given = [
        (_problems(doc["set"])[doc["id"]], code) for doc, codes in zip(docs, responses, strict=True) for code in codes
    ]
    codes = [extract_program(response, problem.entry_point) for problem, response in given]
    judged = iter(verdicts([problem for problem, _ in given], codes))
    return [[next(judged) for _ in answers] for answers in responses]


def verdicts(problems: Sequence[Any], codes: Sequence[str]) -> list[dict[str, Any]]:
    """What becomes of each program for the problem beside it."""
    unknown = {problem.id: problem for problem in problems if problem.id not in _EXPECTED and not problem.expected}
    references = [(problem, problem.reference) for problem in unknown.values()]
    outcomes = iter(_run([*references, *zip(problems, codes, strict=True)]))
    for problem in unknown.values():
        _EXPECTED[problem.id] = tuple(compare.require_values(problem.id, outcome) for outcome in next(outcomes))
    return [_verdict(problem, code, *next(outcomes)) for problem, code in zip(problems, codes, strict=True)]


def _run(pairs: Sequence[tuple[Any, str]]) -> list[list[Outcome]]:
    """Per pair of problem and code the outcomes for the base inputs and for the others."""
    found: list[list[Outcome]] = [[] for _ in pairs]
    for limits in (LIMITS, SLOW_LIMITS):
        places = [i for i, (problem, _) in enumerate(pairs) if (problem.id in SLOW) == (limits is SLOW_LIMITS)]
        programs = [program for i in places for program in _programs(*pairs[i])]
        outcomes = iter(run_programs(programs, limits=limits))
        for i in places:
            found[i] = [next(outcomes), next(outcomes)]
    return found


def _programs(problem: Any, code: str) -> Iterator[Program]:
    whole = code + _SUPPLY.format(entry_point=problem.entry_point, large=LARGE)
    for inputs in (problem.base, problem.plus):
        yield Program(whole, "mixmerge_supply", inputs)


_EXPECTED: dict[str, tuple[Sequence[object], ...]] = {}
"""A problem's id to what its reference gave for the base inputs and for the others."""


def _verdict(problem: Any, code: str, base: Outcome, plus: Outcome) -> dict[str, Any]:
    expected = _EXPECTED.get(problem.id) or (problem.expected, ())
    return {
        "base": compare.passes(problem, problem.base, base, expected[0]),
        "plus": compare.passes(problem, problem.plus, plus, expected[1]),
        "detail": base.detail or plus.detail,
        "code": code,
    }


def plus_and_base(doc: dict[str, str], results: Sequence[Sequence[dict[str, Any]]]) -> dict[str, float]:
    """The share of a doc's responses that pass all tests, and those of the original set alone."""
    return {
        "pass@1": _share(results[0], lambda verdict: verdict["base"] and verdict["plus"]),
        "base_pass@1": _share(results[0], lambda verdict: verdict["base"]),
    }


def pass_at_1(doc: dict[str, str], results: Sequence[Sequence[dict[str, Any]]]) -> dict[str, float]:
    """The share of a doc's responses that pass all of its tests (with one greedy response: 0 or 1)."""
    return {"pass@1": _share(results[0], lambda verdict: verdict["base"])}


def _share(verdicts: Sequence[dict[str, Any]], passed: Callable[[dict[str, Any]], bool]) -> float:
    return sum(map(passed, verdicts)) / len(verdicts)
