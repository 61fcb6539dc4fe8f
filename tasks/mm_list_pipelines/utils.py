"""The list-pipelines demonstration as lm-eval tasks: see `mixmerge.sources.list_pipelines` for the problems."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Sequence
from typing import Any

from mixmerge.sandbox import Limits, Program, run_programs
from mixmerge.sources import list_pipelines

ENTRY_POINT = "solve"
LIMITS = Limits(cpu_s=1.0)  # the lists have nine elements at most; only a loop without an end takes this long


def dataset(**_: Any) -> dict[str, Any]:
    """Both held-out splits; `tests` is JSON text, because expected outputs differ in type. Ignores the metadata."""
    from datasets import Dataset

    return {split: Dataset.from_list([_doc(p) for p in list_pipelines.problems(split)]) for split in ("test", "dev")}


def _doc(problem: list_pipelines.Problem) -> dict[str, str]:
    return {
        "id": problem.id,
        "prompt": problem.prompt,
        "completion": problem.completion,
        "tests": json.dumps(problem.tests),
    }


def extract_code(response: str) -> str:
    """The program in a response to a prompt that has opened a fence: up to the closing fence, and without the last
    lines that do not parse, so that a response cut at its length limit is judged by what is whole."""
    lines = response.split("```", 1)[0].strip("\n").split("\n")
    for end in range(len(lines), 0, -1):
        code = "\n".join(lines[:end])
        try:
            ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return code
    return ""


def judge(responses: Sequence[Sequence[str]], docs: Sequence[dict[str, str]]) -> list[list[dict[str, Any]]]:
    """Run every response of every doc, all in one call of the sandbox.

    A filter of lm-eval: takes and gives one list for each doc. A verdict holds `passed`, the sandbox's `status` and
    `detail`, and the `code` that ran. The sandbox only supplies values; they are compared here.
    """
    tests = [json.loads(doc["tests"]) for doc in docs]
    programs = [
        Program(extract_code(response), ENTRY_POINT, tuple((test["input"],) for test in tests[i]))
        for i, given in enumerate(responses)
        for response in given
    ]
    outcomes = iter(zip(programs, run_programs(programs, limits=LIMITS), strict=True))
    verdicts: list[list[dict[str, Any]]] = []
    for i, given in enumerate(responses):
        verdicts.append([])
        for _ in given:
            program, outcome = next(outcomes)
            expected = [test["expected"] for test in tests[i]]
            passed = outcome.status == "ok" and same(list(outcome.outputs), expected)
            verdicts[-1].append(
                {"passed": passed, "status": outcome.status, "detail": outcome.detail, "code": program.code}
            )
    return verdicts


def same(value: object, expected: object) -> bool:
    """Whether two JSON-like values are equal in type and value at every depth: True is not 1, and 1.0 is not 1."""
    if type(value) is not type(expected):
        return False
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(same, value, expected))
    return value == expected


def pass_at_1(doc: dict[str, str], results: Sequence[Sequence[dict[str, Any]]]) -> dict[str, float]:
    """The share of a doc's responses that pass all of its tests (with one greedy response: 0 or 1)."""
    verdicts = results[0]
    return {"pass@1": sum(verdict["passed"] for verdict in verdicts) / len(verdicts)}


def bits_per_byte(doc: dict[str, str], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Bits that the model needs for the reference completion given the prompt, per UTF-8 byte of it.

    The task's value is the mean over docs, so that it has a standard error and can be paired. Per byte, because a
    task cannot see the tokenizer; between models that share one it differs from bits per token by a factor that
    depends on the doc alone.
    """
    log_likelihood = results[0][0]
    return {"bits_per_byte": -log_likelihood / math.log(2) / len(doc["completion"].encode())}
