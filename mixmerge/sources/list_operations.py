"""The vocabulary of `list_pipelines`: filters, maps, orders and reductions of lists of integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["filter", "map", "order", "reduce"]


@dataclass(frozen=True)
class Operation:
    """One stage. `phrases` and `code` may hold `{k}`, a number drawn from `ks`.

    code   for a reduction the expression that is returned, otherwise the right-hand side of `xs = …`
    apply  (list of int, k) -> list of int, or for a reduction the value that is returned
    """

    name: str
    kind: Kind
    phrases: tuple[str, ...]
    code: str
    apply: Callable[[list[int], int], Any]
    ks: tuple[int, ...] = (0,)


def _sum(xs: list[int]) -> int:
    total = 0
    for x in xs:
        total += x
    return total


def _sort(xs: list[int], sign: int) -> list[int]:
    """Insertion sort, so that the expected outputs do not come from the function that the solution calls."""
    ordered: list[int] = []
    for x in xs:
        place = next((i for i, y in enumerate(ordered) if sign * x < sign * y), len(ordered))
        ordered.insert(place, x)
    return ordered


OPERATIONS = (
    Operation(
        "even",
        "filter",
        ("keeps the even numbers", "keeps only the even numbers", "selects the even numbers"),
        "[x for x in xs if x % 2 == 0]",
        lambda xs, k: list(filter(lambda x: not x & 1, xs)),
    ),
    Operation(
        "odd",
        "filter",
        ("keeps the odd numbers", "keeps only the odd numbers", "selects the odd numbers"),
        "[x for x in xs if x % 2 == 1]",
        lambda xs, k: list(filter(lambda x: x & 1, xs)),
    ),
    Operation(
        "positive",
        "filter",
        ("keeps the positive numbers", "selects the numbers greater than zero"),
        "[x for x in xs if x > 0]",
        lambda xs, k: list(filter(lambda x: x >= 1, xs)),
    ),
    Operation(
        "negative",
        "filter",
        ("keeps the negative numbers", "selects the numbers less than zero"),
        "[x for x in xs if x < 0]",
        lambda xs, k: list(filter(lambda x: x <= -1, xs)),
    ),
    Operation(
        "above",
        "filter",
        ("keeps the numbers greater than {k}", "selects the numbers above {k}"),
        "[x for x in xs if x > {k}]",
        lambda xs, k: list(filter(lambda x: x >= k + 1, xs)),
        (2, 3, 4, 5, 6, 7, 8),
    ),
    Operation(
        "below",
        "filter",
        ("keeps the numbers less than {k}", "selects the numbers below {k}"),
        "[x for x in xs if x < {k}]",
        lambda xs, k: list(filter(lambda x: x <= k - 1, xs)),
        (2, 3, 4, 5, 6, 7, 8),
    ),
    Operation(
        "multiple",
        "filter",
        ("keeps the multiples of {k}", "selects the numbers divisible by {k}"),
        "[x for x in xs if x % {k} == 0]",
        lambda xs, k: list(filter(lambda x: x // k * k == x, xs)),
        (3, 4, 5),
    ),
    Operation(
        "square",
        "map",
        ("squares each number", "multiplies each number by itself", "raises every number to the power of two"),
        "[x * x for x in xs]",
        lambda xs, k: [x**2 for x in xs],
    ),
    Operation(
        "negate",
        "map",
        ("negates each number", "flips the sign of every number"),
        "[-x for x in xs]",
        lambda xs, k: [0 - x for x in xs],
    ),
    Operation(
        "absolute",
        "map",
        ("takes the absolute value of each number", "replaces every number by its absolute value"),
        "[abs(x) for x in xs]",
        lambda xs, k: [max(x, -x) for x in xs],
    ),
    Operation(
        "add",
        "map",
        ("adds {k} to each number", "increases every number by {k}"),
        "[x + {k} for x in xs]",
        lambda xs, k: [sum((x, k)) for x in xs],
        (2, 3, 4, 5, 6, 7, 8, 9),
    ),
    Operation(
        "subtract",
        "map",
        ("subtracts {k} from each number", "decreases every number by {k}"),
        "[x - {k} for x in xs]",
        lambda xs, k: [sum((x, -k)) for x in xs],
        (2, 3, 4, 5, 6, 7, 8, 9),
    ),
    Operation(
        "times",
        "map",
        ("multiplies each number by {k}", "scales every number by {k}"),
        "[x * {k} for x in xs]",
        lambda xs, k: [sum([x] * k) for x in xs],
        (3, 4, 5, 6, 7, 8, 9),
    ),
    Operation(
        "remainder",
        "map",
        ("replaces each number by its remainder modulo {k}", "takes every number modulo {k}"),
        "[x % {k} for x in xs]",
        lambda xs, k: [x - x // k * k for x in xs],
        (3, 4, 5, 6, 7),
    ),
    Operation(
        "halve",
        "map",
        ("halves each number, rounding down", "divides every number by two, rounding down"),
        "[x // 2 for x in xs]",
        lambda xs, k: [x >> 1 for x in xs],
    ),
    Operation(
        "ascending",
        "order",
        ("sorts the list in ascending order", "orders the numbers from smallest to largest"),
        "sorted(xs)",
        lambda xs, k: _sort(xs, 1),
    ),
    Operation(
        "descending",
        "order",
        ("sorts the list in descending order", "orders the numbers from largest to smallest"),
        "sorted(xs, reverse=True)",
        lambda xs, k: _sort(xs, -1),
    ),
    Operation(
        "reverse",
        "order",
        ("reverses the list", "puts the list in reverse order"),
        "xs[::-1]",
        lambda xs, k: list(reversed(xs)),
    ),
    Operation(
        "unique",
        "order",
        ("removes repeated numbers", "keeps only the first occurrence of each number"),
        "list(dict.fromkeys(xs))",
        lambda xs, k: [x for i, x in enumerate(xs) if x not in xs[:i]],
    ),
    Operation(
        "first",
        "order",
        ("keeps the first {k} elements", "cuts the list after {k} elements"),
        "xs[:{k}]",
        lambda xs, k: [x for i, x in enumerate(xs) if i < k],
        (2, 3, 4),
    ),
    Operation(
        "last",
        "order",
        ("keeps the last {k} elements", "keeps only the last {k} elements"),
        "xs[-{k}:]",
        lambda xs, k: [x for i, x in enumerate(xs) if i >= len(xs) - k],
        (2, 3, 4),
    ),
    Operation(
        "skip",
        "order",
        ("drops the first {k} elements", "skips the first {k} elements"),
        "xs[{k}:]",
        lambda xs, k: [x for i, x in enumerate(xs) if i >= k],
        (2, 3),
    ),
    Operation(
        "alternate",
        "order",
        ("keeps every second element, starting with the first", "keeps every other element from the first on"),
        "xs[::2]",
        lambda xs, k: [x for i, x in enumerate(xs) if i % 2 == 0],
    ),
    Operation(
        "sum",
        "reduce",
        ("returns the sum", "returns the total", "adds everything up and returns the result"),
        "sum(xs)",
        lambda xs, k: _sum(xs),
    ),
    Operation(
        "largest",
        "reduce",
        ("returns the largest number, or 0 for an empty list", "returns the maximum, or 0 if nothing is left"),
        "max(xs, default=0)",
        lambda xs, k: _sort(xs, -1)[0] if xs else 0,
    ),
    Operation(
        "smallest",
        "reduce",
        ("returns the smallest number, or 0 for an empty list", "returns the minimum, or 0 if nothing is left"),
        "min(xs, default=0)",
        lambda xs, k: _sort(xs, 1)[0] if xs else 0,
    ),
    Operation(
        "count",
        "reduce",
        ("returns how many numbers there are", "returns the length of the list", "returns the count"),
        "len(xs)",
        lambda xs, k: _sum([1 for _ in xs]),
    ),
    Operation(
        "any_above",
        "reduce",
        ("returns whether any number is greater than {k}", "returns True if some number is above {k}, else False"),
        "any(x > {k} for x in xs)",
        lambda xs, k: bool([x for x in xs if x >= k + 1]),
        (4, 5, 6, 7, 8, 9, 10),
    ),
    Operation(
        "all_below",
        "reduce",
        ("returns whether all numbers are less than {k}", "returns True if every number is below {k}, else False"),
        "all(x < {k} for x in xs)",
        lambda xs, k: not [x for x in xs if x >= k],
        (4, 5, 6, 7, 8, 9, 10),
    ),
)
