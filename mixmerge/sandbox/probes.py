"""What a candidate could do on this host: each thing tried, from inside the real sandbox."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .pool import judge, run_programs
from .values import Job, Limits, Program, Raised, Tests

_CODE = r"""
import ctypes, os, platform, resource, socket, sys

def system_call(x86_64, aarch64, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    number = x86_64 if platform.machine() == "x86_64" else aarch64
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def connect(port):
    socket.create_connection(("127.0.0.1", port), timeout=2).close()

def unix_socket():
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).close()

def fork():
    if os.fork() == 0:
        os._exit(0)

def run():
    os.execv(sys.executable, [sys.executable, "-c", ""])

def read(path):
    open(path, "rb").read(1)

def names(path):
    os.listdir(path)

def write(path):
    open(path, "w").close()

def flood(mib):
    with open("flood", "wb") as file:
        for _ in range(mib):
            file.write(bytes(1 << 20))

def take(mib):
    bytearray(mib << 20)

def signal_parent():
    os.kill(os.getppid() or 1, 0)

def raise_limit():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

def environment(allowed):
    if set(os.environ) <= set(allowed):
        raise OSError(1, "nothing of the caller's")

def probe(name, *arguments):
    globals()[name](*arguments)
"""


@dataclass(frozen=True)
class Probe:
    """Something that was tried: whether it went as it should (what a candidate must not do was refused), and how."""

    what: str
    ok: bool
    how: str


def probe(without: Sequence[str] = ()) -> list[Probe]:
    """Try everything that a candidate must not do, and report what is open. Takes about a second."""
    limits = Limits(cpu_s=10, memory_mb=512, file_mb=16)
    with tempfile.TemporaryDirectory() as outside, socket.create_server(("127.0.0.1", 0)) as server:
        secret = Path(outside) / "secret"
        secret.write_text("secret")
        tries: dict[str, tuple[object, ...]] = {
            "reach a port of this host": ("connect", server.getsockname()[1]),
            "open a UNIX socket": ("unix_socket",),
            "start a process": ("fork",),
            "run a program": ("run",),
            "read a file of this user": ("read", str(secret)),
            "read /etc/passwd": ("read", "/etc/passwd"),
            "list the home folder": ("names", str(Path.home())),
            "see other processes": ("names", "/proc/1"),
            "read memory through /proc": ("read", "/proc/self/mem"),
            "write a file of this user": ("write", str(secret)),
            "write more than its limit": ("flood", limits.file_mb + 1),
            "take more memory than its limit": ("take", 2 * limits.memory_mb),
            "raise its limits": ("raise_limit",),
            "signal its parent": ("signal_parent",),
            "trace another process": ("system_call", 101, 117, 16, 1, 0, 0),
            "enter a user namespace": ("system_call", 272, 97, 0x10000000),
            "use io_uring": ("system_call", 425, 425, 1, bytes(120)),
            "load a BPF program": ("system_call", 321, 280, 0, 0, 0),
            "see the caller's environment": ("environment", ["HOME", "TMPDIR", "LANG", "PATH", "OPENBLAS_NUM_THREADS"]),
        }
        outcome = run_programs(
            [Program(_CODE, "probe", (call,)) for call in tries.values()], limits=limits, without=without
        )
    found = []
    for what, one in zip(tries, outcome, strict=True):
        output = one.outputs[0] if one.outputs else None
        how = f"{output.type}: {output.text}" if isinstance(output, Raised) else one.detail
        found.append(Probe(what, bool(how), how or "allowed"))
    return found


_RIGHT = "def double(x):\n    return 2 * x\n"
_WRONG = "def double(x):\n    return 2 * x + 1\n"
_BOMB = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        break\ndouble = None\n"
_STOPPED = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n"
_TEST = Tests("assert double(2) == 4")


def check(without: Sequence[str] = ()) -> list[Probe]:
    """Whether it tells right from wrong, ends what bombs and stops, and how long a candidate takes."""
    limits = Limits(cpu_s=1, idle_s=1)
    codes = {"a right program": _RIGHT, "a wrong one": _WRONG, "a fork bomb": _BOMB, "one that stops": _STOPPED}
    wanted = ("pass", "fail", "fail", "timeout")
    verdicts = judge([Job(code, "double", _TEST, limits) for code in codes.values()], workers=1, without=without)
    found = [
        Probe(f"{what} is judged {verdict.status!r}", verdict.status == right, verdict.detail)
        for (what, verdict), right in zip(zip(codes, verdicts, strict=True), wanted, strict=True)
    ]
    many = [Job(_RIGHT, "double", _TEST, limits)] * 50
    began = time.perf_counter()
    judge(many[:1], workers=1, without=without)
    started = time.perf_counter()
    judge(many, workers=1, without=without)
    each = (time.perf_counter() - started - (started - began)) / (len(many) - 1)
    return [
        *found,
        Probe("time per candidate", True, f"{1000 * each:.1f} ms on one core, {started - began:.2f} s to start"),
    ]
