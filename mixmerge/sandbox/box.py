"""The caller's side of a fork server or a checker: starts it, locked down as far as the host allows; talks to it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import SandboxError
from . import files, wire
from .values import Isolation

_HERE = Path(__file__).parent
_NOBODY = 65534
PRELOADED = frozenset(
    [
        *("bisect", "calendar", "cmath", "collections", "copy", "dataclasses", "datetime", "decimal", "enum"),
        *("fractions", "functools", "heapq", "itertools", "math", "numbers", "operator", "queue", "random", "re"),
        *("statistics", "string", "struct", "textwrap", "typing", "unicodedata", "numpy"),
    ]
)
"""What a fork server may import before it forks, so that the programs that need it do not each pay for it."""

# the package's modules without the package around it, which imports much more
_START = """\
import sys, types
package = types.ModuleType("mixmerge_sandbox")
package.__path__ = [{folder!r}]
sys.modules["mixmerge_sandbox"] = package
from mixmerge_sandbox import forkserver
forkserver.main({control}, {parent})
"""


class Refused(OSError):
    """The host refused a layer, or the process did not start."""


@dataclass(frozen=True)
class Kind:
    """How a box is made.

    role     "candidate" or "checker"
    preload  modules that it imports before it forks; others of the standard library, and numpy, can be imported later
    file_mb  MiB of files that a candidate may write
    without  layers that are left out, so that tests can see what the others do alone: "namespaces", "landlock",
             "seccomp", "nobody"
    """

    role: str
    preload: tuple[str, ...] = ()
    file_mb: int = 64
    without: tuple[str, ...] = ()


class Box:
    """One process in the sandbox. It ends with the thread that made it."""

    def __init__(self, kind: Kind, namespaces: str | None = None) -> None:
        """Start it; `ready` waits until it is. `namespaces` is how to get them, by default as the host grants them."""
        self.kind = kind
        self.work = ""
        self.info: dict[str, Any] = {}
        self.spoilt = False  # something is left that a candidate wrote
        self.control, theirs = socket.socketpair()
        start = _START.format(folder=str(_HERE), control=theirs.fileno(), parent=os.getpid())
        # -S: no installed packages. -I would ignore PYTHONHASHSEED, so the environment is made anew instead
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-c", start],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        settings = self._settings(_granted(kind.without)[0] if namespaces is None else namespaces)
        with contextlib.suppress(OSError):  # it has ended: `ready` says why
            wire.send(self.control, json.dumps(settings).encode())

    def ready(self) -> Box:
        """Wait until it is locked down. Refused where that fails."""
        if not self.info:
            body = None
            with contextlib.suppress(OSError):
                body = wire.receive(self.control)
            assert self.process.stderr is not None
            with self.process.stderr as told:
                # closed by a server that is ready: what is there was written by one that failed
                why = "" if body else told.read().decode(errors="replace").strip().rpartition("\n")[2]
            self.info = json.loads(body) if body else {"error": why or "it ended while it started"}
        if "error" in self.info:
            raise Refused(self.info["error"])
        return self

    def _settings(self, namespaces: str) -> dict[str, Any]:
        folders = _numpy_folders()
        nobody = not namespaces and "nobody" not in self.kind.without and _can_be_nobody()
        if not namespaces:
            self.work = os.path.realpath(tempfile.mkdtemp(prefix="mixmerge-sandbox-"))
            if nobody:
                try:
                    os.chown(self.work, _NOBODY, _NOBODY)
                except OSError:  # a root without that capability, or whose namespace has no such user
                    nobody = False
        return {
            "role": self.kind.role,
            "namespaces": namespaces,
            "nobody": nobody,
            "work": self.work or _writable_folder([*_visible(), *folders]),
            "visible": _visible(),
            "hidden": _hidden(),
            "kept": folders,
            "readable": [*(_visible() if namespaces else _readable()), *folders],
            "preload": [name for name in self.kind.preload if name != "numpy" or folders],
            "numpy": folders[0] if folders else "",
            "file_mb": self.kind.file_mb,
            "without": list(self.kind.without),
        }

    @property
    def isolation(self) -> Isolation:
        names = self.info["layers"]
        level = 0
        if "seccomp" in names:
            level = 3 if "read-only root" in names else 2 if "landlock" in names else 1
        return Isolation(level, tuple(names), self.info["landlock_abi"], self.info["uid"], platform.release())

    def say(self, message: object, descriptors: Sequence[int] = ()) -> None:
        wire.send(self.control, json.dumps(message).encode(), descriptors)

    def hear(self) -> tuple[Any, list[int]]:
        """The next message and its file descriptors. EOFError when the process has ended."""
        body, descriptors = wire.receive_with(self.control)
        if body is None:
            raise EOFError
        return json.loads(body), descriptors

    def close(self) -> None:
        self.control.close()  # a fork server that reads the end of it ends everything below
        self.process.kill()
        self.process.wait()
        if self.work:
            with contextlib.suppress(OSError):
                files.empty(self.work)
                os.rmdir(self.work)


# -- what the host grants ----------------------------------------------------------------------------------------


def isolation(without: Sequence[str] = ()) -> Isolation:
    """What holds on this host, found by trying."""
    return _granted(tuple(without))[1]


@cache
def _granted(without: tuple[str, ...]) -> tuple[str, Isolation]:
    """How to get namespaces here: "own" (as root), "user" (through a user namespace), or "" for not; and what holds."""
    ladder = [*(["own"] if os.geteuid() == 0 else []), "user"] if sys.platform.startswith("linux") else []
    for namespaces in [*(ladder if "namespaces" not in without else []), ""]:
        box = Box(Kind("candidate", without=without), namespaces)
        try:
            return namespaces, box.ready().isolation
        except Refused as error:
            refused = error
        finally:
            box.close()
    raise SandboxError(f"no process can be started for the sandbox: {refused}", hint="`mixmerge doctor` says more")


def _environment() -> dict[str, str]:
    own = {"PATH": "/nonexistent", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
    own["MALLOC_ARENA_MAX"] = "2"  # each arena takes address space, which is limited
    # an interpreter that is not where it was built may need these two to start at all
    return own | {name: os.environ[name] for name in ("PYTHONHOME", "LD_LIBRARY_PATH") if name in os.environ}


# -- files -------------------------------------------------------------------------------------------------------


def _writable_folder(visible: Sequence[str]) -> str:
    """Where candidates write in a root of their own: /tmp, unless that would hide a Python that lies below it."""
    return "/candidate" if any(path.startswith("/tmp/") for path in visible) else "/tmp"


@cache
def _standard_library() -> list[str]:
    # a virtual environment has its own `platbase`, in which there is nothing but installed packages
    base = {"platbase": sys.base_exec_prefix}
    return sorted({os.path.realpath(sysconfig.get_path(name, vars=base)) for name in ("stdlib", "platstdlib")})


@cache
def _visible() -> list[str]:
    """What is in the root of a sandbox with namespaces: the standard library, shared libraries, a few devices."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    libraries = [f"/lib/{multiarch}", f"/usr/lib/{multiarch}", "/lib64", "/usr/lib64"] if multiarch else []
    libraries = [path for path in libraries if os.path.isdir(path)] or ["/lib", "/usr/lib", "/lib64", "/usr/lib64"]
    own = Path(sysconfig.get_config_var("LIBDIR") or "/nonexistent")
    beside = [str(path) for path in own.glob("*.so*")] if str(own) not in (*libraries, "/usr/lib", "/lib") else []
    others = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    found = [*libraries, *_standard_library(), *beside, *others]
    return [path for path in dict.fromkeys(found) if os.path.exists(path)]


