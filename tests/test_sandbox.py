"""Hostile and honest programs. None may harm the host, forge a value, disturb another, or be judged wrongly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixmerge.sandbox import Limits, Opaque, Outcome, Program, Raised, _run_all, isolation, run_programs

QUICK = Limits(cpu_s=0.3, wall_s=0.8)
GOOD = Program("def f(x):\n    return x + 1", "f", ((1,), (41,)))
# with all of these left out, the end of the group and of adopted orphans is all there is
BARE = ("namespaces", "landlock", "seccomp", "no-capabilities")


def one(code: str, *inputs: tuple[object, ...], limits: Limits = QUICK, without: tuple[str, ...] = ()) -> Outcome:
    """The outcome of `code`'s function f, with an honest program before and after it that must not notice."""
    before, outcome, after = _run_all([GOOD, Program(code, "f", inputs or ((),)), GOOD], limits, 1, without)
    assert before.outputs == after.outputs == (2, 42)
    assert (before.status, after.status) == ("ok", "ok"), after
    return outcome


def processes(marker: str) -> list[int]:
    """Processes with `marker` in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def gone(marker: str, within_s: float = 3.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not processes(marker):
            return True
        time.sleep(0.02)
    return False


def test_values_travel_as_what_they_are() -> None:
    values = (
        None, True, 0, -(2**70), 10**5000, 0.1, float("inf"), "é\ud800\n", b"\x00", [1, [2.5]], (1,), {1: {"a": ()}},
        {(1, 2): [3]}, {1, 2}, frozenset({"x"}), 1j,
    )  # fmt: skip
    outcome = one("def f(x):\n    return x", *((value,) for value in values))
    assert outcome.status == "ok"
    assert outcome.outputs == values
    assert [type(output) for output in outcome.outputs] == [type(value) for value in values]
    assert one("def f():\n    return float('nan')").outputs[0] != 0.0


def test_subclasses_travel_as_their_data() -> None:
    code = """
    import collections, enum
    def f():
        point = collections.namedtuple("P", "x y")(1, 2)
        return point, collections.Counter("aab"), collections.OrderedDict(a=1), enum.IntEnum("E", "A").A
    """.replace("\n    ", "\n")
    assert one(code).outputs == (((1, 2), {"a": 2, "b": 1}, {"a": 1}, 1),)


def test_honest_programs_of_many_kinds() -> None:
    deep = "import sys\nsys.setrecursionlimit(10000)\ndef f(n):\n    return 0 if n == 0 else 1 + f(n - 1)"
    assert one(deep, (5000,), limits=Limits()).outputs == (5000,)
    threads = """
import threading
def f():
    seen = []
    workers = [threading.Thread(target=seen.append, args=(i,)) for i in range(4)]
    for w in workers: w.start()
    for w in workers: w.join()
    return sorted(seen)
"""
    assert one(threads, limits=Limits()).outputs == ([0, 1, 2, 3],)
    files = """
import tempfile
def f():
    with tempfile.TemporaryFile("w+") as h:
        h.write("x")
        h.seek(0)
        return h.read()
