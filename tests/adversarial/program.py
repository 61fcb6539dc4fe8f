"""What an attack, an honest program and the problem that they answer are: data, nothing runs here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Call = tuple[object, ...]

# EvalPlus' own comparison, as it stands in the test programs of HumanEval+ and MBPP+
_PLUS = """
import numpy as np

def is_floats(x) -> bool:
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)):
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False

def assertion(out, exp, atol):
    exact_match = out == exp
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not exact_match and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact_match
"""
_NAMES = "import datetime\nfrom decimal import Decimal\nfrom fractions import Fraction\ninf = float('inf')"
"""What the repr of an expected value may need."""


@dataclass(frozen=True)
class Form:
    """A test program of a problem. Its texts may hold placeholders, which the stage fills in."""

    test: str
    prompt: str = ""
    check: bool = False
    numpy: bool = False


@dataclass(frozen=True)
class Problem:
    """Calls of `f` and what they must give. Every problem is also asked as test programs, written from the same data.

    `tests` takes the place of those where an attack needs a test of a certain kind; `data` says whether outputs are
    compared as data as well.
    """

    calls: tuple[Call, ...]
    expected: tuple[object, ...]
    entry_point: str = "f"
    tests: Mapping[str, Form] | None = None
    data: bool = True

    def forms(self) -> dict[str, Form]:
        return dict(self.tests) if self.tests is not None else _written(self)

    def right(self) -> str:
        """A program that knows the answers: every form of every problem must pass it, or its failures say nothing."""
        table = {repr(call): value for call, value in zip(self.calls, self.expected, strict=True)}
        return f"_ANSWERS = {table!r}\ndef {self.entry_point}(*call):\n    return _ANSWERS[repr(call)]\n"


def _written(problem: Problem) -> dict[str, Form]:
    name, pairs = problem.entry_point, list(zip(problem.calls, problem.expected, strict=True))
    arguments = [", ".join(map(repr, call)) for call, _ in pairs]
    lines = [f"({text}) == {value!r}" for text, (_, value) in zip(arguments, pairs, strict=True)]
    check = "\n".join(
        [_NAMES, "def check(candidate):", *(f"    assert candidate{line}, 'a message'" for line in lines)]
    )
    loop = f"\nfor i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion({name}(*inp), exp, 0)\n"
    inputs = f"inputs = {[list(call) for call in problem.calls]!r}\nresults = {list(problem.expected)!r}"
    return {
        "check": Form(check, check=True),
        "asserts": Form("\n".join([_NAMES, *(f"assert {name}{line}" for line in lines)])),
        "plus": Form("\n".join([_NAMES, _PLUS, inputs, loop]), numpy=True),
    }


@dataclass(frozen=True)
class Attack:
    """A program that must not pass.

    `fools` names the naive judges that do pass it, so that it is known to be an attack. `level` is the lowest level
    of isolation that promises to stop it; `machine` the only processor that it is written for.
    """

    name: str
    why: str
    code: str
    problem: Problem
    fools: tuple[str, ...] = ()
    status: tuple[str, ...] = ("fail", "timeout")
    limits: Mapping[str, float] = field(default_factory=dict)
    level: int = 1
    machine: str = ""
    numpy: bool = False
    slow: bool = False


@dataclass(frozen=True)
class Honest:
    """A program that must pass, where the level of isolation leaves it what it needs."""

    name: str
    why: str
    code: str
    problem: Problem
    limits: Mapping[str, float] = field(default_factory=dict)
    level: int = 1
    numpy: bool = False
    slow: bool = False


def asserted(*lines: str, calls: tuple[Call, ...] = (), expected: tuple[object, ...] = (), **form: str) -> Problem:
    """A problem of assert lines only; `calls` and `expected` are for the program that knows the answers."""
    return Problem(calls, expected, tests={"asserts": Form("\n".join(lines), **form)}, data=False)  # type: ignore[arg-type]
