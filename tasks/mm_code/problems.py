"""Where the problems come from: EvalPlus' own files, the hub's sets, MBPP's asserts. Executes nothing."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixmerge import SourceError
from mixmerge.sources.files import data_file, read_file

Calls = tuple[tuple[object, ...], ...]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """base, plus  the arguments of each call: of the original set's tests, and of those that EvalPlus adds
    atol        absolute tolerance, 0 for none of its own
    expected    what each call of `base` must return, where the set says so; () to ask the reference
    exact       compare by == alone, as MBPP's asserts do
    """

    id: str
    prompt: str
    entry_point: str
    reference: str
    base: Calls
    plus: Calls = ()
    atol: float = 0.0
    expected: tuple[object, ...] = ()
    exact: bool = False


@dataclass(frozen=True)
class _Set:
    """`local` is a file below MIXMERGE_DATA; `size` is the number of problems, None where some are left out."""

    local: str
    hub: str
    subset: str | None
    split: str
    size: int
    read: Callable[[Iterable[Row]], list[Problem]]


def load(name: str) -> list[Problem]:
    """All problems of a set, in its order. SourceError when the data cannot be had, or is another version."""
    where = _SETS[name]
    try:
        found = where.read(_rows(where))
    except (KeyError, ValueError, SyntaxError, IndexError, TypeError) as error:
        raise SourceError(
            f"the rows of {name} are not as expected ({type(error).__name__}: {error})", hint=_hint(where)
        ) from error
    if len(found) != where.size:
        raise SourceError(f"{name} has {where.size} problems, not {len(found)}", hint=_hint(where))
    return found


def _rows(where: _Set) -> Iterable[Row]:
    folder = os.environ.get("MIXMERGE_DATA")
    if folder:
        try:
            return list(read_file(data_file(f"{folder}/{where.local}")))
        except SourceError as error:
            raise SourceError(error.message, hint=_hint(where)) from error
    import datasets

    try:
        return list(datasets.load_dataset(where.hub, where.subset, split=where.split))
    except Exception as error:  # datasets and huggingface_hub raise some twenty kinds, none of them ours
        first = (str(error).strip().splitlines() or [""])[0]
        raise SourceError(f"cannot load {where.hub} ({type(error).__name__}: {first})", hint=_hint(where)) from error


def _hint(where: _Set) -> str:
    return (
        f"it comes from the hub (or its cache) as {where.hub}, "
        f"or from $MIXMERGE_DATA/{where.local} where that variable names a folder"
    )


def _humaneval_plus(rows: Iterable[Row]) -> list[Problem]:
    return [
        Problem(
            row["task_id"],
            row["prompt"],
            row["entry_point"],
            row["prompt"] + row["canonical_solution"],
            **(_evalplus_inputs(row) if "base_input" in row else _program_inputs(row["test"], _humaneval_base(row))),
        )
        for row in rows
    ]


def _humaneval_base(row: Row) -> int:
    return _HUMANEVAL_BASE[int(row["task_id"].removeprefix("HumanEval/"))]


def _mbpp_plus(rows: Iterable[Row]) -> list[Problem]:
    return [_mbpp_plus_own(row) if "base_input" in row else _mbpp_plus_hub(row) for row in rows]


def _mbpp_plus_own(row: Row) -> Problem:
    return Problem(
        row["task_id"],
        row["prompt"],
        row["entry_point"],
        row["canonical_solution"],
        **_evalplus_inputs(row),
    )


def _mbpp_plus_hub(row: Row) -> Problem:
    """The hub's rows hold no prompt and no name of the function; both are made as EvalPlus makes them."""
    base = _MBPP_BASE.get(row["task_id"], len(row["test_list"]))
    called = re.findall(r"assertion\((\w+)\(\*inp\)", row["test"])
    return Problem(
        f"Mbpp/{row['task_id']}",
        f'"""\n{re.sub("https?://[^ ]+", "", row["prompt"])}\n{row["test_list"][0]}\n"""\n',
        called[-1],
        row["code"],
        **_program_inputs(row["test"], base),
    )


def _evalplus_inputs(row: Row) -> dict[str, Any]:
    change = _argument_types(row["task_id"])
    base, plus = (tuple(tuple(change(call)) for call in row[kind]) for kind in ("base_input", "plus_input"))
    return {"base": base, "plus": plus, "atol": float(row["atol"])}


