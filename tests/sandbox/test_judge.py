"""Verdicts by data and by tests, values, limits in CPU time, and what a host must grant. Attacks: tests/adversarial."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from mixmerge import SandboxError
from mixmerge.sandbox import (
    Cases,
    Digest,
    Job,
    Limits,
    Opaque,
    Program,
    Raised,
    Tests,
    check,
    isolation,
    judge,
    pack,
    probe,
    run_programs,
)

DOUBLE = "def f(x):\n    return 2 * x\n"
CASES = pack([(1,), (2,), ("ab",)], [2, 4, "abab"], [4.0] * 3)
TESTS = Tests("def check(candidate):\n    assert candidate(1) == 2\n    assert candidate('ab') == 'abab'\n", check=True)
SHORT = Limits(cpu_s=0.5, idle_s=0.5)
LOOP = "def f(x):\n    while True:\n        pass\n"
STUBBORN = (
    "def f(x):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass\n"
)


def statuses(codes: list[str], against: Cases | Tests, limits: Limits = SHORT) -> list[str]:
    return [verdict.status for verdict in judge([Job(code, "f", against, limits) for code in codes])]


def test_right_and_wrong() -> None:
    codes = [DOUBLE, "def f(x): return x", "def g(x): return 2 * x", "def f(x) return", "raise ValueError", ""]
    for against in (CASES, TESTS):
        assert statuses(codes, against) == ["pass", *["fail"] * 5]


def test_a_verdict_says_how_it_was_reached_and_why() -> None:
    wrong, loading = judge(
        [Job(code, "f", CASES) for code in ("def f(x): return 2 if x == 1 else 5", "import nothing")]
    )
    assert (wrong.by, wrong.passed, wrong.detail) == ("data", 1, "call 1: a wrong value: 5")
    assert "ModuleNotFoundError" in loading.detail
    split = judge([Job("def f(x): return 0", "f", TESTS)])[0]
    assert (split.by, split.status) == ("split", "fail")
    assert split.detail.startswith("AssertionError")


def test_where_bytes_differ_the_caller_decides() -> None:
    asked: list[tuple[int, object]] = []

    def near(index: int, value: object) -> bool:
        asked.append((index, value))
        return isinstance(value, float) and abs(value - [1.0, 2.0][index]) < 0.1

    cases = pack([(1.0,), (2.0,)], [1.0, 2.0], [4.0, 4.0], near)
    assert statuses(["def f(x): return x + 0.01", "def f(x): return x", "def f(x): return x + 1"], cases) == [
        *("pass", "pass", "fail")
    ]
    assert sorted(asked) == [(0, 1.01), (0, 2.0), (1, 2.01)]  # nothing was asked of the second

    def careless(index: int, value: object) -> bool:
        raise RuntimeError("cannot be compared")

    assert statuses(["def f(x): return None"], pack([(1,)], [1], [4.0], careless)) == ["fail"]


def test_values_of_other_forms_are_compared_by_value() -> None:
    wanted = [[1, 2], {"a": 1, "b": 2}, {1, 2, 3}, "x" * 1000, (1.5, None)]
    cases = pack([(i,) for i in range(5)], wanted, [4.0] * 5)
    same = "def f(i): return [[1.0, 2.0], {'b': 2, 'a': 1}, {3, 2, 1}, 'x' * 1000, (1.5, None)][i]"
    other = "def f(i): return [[1, 2], {'a': 1, 'b': 2}, {1, 2, 3}, 'x' * 1001, (1.5, None)][i]"
    tuples = "def f(i): return [(1, 2), {'a': 1, 'b': 2}, {1, 2, 3}, 'x' * 1000, (1.5, None)][i]"
    assert statuses([same, other, tuples], cases) == ["pass", "fail", "fail"]


def test_a_difference_late_in_a_long_batch_is_found() -> None:
    n = 20_000
    cases = pack([(i,) for i in range(n)], list(range(n)), [4.0] * n)
    codes = [
        "def f(x): return x",
        f"def f(x): return x if x != {n - 1} else 0",
        "def f(x): return float(x) if x % 1000 == 7 else x",
        f"import os\ndef f(x): return x if x != {n - 1} else os._exit(0)",
    ]
    verdicts = judge([Job(code, "f", cases) for code in codes])
    assert [verdict.status for verdict in verdicts] == ["pass", "fail", "pass", "fail"]
    assert verdicts[1].passed == n - 1


def test_limits_are_cpu_time_of_a_call_of_all_and_of_waiting() -> None:
    cases = pack([(1,)], [2], [0.3])
    for against in (cases, TESTS):
        verdicts = judge([Job(code, "f", against, SHORT) for code in (LOOP, STUBBORN)])
        assert [verdict.status for verdict in verdicts] == ["timeout", "timeout"]
        assert all("CPU time" in verdict.detail for verdict in verdicts)
        assert all(verdict.cpu_s < 2 for verdict in verdicts)
        sleeper = judge([Job("import time\ndef f(x): time.sleep(60)", "f", against, SHORT)])[0]
        assert (sleeper.status, sleeper.detail.endswith("no progress for 0.5 s")) == ("timeout", True)
    within = "def f(x):\n    import time\n    while time.process_time() < 0.3: pass\n    return 2 * x"
    assert statuses([within], TESTS, Limits(cpu_s=2)) == ["pass"]


def test_tests_get_helpers_from_the_prompt_and_never_a_builtin_from_the_candidate() -> None:
    helped = Tests("assert f(helper(1)) == 4", prompt="def helper(x):\n    return x + 1\n")
    assert statuses([DOUBLE, DOUBLE + "def helper(x): return 0"], helped) == ["pass", "pass"]
    absolute = Tests("assert abs(f(1) - 5) < 1")
    assert statuses(["def f(x): return 0\ndef abs(x): return 0"], absolute) == ["fail"]
    named_sum = [Job("def sum(x): return x + 1", "sum", Tests("assert sum(1) == 2"))]
    assert judge(named_sum)[0].status == "pass"


def test_tests_use_classes_and_modules_of_the_candidate() -> None:
    pair = "class Pair:\n    def __init__(self, a): self.a = a\ndef f(pairs): return sum(p.a for p in pairs)"
    assert statuses([pair], Tests("assert f([Pair(1), Pair(2)]) == 3")) == ["pass"]
    assert statuses(["import math\ndef f(x): return math.pi * x"], Tests("assert f(1) == math.pi")) == ["pass"]
    generator = "def f(n):\n    yield from range(n)"
    assert statuses([generator], Tests("assert list(f(3)) == [0, 1, 2]")) == ["pass"]


def test_exceptions_cross_as_builtin_ones() -> None:
    tests = Tests("try:\n    f(1)\nexcept ValueError as e:\n    assert 'no' in str(e)\nelse:\n    assert False")
    own = "class Mine(ValueError): pass\ndef f(x): raise Mine('no')"
    assert statuses([own, DOUBLE, "import sys\ndef f(x): sys.exit(0)"], tests) == ["pass", "fail", "fail"]
    loop = Tests("assert all(map(lambda x: f(x) == 2 * x, [1, 2]))")
    assert statuses(["def f(x): raise StopIteration"], loop) == ["fail"]


def test_a_test_that_passes_a_function_is_named() -> None:
    verdict = judge([Job("def f(g): return g(1)", "f", Tests("assert f(lambda x: x) == 1"))])[0]
    assert verdict.status == "fail"
    assert "passes a function" in verdict.detail


def test_programs_supply_values() -> None:
    code = "def f(x):\n    if x == 3: raise KeyError('no')\n    return {1: {'a': (1, 2.5)}, 2: print}.get(x, 'y' * x)"
    outcome = run_programs([Program(code, "f", ((1,), (2,), (3,), (2_000_000,)))])[0]
    assert outcome.status == "ok"
    first, second, third, last = outcome.outputs
    assert first == {"a": (1, 2.5)}
    assert isinstance(second, Opaque)
    assert third == Raised("KeyError", "'no'")
    assert isinstance(last, Digest)
    assert last.size > 2_000_000
    assert len(outcome.seconds) == 4
    assert "resource limits" in outcome.isolation
    same = pack([(2_000_000,)], [last], [4.0])
    assert statuses([code, code.replace("'y'", "'z'")], same) == ["pass", "fail"]


def test_a_program_that_does_not_end_well() -> None:
    ended, much, loops = run_programs(
        [
            Program("import os\ndef f(x): return x if x else os._exit(0)", "f", ((1,), (0,), (2,))),
            Program("def f(x): return [0.1] * 10_000", "f", ((1,),) * 100),
            Program(LOOP, "f", ((1,),)),
        ],
        limits=Limits(cpu_s=0.5, output_kb=100),
    )
    assert (ended.status, ended.outputs, ended.detail) == ("error", (), "its process ended with status 0")
    assert (much.status, much.detail) == ("error", "more than 100 KiB of output")
    assert loops.status == "timeout"


def test_order_workers_and_progress() -> None:
    told: list[tuple[int, int]] = []
    jobs = [Job(DOUBLE if i % 3 else "def f(x): return 0", "f", CASES) for i in range(20)]
    verdicts = judge(jobs, workers=3, progress=lambda done, total: told.append((done, total)))
    assert [verdict.status for verdict in verdicts] == ["pass" if i % 3 else "fail" for i in range(20)]
    assert told[-1] == (20, 20)
    assert judge([]) == []


@pytest.mark.parametrize("without", [(), ("namespaces",), ("namespaces", "landlock"), ("nobody", "namespaces")])
def test_every_level_tells_right_from_wrong(without: tuple[str, ...]) -> None:
    jobs = [Job(code, "f", against, SHORT) for code in (DOUBLE, "def f(x): return x") for against in (CASES, TESTS)]
    assert [verdict.status for verdict in judge(jobs, without=without)] == ["pass", "pass", "fail", "fail"]


@pytest.mark.skipif(isolation(("namespaces",)).level < 2, reason="no Landlock and seccomp here")
@pytest.mark.parametrize("without", [(), ("namespaces",)])
def test_no_probe_is_open_from_level_2_on(without: tuple[str, ...]) -> None:
    assert [one.what for one in (*probe(without), *check(without)) if not one.ok] == []


def test_less_isolation_than_is_required_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    limits_only = ("namespaces", "landlock", "seccomp")
    assert isolation(limits_only).level == 0
    with pytest.raises(SandboxError, match="level 0") as error:
        judge([Job(DOUBLE, "f", CASES)], without=limits_only)
    assert "MIXMERGE_ALLOW_UNSANDBOXED" in error.value.hint
    monkeypatch.setenv("MIXMERGE_ALLOW_UNSANDBOXED", "1")
    assert judge([Job(DOUBLE, "f", CASES)], without=limits_only)[0].status == "pass"
    monkeypatch.setenv("MIXMERGE_REQUIRE_ISOLATION", "3")
    with pytest.raises(SandboxError, match="3 is required"):
        judge([Job(DOUBLE, "f", CASES)], without=("namespaces",))
    monkeypatch.setenv("MIXMERGE_REQUIRE_ISOLATION", "high")
    with pytest.raises(SandboxError, match="MIXMERGE_REQUIRE_ISOLATION"):
        judge([Job(DOUBLE, "f", CASES)])


def test_it_needs_neither_torch_nor_numpy() -> None:
    code = "import sys, mixmerge.sandbox; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_waiting_for_a_cpu_is_not_idling() -> None:
    """Eight at a time on however few cores: each needs 0.4 s, may take 1 s of CPU time, and may idle for 1 s."""
    code = "import time\ndef f(x):\n    while time.process_time() < 0.4: pass\n    return 2 * x"
    began = time.monotonic()
    verdicts = judge([Job(code, "f", CASES, Limits(cpu_s=1, idle_s=1))] * 16, workers=8)
    assert [verdict.status for verdict in verdicts] == ["pass"] * 16, time.monotonic() - began


DEAF = """
import os, struct, time
os.write(3, struct.pack("<I", 11) + b'["r",["f"]]')
time.sleep(60)
"""
TALKS = """
import os, struct
def f(x):
    os.write(3, struct.pack("<I", 3) + bytes([109, 0, 0]))
    while True:
        os.write(3, struct.pack("<I", 1 << 18) + b"m" * (1 << 18))
