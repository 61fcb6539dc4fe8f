"""`demo:list-pipelines`: small programming problems about lists of integers, made here and labelled as a demonstration.

A problem chains two or three operations ("keeps the even numbers, squares each number and returns the sum"). It shows
that a small model has learnt to compose operations that it has seen apart: no set of operations occurs in two splits.
It says nothing about code generation in general.

Expected outputs come from Python functions beside each operation (`Operation.apply`), never from running the solution
text, so a mistake in one does not hide in the other. Nothing here depends on the Python version: choices use
`random.Random(text).random()`, which Python guarantees to be stable, and orders come from SHA-256.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from .list_operations import OPERATIONS, Kind, Operation

Chain = tuple[Operation, ...]

GENERATOR_VERSION = "1"
LICENCE = "CC0-1.0"
SIZES = {"train": 240, "dev": 40, "test": 80}
"""Problems in each split."""


@dataclass(frozen=True)
class Problem:
    """`prompt` is in English, `completion` the code that solves it, `tests` hold an `input` (a list) and `expected`."""

    id: str
    operations: tuple[str, ...]
    prompt: str
    completion: str
    tests: tuple[dict[str, Any], ...]


SHAPES: tuple[tuple[Kind, ...], ...] = (
    ("filter", "reduce"),
    ("map", "reduce"),
    ("order", "reduce"),
    ("filter", "map"),
    ("map", "filter"),
    ("filter", "order"),
    ("map", "order"),
    ("filter", "map", "reduce"),
    ("map", "filter", "reduce"),
    ("order", "map", "reduce"),
    ("filter", "order", "reduce"),
    ("filter", "map", "order"),
    ("order", "filter", "map"),
)
"""Which kinds of operations follow each other; a chain without a reduction returns the list."""

OPENINGS = (
    "Write a function `solve(xs)` that takes a list of integers,",
    "Write `solve(xs)`, which, given a list of integers,",
)
RETURN_LIST = ("returns the list", "returns the resulting list")


def prompt(description: str) -> str:
    """The prompt of training rows and of the lm-eval tasks alike. Ends without white space; the answer starts with one.

    A Markdown fence is how an instruct model answers anyway, and its end tells where the program ends.
    """
    return f"{description}\n```python"


def completion(code: str) -> str:
    """What follows `prompt`: the code between the ends of the fence."""
    return f"\n{code}\n```"


@cache
def problems(split: str) -> tuple[Problem, ...]:
    """The problems of `train`, `dev` or `test`, always the same. Raises KeyError for another split."""
    if split not in SIZES:
        raise KeyError(split)
    pools = [_ordered(shape) for shape in SHAPES]
    taken: set[frozenset[str]] = set()
    for name in ("test", "dev", "train"):  # the held-out splits choose first, so that training may grow
        found = _choose(pools, taken, name)
        if name == split:
            break
    return tuple(found)


def _choose(pools: Sequence[list[Chain]], taken: set[frozenset[str]], split: str) -> list[Problem]:
    """Problems for one split, from every shape in turn, each time of the operations that the split has seen least."""
    used: Counter[str] = Counter()
    found: list[Problem] = []
    for pool in itertools.cycle(pools):
        if len(found) == SIZES[split]:
            return found
        if not pool:
            continue
        chain = min(pool, key=lambda chain: sum(used[operation.name] for operation in chain))
        pool.remove(chain)
        names = frozenset(operation.name for operation in chain)
        problem = None if names in taken else _problem(chain, f"{split}-{len(found)}")
        if problem is not None:
            taken.add(names)
            used.update(names)
            found.append(problem)
    raise AssertionError("unreachable: itertools.cycle does not end")


def outputs(chain: Sequence[tuple[Operation, int]], inputs: Sequence[list[int]]) -> list[Any]:
    """What the chain gives for each input, by `Operation.apply`."""
    results = []
    for xs in inputs:
        value: Any = list(xs)
        for operation, k in chain:
            value = operation.apply(value, k)
        results.append(value)
    return results


def _problem(chain: Chain, id: str) -> Problem | None:
    """The chain as a problem; None when no inputs are found on which each stage matters and the answers vary."""
    names = tuple(operation.name for operation in chain)
    draw = random.Random(f"list-pipelines {GENERATOR_VERSION} {' '.join(names)}")
    bound = [(operation, _pick(draw, operation.ks)) for operation in chain]
    phrases = [_pick(draw, operation.phrases).replace("{k}", str(k)) for operation, k in bound]
    if chain[-1].kind != "reduce":
        phrases.append(_pick(draw, RETURN_LIST))
    opening = _pick(draw, OPENINGS)
    for _ in range(20):  # a draw of inputs fails seldom unless the chain itself is idle (sorting before a sum)
        inputs = _inputs(draw)
        expected = outputs(bound, inputs)
        shorter = [outputs(bound[:i] + bound[i + 1 :], inputs) for i in range(len(bound))]
        if expected not in shorter and _varied(expected):
            return Problem(
                id,
                names,
                prompt(f"{opening} {', '.join(phrases[:-1])} and {phrases[-1]}."),
                completion(_code(bound)),
                tuple({"input": xs, "expected": value} for xs, value in zip(inputs, expected, strict=True)),
            )
    return None


def _varied(expected: Sequence[Any]) -> bool:
    """Whether no constant answer comes near: each truth value at least twice, or at least four different values."""
    if all(isinstance(value, bool) for value in expected):
        return 2 <= expected.count(True) <= len(expected) - 2
    return len({str(value) for value in expected}) >= 4


def _code(chain: Sequence[tuple[Operation, int]]) -> str:
    lines = ["def solve(xs):"]
    for operation, k in chain:
        start = "return" if operation.kind == "reduce" else "xs ="
        lines.append(f"    {start} {operation.code.replace('{k}', str(k))}")
    if chain[-1][0].kind != "reduce":
        lines.append("    return xs")
    return "\n".join(lines)


def _inputs(draw: random.Random) -> list[list[int]]:
    """Eight lists: empty, one element, and six of 4 to 9 numbers from ranges that make some of them repeat."""
    ranges = [(-9, 9), (-9, 9), (-20, 20), (-20, 20), (-4, 4), (0, 12)]
    lists = [[_between(draw, low, high) for _ in range(_between(draw, 4, 9))] for low, high in ranges]
    return [[], [_between(draw, -9, 9)], *lists]


def _ordered(shape: tuple[Kind, ...]) -> list[Chain]:
    """Every chain of a shape, in an order that is arbitrary but fixed."""
    by_kind = [[operation for operation in OPERATIONS if operation.kind == kind] for kind in shape]
    return sorted(
        itertools.product(*by_kind),
        key=lambda chain: hashlib.sha256(" ".join(operation.name for operation in chain).encode()).digest(),
    )


def _pick(draw: random.Random, options: Sequence[Any]) -> Any:
    return options[int(draw.random() * len(options))]


def _between(draw: random.Random, low: int, high: int) -> int:
    return low + int(draw.random() * (high - low + 1))
