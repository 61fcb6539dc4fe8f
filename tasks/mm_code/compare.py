"""EvalPlus' rules for whether an output is right, where it is not the expected one byte for byte.

Written anew from arXiv 2305.01210 and EvalPlus' source. One deviation: its oracle for HumanEval/32 sees inputs that the
candidate may have changed, ours the original ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

FLOAT_TOLERANCE = 1e-6
"""Absolute, once a problem that has none of its own has expected a float; the relative one is 1e-7 throughout."""

AS_SETS = frozenset(
    [
        *("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly"),
        *("larg_nnum", "intersection_array", "find_dissimilar", "Diff"),
    ]
)
NOT_NONE = frozenset(["check_str", "text_match_three", "text_starta_endb"])
"""Functions that return a match or a truth: all that is asked is whether there is one."""

Expected = Callable[[int], Any]
"""The expected output of a call, loaded when it is asked for."""


def expected_outputs(problem: Any, outputs: Sequence[object]) -> list[object]:
    """What the reference's outputs ask of a candidate's."""
    asked = problem.family == "mbpp" and problem.entry_point in NOT_NONE
    return [output is not None for output in outputs] if asked else list(outputs)


def tolerances(problem: Any, expected: Sequence[object]) -> list[tuple[float, float]]:
    """Per call the tolerance that a special rule sees, and the one for nearness: once set it stays for later calls."""
    found, now = [], float(problem.atol)
    for wanted in expected:
        before = now
        if now == 0 and is_floats(wanted):
            now = FLOAT_TOLERANCE
        found.append((before, now))
    return found


def agreement(
    problem: Any, calls: Sequence[Any], expected: Expected, allowed: Sequence[tuple[float, float]]
) -> Callable[[int, object], bool]:
    """The function that `mixmerge.sandbox.pack` takes. The values are a stranger's: comparing them may raise, which
    the sandbox takes for a failure."""
    oracle = _SPECIAL[problem.family].get(problem.entry_point, _equal)
    find_zero = oracle is _find_zero

    def agrees(index: int, given: Any) -> bool:
        wanted = None if find_zero else expected(index)
        before, tolerance = allowed[index]
        if oracle(calls[index], given, wanted, before):
            return True
        return bool(tolerance) and not find_zero and _near(given, wanted, tolerance)

    return agrees


def is_floats(value: object) -> bool:
    """A float, or a list or tuple of nothing but floats; not an empty one."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(entry, float) for entry in value)
    return isinstance(value, float)


def _near(given: Any, wanted: Any, tolerance: float) -> bool:
    import numpy as np

    if type(given) is not type(wanted) or (isinstance(wanted, list | tuple) and len(given) != len(wanted)):
        return False
    return bool(np.allclose(given, wanted, rtol=1e-7, atol=tolerance))


Oracle = Callable[[Sequence[Any], Any, Any, float], bool]


def _equal(call: Sequence[Any], given: Any, wanted: Any, tolerance: float) -> bool:
    return bool(given == wanted)


def _as_sets(call: Sequence[Any], given: Any, wanted: Any, tolerance: float) -> bool:
    return set(given) == set(wanted)


def _not_none(call: Sequence[Any], given: Any, wanted: Any, tolerance: float) -> bool:
    return bool(wanted == (given if isinstance(given, bool) else given is not None))


def _find_zero(call: Sequence[Any], given: Any, wanted: Any, tolerance: float) -> bool:
    """HumanEval/32: any root of the polynomial, whose coefficients begin with the constant."""
    return abs(sum(coefficient * math.pow(given, i) for i, coefficient in enumerate(call[0]))) <= tolerance


def _surface_area(call: Sequence[Any], given: Any, wanted: Any, tolerance: float) -> bool:
    """Mbpp/581 does not say whether the height of the pyramid is slanted (the reference) or upright."""
    edge, height = call
    upright = round(edge**2 + 2 * edge * math.sqrt((edge / 2) ** 2 + height**2))
    return bool(given == wanted) or abs(given - upright) <= tolerance


def _digit_distance(call: Sequence[Any], given: Any, wanted: Any, tolerance: float) -> bool:
    """Mbpp/558: digit by digit, or (the reference) the digits of the difference."""
    if given == wanted:
        return True
    first, second = map(str, call)
    width = max(len(first), len(second))
    pairs = zip(first.zfill(width), second.zfill(width), strict=True)
    return bool(given == sum(abs(int(a) - int(b)) for a, b in pairs))


_SPECIAL: Mapping[str, Mapping[str, Oracle]] = {
    "humaneval": {"find_zero": _find_zero},
    "mbpp": {
        **dict.fromkeys(AS_SETS, _as_sets),
        **dict.fromkeys(NOT_NONE, _not_none),
        "surface_Area": _surface_area,
        "digit_distance_nums": _digit_distance,
        "are_equivalent": lambda call, given, wanted, tolerance: True,  # Mbpp/164 cannot be told from its text
        "sum_div": lambda call, given, wanted, tolerance: bool(given == wanted) or bool(given == 0),  # Mbpp/295, too
    },
}