def _program_inputs(program: str, base: int) -> dict[str, Any]:
    """The inputs that a test program of the hub's sets holds as a literal, and its tolerance.

    It lists the base inputs first and each input once, so that `base` is how many different ones there are.
    """
    tree = ast.parse(program)
    assigned = {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    calls = tuple(map(tuple, _literal(assigned["inputs"])))
    tolerance = re.findall(r"(?:, |<= )([\d.e-]+)\)?\s*$", program)
    return {"base": calls[:base], "plus": calls[base:], "atol": float(tolerance[-1])}


class _Names(ast.NodeTransformer):
    """`inf` and `nan` are names in these programs, not literals."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(float(node.id)) if node.id in ("inf", "nan") else node


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.literal_eval(_Names().visit(node))


# The same for MBPP+, where it is not the number of the row's own asserts.
_MBPP_BASE = {3: 5, 162: 4, 223: 3, 780: 4, 799: 6}

# MBPP+ keeps its inputs as JSON, which has no tuples, sets or complex numbers. Which arguments are which, by problem:
_EACH = frozenset(
    [2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809]
)
_ENTRIES = frozenset([63, 64, 70, 75, 94, 120, 237, 272, 299, 400, 409, 413, 417, 438, 444, 473, 614, 753, 780])
_FIRST = frozenset([250, 307, 405, 446, 617, 720, 763, 808])
_SECOND = frozenset([106, 750])
_DEEP = frozenset([259, 401, 445, 580, 615, 791])


def _argument_types(id: str) -> Callable[[list[Any]], Sequence[object]]:
    """How the arguments of a call get the types that the problem's function takes."""
    number = int(id.rpartition("/")[2]) if id.startswith("Mbpp/") else 0
    by_number: dict[int, Callable[[list[Any]], Sequence[object]]] = {
        115: lambda call: [[set(entry) if entry else {} for entry in call[0]]],  # {} as in EvalPlus, not set()
        124: lambda call: [float(call[0]), complex(call[1])],
        252: lambda call: [complex(call[0])],
        278: lambda call: [tuple(tuple(entry) if isinstance(entry, list) else entry for entry in call[0])],
        722: lambda call: [{key: tuple(value) for key, value in call[0].items()}, *call[1:]],
    }
    if number in by_number:
        return by_number[number]
    if number in _EACH:
        return lambda call: [tuple(value) for value in call]
    if number in _ENTRIES:
        return lambda call: [[*map(tuple, value)] if isinstance(value, list) else value for value in call]
    if number in _FIRST:
        return lambda call: [tuple(call[0]), *call[1:]]
    if number in _SECOND:
        return lambda call: [call[0], tuple(call[1]), *call[2:]]
    return _tuples if number in _DEEP else list


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


# How many of the inputs in the hub's HumanEval+ are HumanEval's own (different ones), by problem; its rows do not say.
# fmt: off
_HUMANEVAL_BASE = (
    7, 4, 3, 6, 3, 3, 3, 4, 5, 4, 5, 3, 3, 4, 3, 3, 5, 5, 4, 5, 5, 5, 3, 3, 5, 8, 3, 3, 3, 2, 4, 12, 99, 7, 1, 2, 8,
    3, 100, 10, 9, 5, 3, 9, 12, 3, 4, 5, 7, 7, 100, 7, 6, 105, 7, 5, 12, 8, 4, 5, 5, 12, 5, 7, 7, 5, 8, 7, 8, 25, 9,
    9, 6, 8, 9, 4, 10, 9, 7, 4, 8, 6, 16, 5, 5, 4, 7, 6, 7, 8, 6, 6, 10, 5, 9, 7, 10, 8, 7, 5, 5, 6, 8, 12, 4, 5, 4,
    8, 8, 5, 7, 7, 9, 3, 12, 5, 7, 7, 13, 12, 11, 7, 5, 4, 16, 8, 13, 8, 8, 10, 10, 7, 14, 12, 10, 5, 11, 8, 8, 4,
    5, 26, 11, 7, 12, 6, 7, 4, 7, 7, 10, 7, 4, 9, 6, 8, 14, 11, 10, 6, 3, 8, 4, 4,
)
# fmt: on
MBPP_PLUS_IN_VALIDATION = frozenset(
    [*range(554, 561), *range(562, 570), 572, 573, *range(576, 582), 583, *range(585, 595), *range(596, 601)]
)
"""The validation problems (511-600) that MBPP+ took."""


def _mbpp_dev(rows: Iterable[Row]) -> list[Problem]:
    """Validation problems with their asserts as calls and values. Of 153 asserts the 3 of problem 533 hold something
    else than literals; so 50 of the 51 problems are left."""
    kept = (row for row in rows if 511 <= row["task_id"] <= 600 and row["task_id"] not in MBPP_PLUS_IN_VALIDATION)
    return [problem for row in kept if (problem := _from_asserts(row)) is not None]


def _from_asserts(row: Row) -> Problem | None:
    tests = [test for text in row["test_list"] if (test := _equation(text)) is not None]
    if not tests:
        return None
    return Problem(
        f"Mbpp/{row['task_id']}",
        f'"""\n{row["text"]}\n{row["test_list"][0]}\n"""\n',
        tests[0][0],
        row["code"],
        base=tuple(call for _, call, _ in tests),
        expected=tuple(value for _, _, value in tests),
        exact=True,
    )


def _equation(text: str) -> tuple[str, tuple[object, ...], object] | None:
    """`assert name(literal, …) == literal` as (name, arguments, value); None for anything else."""
    statement = ast.parse(text).body[0]
    if not isinstance(statement, ast.Assert) or not isinstance(test := statement.test, ast.Compare):
        return None
    call = test.left
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.keywords:
        return None
    if len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
        return None
    try:
        return call.func.id, tuple(map(_literal, call.args)), _literal(test.comparators[0])
    except ValueError:
        return None


_SETS = {
    "humaneval_plus": _Set(
        "humaneval_plus/HumanEvalPlus.jsonl.gz", "evalplus/humanevalplus", None, "test", 164, _humaneval_plus
    ),
    "mbpp_plus": _Set("mbpp_plus/MbppPlus.jsonl.gz", "evalplus/mbppplus", None, "test", 378, _mbpp_plus),
    "mbpp_dev": _Set("mbpp/mbpp.jsonl", "google-research-datasets/mbpp", "full", "validation", 50, _mbpp_dev),
}