_PACKAGES = ("site-packages", "dist-packages")


@cache
def _hidden() -> list[str]:
    """Folders of installed packages below visible ones: data sets lie in those."""
    below = [path for path in _visible() if os.path.isdir(path)]
    pythons = [str(python) for path in below for python in Path(path).glob("python3*")]
    return [f"{path}/{name}" for path in (*below, *pythons) for name in _PACKAGES if os.path.isdir(f"{path}/{name}")]


@cache
def _readable() -> list[str]:
    """The same for Landlock, which cannot hide what lies below: entries of the standard library, one by one."""
    library = [entry for folder in _standard_library() for entry in Path(folder).iterdir()]
    kept = [str(entry) for entry in library if entry.name not in _PACKAGES]
    return [*kept, *(path for path in _visible() if path not in _standard_library())]


@cache
def _numpy_folders() -> list[str]:
    """numpy's own folders, without those of other packages beside them; [] where it is not installed."""
    spec = importlib.util.find_spec("numpy")
    if spec is None or spec.origin is None:
        return []
    package = Path(os.path.realpath(spec.origin)).parent
    libraries = package.parent / "numpy.libs"
    return [str(package), *([str(libraries)] if libraries.is_dir() else [])]


@cache
def _can_be_nobody() -> bool:
    """Whether root can become another user and still read Python. Below a folder that only root may enter it cannot."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    places = [Path(path) for path in (*_standard_library(), *_numpy_folders())]
    return all(folder.stat().st_mode & 0o001 for place in places for folder in (place, *place.parents))
