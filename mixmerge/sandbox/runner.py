"""Runs candidates one after another: jobs come framed on stdin, replies leave framed on stdout.

Three generations, so that starting Python and importing is paid once and yet nothing is shared between candidates: the
server reads a job and forks a supervisor; the supervisor enters new namespaces, holds the limits and writes the reply;
its child, locked down, loads the code and supplies values through a pipe of their own. A reply is one line of JSON by
the supervisor, then the child's bytes as they came: whoever reads them may believe that they are values, and no more.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import struct
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import layers, wire
else:  # started from its own folder, without the package around it, which imports much more
    import layers
    import wire

_TICK_S = 0.02
_NO_MORE = 3  # exit status of a supervisor that found stdin at its end
_TEXT = 500  # characters of an exception's text that are worth a reader's time


def main(parent: int) -> None:
    """Serve until stdin ends. `parent` is the process that must be alive for this to make sense."""
    if layers.die_with_parent() and os.getppid() != parent:
        return  # it died before we could ask to die with it
    sys.path.pop(0)  # this folder: a candidate imports the standard library and nothing of ours
    while True:
        select.select([0], [], [])  # the supervisor reads the job: no candidate starts with another's in its memory
        supervisor = os.fork()
        if supervisor == 0:
            try:
                os._exit(serve())
            finally:
                os._exit(72)
        code = os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1])
        if code == _NO_MORE:
            return
        if code != 0:
            reply("error", "the supervisor was ended", [], b"")


def read_job() -> dict[str, Any] | None:
    """The next job, None at the end."""
    head = _read_exactly(8)
    return json.loads(_read_exactly(struct.unpack("<Q", head)[0])) if head else None


def _read_exactly(size: int) -> bytes:
    data = b""
    while len(data) < size and (chunk := os.read(0, min(size - len(data), 1 << 20))):
        data += chunk
    return data


def reply(status: str, detail: str, isolation: list[str], data: bytes) -> None:
    line = json.dumps({"status": status, "detail": detail, "isolation": isolation}).encode() + b"\n"
    sys.stdout.buffer.write(struct.pack("<Q", len(line) + len(data)) + line + data)
    sys.stdout.buffer.flush()


def serve() -> int:
    """In the supervisor: one job from stdin to stdout. Returns its exit status."""
    layers.die_with_parent()
    layers.adopt_orphans()
    job = read_job()
    if job is None:
        return _NO_MORE
    held = ["process-group"]
    if "namespaces" not in job["without"]:
        held += layers.enter_namespaces(job["work"], int(job["limits"]["file_mb"]))
    reply(*supervise(job, held))
    return 0


def supervise(job: dict[str, Any], held: list[str]) -> tuple[str, str, list[str], bytes]:
    """Fork the candidate, feed on its values, end it: (status, detail, isolation, bytes of values)."""
    reading, writing = os.pipe()
    alive, held_open = os.pipe()  # the child sees the end of `alive` if this process is gone
    child = os.fork()
    if child == 0:
        try:
            os.close(held_open)
            become_candidate(job, held, writing, alive)
        finally:
            os._exit(70)
    os.close(writing)
    os.set_blocking(reading, False)
    try:
        status, detail, data = watch(child, reading, job["limits"])
    finally:
        end(child)
    head, _, rest = data.partition(b"\n")
    if not head.startswith(b"[") or len(head) > 4096:
        return "error", detail or "the candidate's process did not start", held, b""
    return status, detail, json.loads(head), rest


def watch(child: int, reading: int, limits: dict[str, float]) -> tuple[str, str, bytes]:
    """Read until the child ends, is out of time or says too much: (status, detail, what it said)."""
    begin, data, pause = time.monotonic(), b"", 0.0002
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    most = int(limits["output_kb"]) * 1024
    while True:
        ended, how = os.waitpid(child, os.WNOHANG)  # before reading: nothing can arrive after it
        chunk = _read(reading)
        while chunk and len(data) <= most:
            data += chunk
            chunk = _read(reading)
        if len(data) > most:
            return "error", f"more than {limits['output_kb']:g} kB of output", data
        if ended:
            return (*_how(os.waitstatus_to_exitcode(how)), data)
        if _cpu_s(child) > limits["cpu_s"]:
            return "timeout", f"more than {limits['cpu_s']:g} s of CPU time", data
        if time.monotonic() - begin - _queued_s(child) > limits["wall_s"]:
            return "timeout", f"more than {limits['wall_s']:g} s without an end", data
        if chunk == b"":  # the pipe is closed: it has ended in a moment, or closed it to be a nuisance
            time.sleep(pause)
            pause = min(2 * pause, _TICK_S)
        else:
            poll.poll(_TICK_S * 1000)


def _read(reading: int) -> bytes | None:
    """What has arrived; b"" at the end, None when there is nothing now."""
    try:
        return os.read(reading, 1 << 16)
    except BlockingIOError:
        return None


def _how(code: int) -> tuple[str, str]:
    """Status and detail of an exit code; negative is a signal."""
    if code == -signal.SIGXCPU:
        return "timeout", "killed by the limit on CPU time"
    if code < 0:
        return "error", f"killed by signal {-code}"
    return ("error", f"ended with exit status {code}") if code else ("ok", "")


def _cpu_s(child: int) -> float:
    """CPU time of another process by its clock (Linux: ~pid << 3 | CPUCLOCK_SCHED); 0.0 where there is none."""
    try:
        return time.clock_gettime((~child << 3) | 2)
    except (OSError, OverflowError):
        return 0.0


def _queued_s(child: int) -> float:
    """How long the child was ready and had to wait for a CPU: not its fault on a busy machine."""
    try:
        with open(f"/proc/{child}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def end(child: int) -> None:
    """Kill and reap the child, its whole group, and every descendant that this process has inherited from it."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(child, signal.SIGKILL)
    patience = time.monotonic() + 5  # only a host without namespaces and seccomp ever gets to a second round
    while time.monotonic() < patience:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                for pid in _children():
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.001)
        except ChildProcessError:
            return
        except OSError:
            pass


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def become_candidate(job: dict[str, Any], held: list[str], writing: int, alive: int) -> None:
    """In the child: lock down, load the code, answer every call. Does not return."""
    os.setsid()
    layers.die_with_parent()
    if select.select([alive], [], [], 0)[0]:
        os._exit(71)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.dup2(writing, 3)
    os.closerange(4, 256)
    os.chdir(job["work"])
    random.seed(0)  # a candidate that uses it does the same in every run; a fork would have seeded it anew
    os.environ.update(HOME=job["work"], TMPDIR=job["work"])
    names = layers.lock_down(job, held)
    _send(3, json.dumps(names).encode())
    answer(job, 3)
    os._exit(0)