"""
    assert one(files, limits=Limits()).outputs == ("x",)
    data_class = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f():\n    return P(3).x"
    assert one(data_class, limits=Limits()).outputs == (3,)
    coroutine = "import asyncio\nasync def g():\n    return 7\ndef f():\n    return asyncio.run(g())"
    assert one(coroutine, limits=Limits()).outputs == (7,)


def test_a_program_runs_the_same_way_every_time() -> None:
    code = "import random\ndef f():\n    return [random.random(), list({'a', 'b', 'c', 'd'})]"
    first, second = run_programs([Program(code, "f", ((),))] * 2, workers=2)
    assert first.outputs == second.outputs


def test_outcomes_keep_the_order() -> None:
    programs = [Program("def f(x):\n    return x * x", "f", ((i,),)) for i in range(12)]
    assert [outcome.outputs for outcome in run_programs(programs, workers=3)] == [(i * i,) for i in range(12)]
    assert run_programs([]) == []


def test_each_input_has_its_own_exception() -> None:
    outcome = one("def f(x):\n    return 1 // x", (1,), (0,), (-1,))
    assert outcome.status == "ok"
    assert outcome.outputs == (1, Raised("ZeroDivisionError", "integer division or modulo by zero"), -1)
    own = one("class Mine(KeyError):\n    pass\ndef f():\n    raise Mine('no')")
    assert own.outputs == (Raised("KeyError", "'no'"),)


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("def f(:", "SyntaxError"),
        ("raise ValueError('at import')", "ValueError: at import"),
        ("def g():\n    pass", "AttributeError"),
        ("import sys\nsys.exit(0)", "SystemExit"),
        ("import os\nos._exit(0)", "ended after 0 of 1 calls"),
        ("import os\ndef f():\n    os._exit(0)", "ended after 0 of 1 calls"),
        ("import os\ndef f():\n    os._exit(3)", "exit status 3"),
        ("import numpy", "ModuleNotFoundError"),
    ],
)
def test_what_gives_no_value_is_an_error(code: str, detail: str) -> None:
    outcome = one(code)
    assert outcome.status == "error"
    assert detail in outcome.detail
    assert outcome.outputs == ()


def test_an_exit_in_a_call_is_an_exception_like_another() -> None:
    assert one("import sys\ndef f():\n    sys.exit(0)").outputs == (Raised("SystemExit", "0"),)


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("def f():\n    while True: pass", "CPU"),
        (
            "def f():\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass",
            "CPU",
        ),
        ("while True: pass", "CPU"),
        ("import time\ndef f():\n    time.sleep(1000)", "without an end"),
        ("def f():\n    return input()", ""),
        ("import os, time\ndef f():\n    os.close(3)\n    time.sleep(1000)", "without an end"),
        ("import signal, time\ndef f():\n    signal.pthread_sigmask(0, range(1, 64))\n    time.sleep(1000)", "end"),
    ],
)
@pytest.mark.parametrize("without", [(), BARE])
def test_time_is_limited(code: str, detail: str, without: tuple[str, ...]) -> None:
    begin = time.monotonic()
    outcome = one(code, without=without)
    if "input" in code:
        assert outcome.outputs == (Raised("EOFError", "EOF when reading a line"),)
    else:
        assert outcome.status == "timeout"
        assert detail in outcome.detail
    assert time.monotonic() - begin < 20


def test_what_came_before_the_time_ran_out_is_kept() -> None:
    outcome = one("import time\ndef f(x):\n    time.sleep(x)\n    return x", (0,), (1000,), (0,))
    assert (outcome.status, outcome.outputs) == ("timeout", (0,))


def test_memory_is_limited() -> None:
    assert one("def f():\n    return len(bytearray(10**10))").outputs == (Raised("MemoryError", ""),)
    growing = one("def f():\n    x = [0]\n    while True: x += x", limits=Limits(cpu_s=5, memory_mb=128))
    assert growing.outputs == (Raised("MemoryError", ""),) or growing.status == "error"


def test_endless_recursion_harms_nobody() -> None:
    code = "import sys\nsys.setrecursionlimit(10**9)\ndef f(x=0):\n    return f([x])"
    outcome = one(code, limits=Limits(cpu_s=1, memory_mb=128))
    assert outcome.status != "ok" or isinstance(outcome.outputs[0], Raised)


def test_output_is_limited() -> None:
    outcome = one("def f():\n    return 'x' * (3 << 20)")
    assert (outcome.status, outcome.outputs) == ("error", ())
    assert "more than 1024 kB" in outcome.detail
    flood = one("import os\ndef f():\n    while True: os.write(3, b'x' * 65536)")
    assert flood.status == "error"
    assert one("def f():\n    while True: print('x' * 65536)").status == "timeout"
    nested = "def f():\n    x = []\n    for _ in range(100000): x = [x]\n    return x"
    assert isinstance(one(nested).outputs[0], Opaque)


FORGERIES = [
    "print('[\"v\",42]')\ndef f():\n    print('[\"v\", 42]', flush=True)\n    return 0",
    "import os\ndef f():\n    for fd in (0, 1, 2): os.write(fd, b'[\"v\",42]\\n')\n    return 0",
    'import os\ndef f():\n    os.write(1, b\'{"status":"ok","detail":"","isolation":[]}\\n["v",42]\\n\')\n    return 0',
    "import builtins, json\njson.dumps = None\nbuiltins.isinstance = lambda *a: True\ndef f():\n    return 0",
]


@pytest.mark.parametrize("code", FORGERIES)
def test_printing_is_no_way_to_forge_a_value(code: str) -> None:
    outcome = one(code)
    assert 42 not in outcome.outputs
    assert not outcome.outputs or outcome.outputs == (0,) or isinstance(outcome.outputs[0], Opaque)


@pytest.mark.parametrize(
    "line",
    ["[]", "{}", '["v"]', '["v",["q",1]]', '["v",["d",[[["l",[]],1]]]]', "[" * 9999, '["x",1,2]', '["v",["i",[]]]'],
)
def test_malformed_values_are_an_error(line: str) -> None:
    outcome = one(f"import os\ndef f():\n    os.write(3, {line!r}.encode() + b'\\n')\n    return 1")
    assert (outcome.status, outcome.outputs) == ("error", ())


def test_more_values_than_calls_are_an_error() -> None:
    code = "import os\ndef f():\n    os.write(3, b'[\"v\",1]\\n' * 2)\n    os._exit(0)"
    assert one(code).status == "error"


def test_an_object_equal_to_everything_equals_nothing() -> None:
    code = """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
