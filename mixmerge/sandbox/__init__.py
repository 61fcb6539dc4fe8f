"""Runs generated code in a process of its own: limited, isolated as far as the host allows, and never believed.

A candidate's process only supplies values. Nothing that it says means "passed": whoever calls holds the expected values
and compares. Each candidate runs in a fork of a small clean interpreter (never of the caller, whose memory may hold a
model or the answers) with the standard library and a seeded `random`, an empty directory to write in, and no way out.

What is promised depends on the host, and `isolation` says what holds there. On Linux: resource limits, new user, pid,
network, ipc and mount namespaces, Landlock, seccomp (x86_64). Elsewhere: resource limits and
the end of the process group.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from . import wire

__all__ = ["Limits", "Opaque", "Outcome", "Program", "Raised", "isolation", "run_programs"]

_HERE = Path(__file__).parent
_GRACE_S = 20.0  # how long past its own limit a supervisor is waited for; only a broken host ever gets there


@dataclass(frozen=True)
class Program:
    """`code` is executed as a module, then its `entry_point` is called once per entry of `inputs`.

    Each entry is the positional arguments of one call: plain data (None, bool, int, float, str, bytes, list, tuple,
    set, dict).
    """

    code: str
    entry_point: str
    inputs: tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    cpu_s      seconds of CPU time over all its calls
    wall_s     seconds until a program that waits is ended, its time in the queue for a CPU not counted; None for
               3 * cpu_s + 1
    memory_mb  MiB of address space; the interpreter takes about 30
    file_mb    MiB of each file that it writes, and of all together where it has a file system of its own
    output_kb  KiB of values that it may return in all
    """

    cpu_s: float = 3.0
    wall_s: float | None = None
    memory_mb: int = 512
    file_mb: int = 8
    output_kb: int = 1024


@dataclass(frozen=True)
class Raised:
    """Stands in the place of an output when the call raised. `type` is the builtin exception that it was or derives
    from, `text` its first 500 characters."""

    type: str
    text: str


class Opaque:
    """Stands for an output, or a part of one, that is no plain data. Equal to nothing, not even to itself."""

    def __init__(self, type: str) -> None:
        self.type = type

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Opaque({self.type!r})"


@dataclass(frozen=True)
class Outcome:
    """What came of a program.

    status     "ok": the code loaded and every call returned or raised; "timeout": time ran out; "error": the rest
    outputs    per input, in order, the value that the call returned, or Raised; shorter than the inputs when not "ok"
    detail     why it is not "ok", for a reader
    isolation  the layers that held while it ran
    """

    status: Literal["ok", "error", "timeout"]
    outputs: tuple[object, ...]
    detail: str
    isolation: tuple[str, ...]


def run_programs(
    programs: Sequence[Program], *, limits: Limits = Limits(), workers: int | None = None
) -> list[Outcome]:
    """Run programs, `workers` at a time (None: as many as there are CPUs); outcomes in the order of `programs`."""
    return _run_all(programs, limits, workers or os.cpu_count() or 1)


def _run_all(programs: Sequence[Program], limits: Limits, workers: int, without: Sequence[str] = ()) -> list[Outcome]:
    """`without` leaves out layers, so that tests can see what the others do alone."""
    outcomes: list[Outcome | None] = [None] * len(programs)
    waiting = deque(range(len(programs)))

    def work(root: str) -> None:
        # a server lives and dies with the thread that started it
        with _Server(Path(root)) as server:
            while waiting:
                try:
                    index = waiting.popleft()
                except IndexError:
                    return
                outcomes[index] = server.run(programs[index], limits, without)

    workers = min(workers, len(programs))
    with tempfile.TemporaryDirectory(prefix="mixmerge-sandbox-", ignore_cleanup_errors=True) as root:
        with ThreadPoolExecutor(max(1, workers)) as pool:
            try:
                for thread in [pool.submit(work, root) for _ in range(workers)]:
                    thread.result()
            finally:
                waiting.clear()  # after an interrupt the others end with the program that they are at
    return [outcome for outcome in outcomes if outcome is not None]


class _Server:
    """A clean interpreter that runs candidates one after another, each in a process and a directory of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> _Server:
        # -I would ignore PYTHONHASHSEED; an environment of our own keeps the caller's out. Not run as a script, so that
        # its compiled form is found
        start = f"import sys; sys.path.insert(0, {str(_HERE)!r}); import runner; runner.main({os.getpid()})"
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-B", "-c", start, str(self._root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, program: Program, limits: Limits, without: Sequence[str]) -> Outcome:
        work = Path(tempfile.mkdtemp(dir=self._root)).resolve()
        wall_s = limits.wall_s if limits.wall_s is not None else 3 * limits.cpu_s + 1
        job = {
            "code": program.code,
            "entry_point": program.entry_point,
            "inputs": [wire.encode(list(call)) for call in program.inputs],
            "limits": {**asdict(limits), "wall_s": wall_s},
            "readable": _readable(),
            "listable": _listable(),
            "without": list(without),
            "work": str(work),
        }
        try:
            reply = self._ask(json.dumps(job).encode(), 10 * wall_s + _GRACE_S)
        except (OSError, EOFError):
            self.__exit__()
            self.__enter__()
            return Outcome("error", (), "the server of the sandbox ended", ())
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return _outcome(reply, len(program.inputs))

    def _ask(self, job: bytes, patience_s: float) -> bytes:
        """Send a job and wait for its reply. The supervisor keeps the limits; `patience_s` is for a broken host."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(struct.pack("<Q", len(job)) + job)
        stdin.flush()
        if not select.select([stdout], [], [], patience_s)[0]:
            raise EOFError
        head = stdout.read(8)
        if len(head) < 8:
            raise EOFError
        return stdout.read(struct.unpack("<Q", head)[0])


