"""Runs generated code in a process of its own: limited, isolated as far as the host allows, and never believed.

A candidate's process only supplies values. Nothing that it says means "passed": whoever calls holds the expected values
and compares. Each candidate runs in a fork of a small clean interpreter (never of the caller, whose memory may hold a
model or the answers) with the standard library and a seeded `random`, an empty directory to write in, and no way out.

What is promised depends on the host, and `isolation` says what holds there. On Linux: resource limits, new user, pid,
network, ipc and mount namespaces, Landlock, seccomp (x86_64). Elsewhere: resource limits and the end of the group.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from .server import Server
from .values import Limits, Opaque, Outcome, Program, Raised

__all__ = ["Limits", "Opaque", "Outcome", "Program", "Raised", "isolation", "run_programs"]

_DEFAULT = Limits()


def run_programs(
    programs: Sequence[Program], *, limits: Limits = _DEFAULT, workers: int | None = None
) -> list[Outcome]:
    """Run programs, `workers` at a time (None: as many as there are CPUs); outcomes in the order of `programs`."""
    return _run_all(programs, limits, workers or os.cpu_count() or 1)


def _run_all(programs: Sequence[Program], limits: Limits, workers: int, without: Sequence[str] = ()) -> list[Outcome]:
    """`without` leaves out layers, so that tests can see what the others do alone."""
    outcomes: list[Outcome | None] = [None] * len(programs)
    waiting = deque(range(len(programs)))

    def work(root: str) -> None:
        # a server lives and dies with the thread that started it
        with Server(Path(root)) as server:
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
