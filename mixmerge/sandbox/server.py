"""The caller's side of `runner`: starts it, asks it, and reads what candidates supplied."""

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
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

from . import wire
from .values import Limits, Opaque, Outcome, Program, Raised

_HERE = Path(__file__).parent
_GRACE_S = 20.0  # how long past its own limit a supervisor is waited for; only a broken host ever gets there


class Server:
    """A clean interpreter that runs candidates one after another, each in a process and a directory of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> Server:
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
