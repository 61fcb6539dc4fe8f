"""The fork server: a clean interpreter in the sandbox that forks one process per candidate and holds its limits.

It never executes a candidate's code and never holds a test, an expected value or a secret, so that what a fork
inherits is worth nothing. It is started as a program of its own (never forked from the caller, whose memory may hold a
model or the answers), by `box`. Messages are JSON frames on a control socket; see `Control`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import random
import select
import signal
import socket
import sys
import time
from typing import Any

from . import candidate, checker, files, layers, seccomp, wire

_TICK_S = 0.02
_LOST = 97  # exit status of a child in which our own code failed
_CHECKER_CPU_S, _CHECKER_MB = 1e6, 2048  # it judges many candidates; the caller ends it when it is stuck on one


def main(descriptor: int, parent: int) -> None:
    """Lock this process down as the first message says, report what holds, and serve."""
    layers.die_with_parent()
    if os.getppid() != parent:
        return  # it died before we could ask to die with it
    control = socket.socket(fileno=descriptor)
    body = wire.receive(control)
    if body is None:
        return
    settings = json.loads(body)
    sys.path[:] = [os.path.realpath(path) for path in sys.path if path]
    if settings["numpy"]:
        sys.meta_path.append(OnlyNumpy(settings["numpy"]))
    for module in settings["preload"]:
        __import__(module)
    try:
        held = lock_down(settings)
    except OSError as error:
        wire.send(control, json.dumps({"error": str(error)}).encode())
        return
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    wire.send(control, json.dumps(held).encode())
    if settings["role"] == "checker":
        layers.limit(_CHECKER_CPU_S, _CHECKER_MB, 0)
        if "seccomp" in held["layers"]:
            seccomp.Filter(writing=False, attributes=False, passing=True).install()
        checker.serve(control)
        return
    server = Server(control, settings, held["layers"])
    candidate.rehearse()
    # nothing that is there already is looked at by a child's collector, which would copy all of it
    gc.collect()
    gc.disable()
    gc.freeze()
    server.serve()


class OnlyNumpy:
    """Finds numpy in its folder, and nothing else of what is installed beside it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        if name != "numpy":
            return None
        return importlib.util.spec_from_file_location(
            "numpy", f"{self.folder}/__init__.py", submodule_search_locations=[self.folder]
        )


def lock_down(settings: dict[str, Any]) -> dict[str, Any]:
    """Put up the layers, strongest first; what the host refuses is left out. OSError if namespaces fail half-way.

    `namespaces`: "own" (as root), "user" (in a user namespace), "" for none. `without` leaves out layers, so that
    tests can see what the others do alone.
    """
    names, without = [], settings["without"]
    if settings["namespaces"]:
        user, folder, room_mb = settings["namespaces"] == "user", settings["work"], settings["file_mb"]
        shown = settings["visible"], settings["hidden"], settings["kept"]
        layers.enter_namespaces(user, *shown, folder, room_mb)
        names += ["pid, network, mount, ipc and uts namespaces", "read-only root", "tmpfs"]
    elif settings["nobody"]:
        layers.become_nobody()
        names.append("unprivileged user")
    folder = settings["work"]
    os.environ.clear()
    os.environ.update(HOME=folder, TMPDIR=folder, LANG="C.UTF-8", PATH="/nonexistent", OPENBLAS_NUM_THREADS="1")
    os.chdir(folder)
    abi = 0
    if "landlock" not in without:
        with contextlib.suppress(OSError):
            abi = layers.landlock(settings["readable"], [folder])
            names.append("landlock")
    with contextlib.suppress(OSError):
        layers.no_new_privileges()
        names.append("no new privileges")
    with contextlib.suppress(OSError):
        layers.drop_capabilities()
        names.append("no capabilities")
    with contextlib.suppress(OSError):
        layers.hide_memory()
    with contextlib.suppress(OSError):
        os.setsid()
    if "seccomp" not in without and _seccomp_works():
        names.append("seccomp")
    names.append("resource limits")
    return {"layers": names, "landlock_abi": abi, "uid": os.getuid()}


def _seccomp_works() -> bool:
    """Whether a child can put the filter on itself."""
    child = os.fork()
    if child == 0:
        try:
            seccomp.Filter(writing=False, attributes=False).install()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