def _environment() -> dict[str, str]:
    own = {"PATH": "/nonexistent", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
    # an interpreter that is not where it was built may need these two to start at all
    return own | {name: os.environ[name] for name in ("PYTHONHOME", "LD_LIBRARY_PATH") if name in os.environ}


@cache
def _readable() -> list[str]:
    """What a candidate may read: the standard library, shared libraries, time zones. No data set, no home.

    Installed packages lie inside the standard library's folder, and data sets lie in those; so its entries are named
    one by one, without them.
    """
    entries = {entry for folder in _listable() for entry in Path(folder).iterdir()}
    for folder in ("/lib", "/lib64", "/usr/lib", "/usr/lib64"):
        if Path(folder).is_dir():
            entries |= {
                entry for entry in Path(folder).resolve().iterdir() if entry.is_dir() or ".so" in entry.suffixes
            }
    packages = ("site-packages", "dist-packages", "python")
    kept = {entry for entry in entries if not entry.name.startswith(packages)}
    kept |= {Path(path) for path in ("/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo")}
    return sorted(str(path) for path in kept if path.exists())


@cache
def _listable() -> list[str]:
    """Folders whose names a candidate may see, whatever it may read of them: where Python looks for modules."""
    folders = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(Path(os.__file__).parent)}
    return sorted(os.path.realpath(folder) for folder in folders)


def _outcome(reply: bytes, inputs: int) -> Outcome:
    head, _, data = reply.partition(b"\n")
    try:
        told = json.loads(head)  # by the supervisor, whose pipe the candidate never had
    except ValueError:
        return Outcome("error", (), "the supervisor ended without an answer", ())
    held = tuple(told["isolation"])
    outputs: list[object] = []
    # a line that has no end was cut off
    for line in data.split(b"\n")[:-1]:
        try:
            tag, value = _read(line)
        except ValueError:
            return Outcome("error", tuple(outputs), "values that cannot be read", held)
        if tag == "x" and isinstance(value, Raised):
            return Outcome("error", (), f"{value.type}: {value.text}", held)
        if len(outputs) == inputs:
            return Outcome("error", tuple(outputs), "more values than calls", held)
        outputs.append(value)
    status, detail = told["status"], told["detail"]
    if status == "ok" and len(outputs) < inputs:
        status, detail = "error", f"ended after {len(outputs)} of {inputs} calls"
    return Outcome(status, tuple(outputs), detail, held)


def _read(line: bytes) -> tuple[str, object]:
    """One line by the candidate: a value, or what was raised. ValueError when it is neither."""
    try:
        tag, *body = json.loads(line)
        if tag == "v" and len(body) == 1:
            return "v", wire.decode(body[0], Opaque)
        if tag in ("e", "x") and len(body) == 2 and all(isinstance(part, str) for part in body):
            return tag, Raised(*body)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"malformed value: {type(error).__name__}") from None
    raise ValueError("malformed line")


_PROBE = """
import os, socket
def network(port):
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
def read(path):
    return open(path).read()
def write(path):
    open(path, "w").close()
    return True
def start():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True
def probe(name, *arguments):
    return globals()[name](*arguments)
"""


@cache
def isolation() -> tuple[str, ...]:
    """The layers that hold on this host, tried rather than assumed.

    Beside the layers themselves, what a real probe could not do from inside: "no-network" (reach a port that is open on
    this host), "no-reading" and "no-writing" (files outside), "no-processes" (start another one).
    """
    import socket

    with tempfile.TemporaryDirectory() as outside, socket.create_server(("127.0.0.1", 0)) as server:
        secret = Path(outside) / "secret"
        secret.write_text("secret")
        probes: dict[str, tuple[object, ...]] = {
            "no-network": ("network", server.getsockname()[1]),
            "no-reading": ("read", str(secret)),
            "no-writing": ("write", str(Path(outside) / "written")),
            "no-processes": ("start",),
        }
        outcome = run_programs([Program(_PROBE, "probe", tuple(probes.values()))], workers=1)[0]
    if outcome.status != "ok":
        return ()
    refused = [name for name, output in zip(probes, outcome.outputs, strict=True) if isinstance(output, Raised)]
    layers = [name for name in outcome.isolation if name != "no-network"]
    return (*layers, *refused)