class YesInt(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
class YesList(list):
    def __eq__(self, other): return True
def f(n):
    return [Yes(), YesInt(7), YesList([1]), [Yes()], {1: Yes()}][n]
"""
    everything, number, entries, inside, value = one(code, *((n,) for n in range(5))).outputs
    assert everything != 5
    assert everything != everything
    assert not everything == everything  # noqa: SIM201
    assert isinstance(everything, Opaque)
    assert everything.type == "Yes"
    assert (type(number), number) == (int, 7)
    assert (type(entries), entries) == (list, [1])
    assert inside != [5]
    assert value != {1: 5}


def test_inputs_that_a_program_changes_do_not_reach_the_caller() -> None:
    argument = [3, 1, 2]
    outcome = one("def f(x):\n    x.clear()\n    return x", (argument,), (argument,))
    assert outcome.outputs == ([], [])
    assert argument == [3, 1, 2]


needs = lambda layer: pytest.mark.skipif(layer not in isolation(), reason=f"this host has no {layer}")  # noqa: E731


@needs("no-network")
@pytest.mark.parametrize("without", [(), ("seccomp",), ("namespaces",)])
def test_there_is_no_network(without: tuple[str, ...]) -> None:
    import socket

    code = "import socket\ndef f(port):\n    socket.create_connection(('127.0.0.1', port), 1)\n    return 'reached'"
    with socket.create_server(("127.0.0.1", 0)) as server:
        outcome = one(code, (server.getsockname()[1],), without=without)
    assert isinstance(outcome.outputs[0], Raised)
    assert outcome.outputs[0].type in ("OSError", "PermissionError", "ConnectionRefusedError")


@needs("no-writing")
@pytest.mark.parametrize("without", [(), ("landlock",), ("namespaces",)])
def test_only_the_own_directory_can_be_written(tmp_path: Path, without: tuple[str, ...]) -> None:
    victim = tmp_path / "victim"
    victim.write_text("before")
    code = """
import os
def f(how, path):
    if how == "own":
        with open("here", "w") as h: h.write("x" * 1000)
        return os.listdir(".")
    if how == "new": open(path + "2", "w")
    if how == "over": open(path, "w")
    if how == "append": os.open(path, os.O_WRONLY | os.O_APPEND)
    if how == "remove": os.remove(path)
    if how == "rename": os.rename(path, path + "3")
    if how == "mode": os.chmod(path, 0)
    if how == "truncate": os.truncate(path, 0)
    if how == "link": os.link(path, "linked"); open("linked", "w")
    if how == "folder": os.mkdir(path + "4")
    return "done"
"""
    ways = ("own", "new", "over", "append", "remove", "rename", "mode", "truncate", "link", "folder")
    mode = victim.stat().st_mode
    own, *others = one(code, *((way, str(victim)) for way in ways), without=without).outputs
    assert own == ["here"]
    assert [type(other) for other in others] == [Raised] * len(others)
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
    assert (victim.read_text(), victim.stat().st_mode) == ("before", mode)


@needs("no-reading")
def test_files_outside_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text("[42]")
    outside = [tmp_path / "answers.json", Path(__file__), Path("/proc/1/environ"), Path("/etc/passwd")]
    outside += [Path(pytest.__file__)]
    outcome = one("def f(path):\n    return open(path).read()", *((str(path),) for path in outside))
    assert [type(output) for output in outcome.outputs] == [Raised] * len(outside)


def test_large_files_are_refused() -> None:
    code = "def f():\n    with open('big', 'wb') as h:\n        for _ in range(64): h.write(bytes(1 << 20))"
    assert isinstance(one(code, limits=Limits(cpu_s=2, file_mb=2)).outputs[0], Raised)


def test_the_environment_is_not_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    outcome = one("import os\ndef f():\n    return dict(os.environ)")
    assert isinstance(outcome.outputs[0], dict)
    assert "SECRET_TOKEN" not in outcome.outputs[0]


@needs("no-processes")
def test_no_process_can_be_started() -> None:
    code = """
import os, subprocess
def f(how):
    if how == "fork": return os.fork()
    if how == "exec": os.execv("/bin/true", ["true"])
    return subprocess.run(["/bin/true"]).returncode
"""
    outcome = one(code, ("fork",), ("exec",), ("run",))
    assert [type(output) for output in outcome.outputs] == [Raised] * 3


# a sleeper that two forks and a session of its own have torn from its parent, recognisable by its command line
SURVIVOR = """
import os, sys, time
def f(marker, busy):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-S", "-c", "import time; time.sleep(60)", marker])
        os._exit(0)
    time.sleep(1000 if busy else 0.2)
    return 1
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("without", [(), ("seccomp",), BARE])
@pytest.mark.parametrize("busy", [False, True])
def test_nothing_survives(without: tuple[str, ...], busy: bool) -> None:
    marker = f"survivor-{os.getpid()}-{len(without)}-{busy}"
    outcome = one(SURVIVOR, (marker, busy), without=(*without, "landlock") if without else ())
    assert gone(marker, within_s=0.5)
    if without and not busy:
        assert outcome.outputs == (1,)  # it did start one
    if not without and "no-processes" in isolation():
        assert isinstance(outcome.outputs[0], Raised)


@pytest.mark.parametrize("without", [(), ("seccomp",)])
def test_a_fork_bomb_is_contained(without: tuple[str, ...]) -> None:
    if without and "pid-namespace" not in isolation():
        pytest.skip("nothing would hold it here")
    # bounded by itself: 2^7 processes at most, so that a hole in the sandbox fails the test and not the machine
    code = "import os, time\ndef f():\n    for _ in range(7): os.fork()\n    time.sleep(1000)"
    begin = time.monotonic()
    outcome = one(code, without=without)
    assert outcome.status == "timeout" or isinstance(outcome.outputs[0], Raised)
    assert time.monotonic() - begin < 15


def test_a_program_cannot_end_the_caller_or_its_supervisor() -> None:
    code = """
import os, signal
def f(caller):
    done = []
    for pid in (caller, os.getppid(), -1):
        try:
            os.kill(pid, signal.SIGKILL)
            done.append(pid)
        except OSError:
            pass
    return done
"""
    outcome = one(code, (os.getpid(),))
    if "seccomp" in isolation():
        assert outcome.outputs == ([],)
    assert outcome.status in ("ok", "error")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and the death signal")
@pytest.mark.parametrize("without", [(), BARE])
def test_when_the_caller_is_killed_nothing_stays(tmp_path: Path, without: tuple[str, ...]) -> None:
    code = "import time\ndef f():\n    time.sleep(1000)"
    harness = f"""
from mixmerge.sandbox import Limits, Program, _run_all
_run_all([Program({code!r}, "f", ((),))] * 2, Limits(cpu_s=30, wall_s=60), 2, {without!r})
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    caller = subprocess.Popen([sys.executable, "-c", harness], env=environment)
    marker = str(tmp_path)  # the servers name their folder in their command line, and forks inherit it
    end = time.monotonic() + 20
    while len(processes(marker)) < 6 and time.monotonic() < end:  # two servers, supervisors and candidates
        time.sleep(0.02)
    assert len(processes(marker)) == 6
    os.kill(caller.pid, signal.SIGKILL)
    caller.wait()
    assert gone(marker)


def test_directories_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = "import os\ndef f():\n    os.makedirs('a/b')\n    open('a/b/c', 'w').write('x')\n    return os.getcwd()"
    for without in ((), BARE):
        outcome = one(code, without=without)
        assert str(tmp_path) in str(outcome.outputs[0])
        assert list(tmp_path.iterdir()) == []


def test_isolation_names_what_was_tried() -> None:
    layers = isolation()
    assert "process-group" in layers
    assert "rlimits" in layers
    held = run_programs([GOOD])[0].isolation
    assert set(held) <= set(layers)
    bare = _run_all([GOOD], QUICK, 1, BARE)[0].isolation
    assert "seccomp" not in bare
    assert "no-network" not in bare


def test_it_starts_without_the_heavy_part_of_mixmerge() -> None:
    program = "import sys; import mixmerge.sandbox; print('torch' in sys.modules, 'lm_eval' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