class Server:
    """Serves requests: one candidate at a time.

    Messages from the caller: a request, {"cpu_s", "idle_s", "memory_mb", "file_mb"} with the candidate's socket as a
    file descriptor; while one runs, {"ask": "used"} or {"stop": true}. To the caller: {"used": CPU seconds};
    {"idle", "waited", "used"} with a pidfd, every `idle_s` seconds; at the end {"why", "status", "cpu_s", "memory_kb",
    "dirty"}, where "why" is "exit", "cpu", "files" or "stopped".
    """

    def __init__(self, control: socket.socket, settings: dict[str, Any], held: list[str]) -> None:
        self.control = control
        self.contained = "tmpfs" in held
        self.work = settings["work"]
        self.room_mb = settings["file_mb"] if self.contained else 1 << 40  # what the file system itself ends at
        self.filter: seccomp.Filter | None = None
        if "seccomp" in held:
            writable = self.contained or "landlock" in held
            self.filter = seccomp.Filter(writing=writable, attributes=self.contained)

    def serve(self) -> None:
        while True:
            body, descriptors = wire.receive_with(self.control)
            if body is None:
                return
            if not descriptors:
                continue  # a question about a candidate that has ended meanwhile
            request = json.loads(body)
            child = os.fork()
            if child == 0:
                try:
                    self.become_candidate(descriptors[0], request)
                finally:
                    os._exit(_LOST)
            os.close(descriptors[0])
            self.report(Watch(self, child, request).wait())

    def become_candidate(self, descriptor: int, request: dict[str, Any]) -> None:
        """In the child: nothing of the server is left but its memory, and there is nothing in that."""
        if descriptor != 3:
            os.dup2(descriptor, 3)
        os.closerange(4, 256)
        if not self.contained:  # a pid namespace ends with its first process anyway
            layers.die_with_parent()
        random.seed(0)  # a candidate that uses it does the same in every run; the fork has seeded it anew
        gc.enable()
        if self.filter is None:
            os.setsid()
        # on the host's disk, files that are unlinked while they are open are not counted, but there are 64 at most
        layers.limit(request["cpu_s"], request["memory_mb"], request["file_mb"] // (1 if self.contained else 4))
        if self.filter is not None:
            self.filter.install()
        candidate.main(3)
        os._exit(0)

    def report(self, found: dict[str, Any]) -> None:
        found["dirty"] = not self.clean()
        with contextlib.suppress(OSError):
            wire.send(self.control, json.dumps(found).encode())

    def clean(self) -> bool:
        """Empty the folder in which candidates write; False if something is left."""
        if self.contained and os.getpid() == 1:
            with contextlib.suppress(OSError):
                os.kill(-1, signal.SIGKILL)  # nobody is there, since no process can be started
        try:
            return files.empty(self.work)
        except OSError:
            return False


class Watch:
    """Waits for one candidate, and ends it when it is over a limit or no longer wanted."""

    def __init__(self, server: Server, child: int, request: dict[str, Any]) -> None:
        self.server, self.child, self.request = server, child, request
        self.began = time.monotonic()
        self.patience = float(request["idle_s"])
        self.counted = request["file_mb"] < server.room_mb
        self.poll = select.poll()
        self.poll.register(server.control, select.POLLIN)
        self.pidfd = -1
        with contextlib.suppress(OSError, AttributeError):  # Linux 5.3 or later
            self.pidfd = os.pidfd_open(child)
            self.poll.register(self.pidfd, select.POLLIN)

    def wait(self) -> dict[str, Any]:
        why = self.until_over()
        if why != "exit":
            self.end()
            _, status, usage = os.wait4(self.child, 0)
        else:
            status, usage = self.status
        if self.server.filter is None:
            self.end_others()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        used = usage.ru_utime + usage.ru_stime
        return {"why": why, "status": status, "cpu_s": used, "memory_kb": usage.ru_maxrss}

    def until_over(self) -> str:
        while True:
            pid, status, usage = os.wait4(self.child, os.WNOHANG)
            if pid:
                self.status = status, usage
                return "exit"
            left = self.request["cpu_s"] - self.used()
            if left <= 0:
                return "cpu"
            most = self.request["file_mb"] << 20
            if self.counted and files.size(self.server.work, most) > most:
                return "files"
            waited = time.monotonic() - self.began
            if waited > self.patience:
                self.say({"idle": True, "waited": waited, "used": self.used()}, [self.pidfd] if self.pidfd >= 0 else [])
                self.patience = waited + self.request["idle_s"]
            tick = min(left, self.patience - waited)
            if self.pidfd < 0 or self.counted:
                tick = min(tick, _TICK_S)
            events = dict(self.poll.poll(max(1, int(tick * 1000) + 1)))
            if self.server.control.fileno() in events and not self.listen():
                return "stopped"

    def listen(self) -> bool:
        """One message of the caller. False when the candidate is no longer wanted."""
        body = wire.receive(self.server.control)
        if body is None:  # the caller is gone, and everything ends
            self.end()
            os._exit(0)
        message = json.loads(body)
        if "ask" in message:
            self.say({"used": self.used()})
        return "stop" not in message

    def say(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        with contextlib.suppress(OSError):
            wire.send(self.server.control, json.dumps(message).encode(), descriptors or [])

    def used(self) -> float:
        """CPU seconds of the candidate by its clock (Linux: ~pid << 3 | CPUCLOCK_SCHED); 0.0 where there is none."""
        try:
            return time.clock_gettime((~self.child << 3) | 2)
        except (OSError, OverflowError, AttributeError):
            return 0.0

    def end(self) -> None:
        for kill in (os.kill, os.killpg):
            with contextlib.suppress(OSError):
                kill(self.child, signal.SIGKILL)

    def end_others(self) -> None:
        """Without seccomp a candidate may have started processes: those of its group."""
        with contextlib.suppress(OSError):
            os.killpg(self.child, signal.SIGKILL)