def answer(job: dict[str, Any], channel: int) -> None:
    """["x", type, text] if the code does not load; else per input ["v", value] or ["e", type, text], a line each."""
    calls = [wire.decode(call, str) for call in job["inputs"]]
    module = type(sys)("candidate")  # not __main__: what a program does only as a script is not asked for
    sys.modules["candidate"] = module
    try:
        exec(compile(job["code"], "<candidate>", "exec", dont_inherit=True), module.__dict__)
        function = getattr(module, job["entry_point"])
    except BaseException as error:
        return _send(channel, _failure("x", error))
    for call in calls:
        try:
            result = function(*call)  # type: ignore[misc]
        except BaseException as error:
            _send(channel, _failure("e", error))
            continue
        try:
            line = b'["v",' + wire.dumps(result) + b"]"
        except BaseException:  # it contains itself, or objects to being read: no plain data either way
            line = b'["v",["o","object"]]'
        _send(channel, line)


def _failure(tag: str, error: BaseException) -> bytes:
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"), "Exception")
    try:
        text = str(error)[:_TEXT]
    except BaseException:
        text = ""
    return json.dumps([tag, name, text]).encode()


def _send(channel: int, line: bytes) -> None:
    line += b"\n"
    while line:
        line = line[os.write(channel, line) :]