"""


def test_a_candidate_that_reads_nothing_or_never_stops_talking_is_ended() -> None:
    large = pack([([0] * 500_000,)], [1], [4.0])
    deaf = judge([Job(DEAF, "f", large, SHORT)])[0]
    assert (deaf.status, deaf.detail) == ("timeout", "no progress for 0.5 s")
    talks = judge([Job(TALKS, "f", CASES, SHORT)])[0]
    assert (talks.status, talks.detail) == ("fail", "a reply that cannot be read: more than was asked for")


def test_each_job_keeps_its_own_limit_on_files() -> None:
    code = """
import time
def f(x):
    for number in range(24):
        with open(f"file{number}", "wb") as file:
            file.write(bytes(1 << 20))
    time.sleep(0.3)
    return 2 * x
"""
    jobs = [Job(code, "f", pack([(1,)], [2], [4.0]), Limits(file_mb=size)) for size in (8, 64)]
    assert [verdict.status for verdict in judge(jobs, workers=1)] == ["fail", "pass"]


def test_a_long_call_after_short_ones_has_its_own_limit() -> None:
    code = """
import time
def f(x):
    end = time.process_time() + (1.5 if x == 30 else 0)
    while time.process_time() < end: pass
    return 2 * x
"""
    cases = pack([(x,) for x in range(31)], [2 * x for x in range(31)], [0.2] * 30 + [4.0])
    assert statuses([code], cases, Limits(cpu_s=8)) == ["pass"]


@pytest.mark.parametrize("without", [(), ("namespaces",)])
def test_numpy_can_be_imported_late_and_nothing_beside_it(without: tuple[str, ...]) -> None:
    """Whatever environment it is installed in: by a name that the text does not hold, and by the test alone."""
    pytest.importorskip("numpy")
    late = "import importlib\ndef f(x): return importlib.import_module('num' + 'py').int64(2 * x)"
    other = "import importlib\ndef f(x): return 2 * x if importlib.import_module('pyte' + 'st') else 0"
    cases = pack([(1,)], [2], [4.0])
    verdicts = judge([Job(late, "f", cases), Job(other, "f", cases)], without=without)
    assert [verdict.status for verdict in verdicts] == ["pass", "fail"], verdicts
    tested = Tests("import numpy as np\nassert np.allclose(np.array(f(1)), 2)")
    assert judge([Job(DOUBLE, "f", tested)], without=without)[0].status == "pass"


def test_a_candidate_without_the_function_is_told_so() -> None:
    assert judge([Job("def g(x): return 2 * x", "f", CASES)])[0].detail == "defines no f"
    outcome = run_programs([Program("def g(x): return 2 * x", "f", ((1,),))])[0]
    assert (outcome.status, outcome.detail) == ("error", "defines no f")
    assert "'f'" in judge([Job("def g(x): return 2 * x", "f", TESTS)])[0].detail
    made = ["f = lambda x: 2 * x", "globals()['f'] = lambda x: 2 * x", "from operator import neg as f"]
    assert statuses(made, CASES) == ["pass", "pass", "fail"]


@pytest.mark.parametrize("inputs", [(1, 2), ("ab",), [3]])
def test_arguments_that_are_no_tuples_are_refused_at_once(inputs: tuple[object, ...]) -> None:
    with pytest.raises(TypeError, match=r"call 0 is .*, not the tuple of its arguments"):
        Program(DOUBLE, "f", inputs)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="call 0 is"):
        pack(inputs, [1] * len(inputs), [1.0] * len(inputs))  # type: ignore[arg-type]
