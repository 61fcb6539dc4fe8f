"""EvalPlus' rules for whether a program passes: given what it returned, and what the reference did, call by call."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mixmerge import SourceError
from mixmerge.sandbox import Outcome, Raised

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


def passes(problem: Any, inputs: Sequence[Any], outcome: Outcome, expected: Sequence[object]) -> bool:
    """Whether every call returned, and what it should. The values are a stranger's: comparing them may raise."""
    if outcome.status != "ok" or len(outcome.outputs) != len(inputs):
        return False
    tolerance = problem.atol
    for call, given, wanted in zip(inputs, outcome.outputs, expected, strict=True):
        if isinstance(given, Raised):
            return False
        try:
            exact = _oracle(problem)(call, given, wanted, tolerance)
            if tolerance == 0 and not problem.exact and _is_floats(wanted):
                tolerance = FLOAT_TOLERANCE
            if not exact and not (tolerance and problem.entry_point != "find_zero" and _near(given, wanted, tolerance)):
                return False
        except Exception:
            return False
    return True


def require_values(problem: str, outcome: Outcome) -> Sequence[object]:
    """The reference's outputs. SourceError when it did not run to its end: then nothing can be judged."""
    raised = next((output for output in outcome.outputs if isinstance(output, Raised)), None)
    if outcome.status != "ok" or raised is not None:
        raise SourceError(
            f"the reference solution of {problem} does not run here: {outcome.detail or raised}",
            hint="is the data whole, or the machine too busy? `mixmerge doctor` shows the sandbox",
        )
    return outcome.outputs


Oracle = Callable[[Sequence[Any], Any, Any, float], bool]


def _oracle(problem: Any) -> Oracle:
    name = problem.entry_point
    if problem.exact or name not in _SPECIAL:
        return lambda call, given, wanted, tolerance: bool(given == wanted)
    return _SPECIAL[name]


def _as_sets(call: Sequence[Any], given: Any, wanted: Any, tolerance: float) -> bool:
    return set(given) == set(wanted)


def _not_none(call: Sequence[Any], given: Any, wanted: Any, tolerance: float) -> bool:
    found = wanted if isinstance(wanted, bool) else wanted is not None
    return bool(found == (given if isinstance(given, bool) else given is not None))


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
    first, second = map(str, call)
    width = max(len(first), len(second))
    pairs = zip(first.zfill(width), second.zfill(width), strict=True)
    return bool(given == wanted) or given == sum(abs(int(a) - int(b)) for a, b in pairs)


_SPECIAL: Mapping[str, Oracle] = {
    **dict.fromkeys(AS_SETS, _as_sets),
    **dict.fromkeys(NOT_NONE, _not_none),
    "find_zero": _find_zero,
    "surface_Area": _surface_area,
    "digit_distance_nums": _digit_distance,
    "are_equivalent": lambda call, given, wanted, tolerance: True,  # Mbpp/164 cannot be told from its text
    "sum_div": lambda call, given, wanted, tolerance: bool(given == wanted) or given == 0,  # Mbpp/295, likewise
}


def _is_floats(value: object) -> bool:
    """A float, or a list or tuple of nothing but floats; an empty one counts."""
    return isinstance(value, float) or (
        isinstance(value, list | tuple) and all(isinstance(entry, float) for entry in value)
    )


def _near(given: Any, wanted: Any, tolerance: float) -> bool:
    import numpy as np

    if type(given) is not type(wanted) or (isinstance(wanted, list | tuple) and len(given) != len(wanted)):
        return False
    return bool(np.allclose(given, wanted, rtol=1e-7, atol=tolerance))
