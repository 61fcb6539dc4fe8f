"""One directory per step id. A step is worked on in `work/`, and moved to `steps/` when it is whole.

STORE/lock             held by the run that uses the store
STORE/specs/ID.json    what a step is, so that any worker can do it from its id alone
STORE/work/ID/         a step under way, or one that failed (failed.json says why); kept, so that training resumes
STORE/steps/ID/        a finished step: record.json, log.txt and its payload in out/
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from .errors import StoreError
from .types import Record, Step

_VERSIONS_OF = ("mixmerge", "torch", "transformers", "trl", "accelerate", "lm_eval", "mergekit", "datasets")


def progress(out: Path, done: float, total: float, note: str = "") -> None:
    """Say how far a step is: `out` is the directory it was given. Cheap; call it as often as you like."""
    write_json(out / ".progress", {"done": done, "total": total, "note": note})


def write_json(path: Path, value: object) -> None:
    """Write atomically: a reader sees the old file or the new one, never half of it."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    part.replace(path)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


class Store:
    """Steps by id. Everything that it returns was whole when it was committed."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._whole: dict[str, Record] = {}

    def path(self, step_id: str) -> Path:
        """Where the payload of a finished step lies."""
        return self.root / "steps" / step_id / "out"

    def log(self, step_id: str) -> Path:
        """The log of a step: of its last attempt when it is under way or failed, else of the one that finished it."""
        under_way = self.work(step_id) / "log.txt"
        return under_way if under_way.is_file() else self.path(step_id).parent / "log.txt"

    def work(self, step_id: str) -> Path:
        """Where a step is worked on."""
        return self.root / "work" / step_id

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for one run. StoreError when another run holds it; a killed run holds nothing."""
        with self._no_space():
            self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "another run"
                raise StoreError(
                    f"the store {self.root} is held by {holder}", hint="wait for it, or give another --out"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
            file.truncate(0)

    def put_spec(self, step: Step) -> None:
        """Make a step known to workers."""
        path = self.root / "specs" / f"{step.id}.json"
        with self._no_space():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, asdict(step))

    def spec(self, step_id: str) -> Step:
        return _step(read_json(self.root / "specs" / f"{step_id}.json"))

    def record(self, step_id: str) -> Record | None:
        """What a finished step left; None when it is not finished, or part of its payload is gone."""
        if step_id in self._whole:
            return self._whole[step_id]
        path = self.path(step_id).parent / "record.json"
        if not path.is_file():
            return None
        try:
            data = read_json(path)
            files = data.pop("files")
            record = Record(**{**data, "step": _step(data["step"])})
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"{path} is damaged", hint=f"remove {path.parent} and run again") from None
        if any(not _has_size(self.path(step_id) / name, size) for name, size in files.items()):
            return None
        self._whole[step_id] = record
        return record

    def forget(self, step_id: str) -> None:
        """Read its record anew: another process may have done the step again."""
        self._whole.pop(step_id, None)

    def failure(self, step_id: str) -> str:
        """Why a step failed the last time; "" when it did not."""
        path = self.work(step_id) / "failed.json"
        return str(read_json(path)["error"]) if path.is_file() else ""

    def state(self, step_id: str) -> str:
        """done; failed; begun: a run is in it, or was stopped in it and goes on from there; or to do."""
        if self.record(step_id):
            return "done"
        if self.failure(step_id):
            return "failed"
        return "begun" if self.work(step_id).is_dir() else "to do"

    def specs(self) -> Iterator[Step]:
        """Every step that a run has planned so far, those of recipes that have changed since included."""
        return (self.spec(path.stem) for path in sorted((self.root / "specs").glob("*.json")))

    def begin(self, step: Step) -> Path:
        """The directory to work in. What an earlier attempt left there stays, so that a trainer can resume."""
        with self._no_space():
            work = self.work(step.id)
            (work / "out").mkdir(parents=True, exist_ok=True)
            (work / "failed.json").unlink(missing_ok=True)
            (work / "out" / ".progress").unlink(missing_ok=True)
        return work / "out"

    def progress(self, step_id: str) -> Mapping[str, Any]:
        """What the step last said of itself: {} or done, total, note."""
        with contextlib.suppress(OSError, ValueError):
            return dict(read_json(self.work(step_id) / "out" / ".progress"))
        return {}

    def commit(self, step: Step, started: float, outcome: Mapping[str, Any]) -> Record:
        """Move a step's work to its place, whole, with its record."""
        work, home = self.work(step.id), self.path(step.id).parent
        (work / "out" / ".progress").unlink(missing_ok=True)
        payload = [path for path in sorted((work / "out").rglob("*")) if path.is_file()]
        files = {str(path.relative_to(work / "out")): path.stat().st_size for path in payload}
        record = Record(step, started, time.time(), platform.node(), versions(), outcome, sum(files.values()))
        with self._no_space():
            write_json(work / "record.json", {**asdict(record), "files": files})
            home.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(home, ignore_errors=True)
            work.replace(home)
        self._whole.pop(step.id, None)
        return record

    def fail(self, step: Step, error: str) -> None:
        """Keep why a step failed beside its log."""
        with contextlib.suppress(OSError):
            write_json(self.work(step.id) / "failed.json", {"error": error, "step": step.name})

    @contextlib.contextmanager
    def _no_space(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self.explain(error) from error

    def explain(self, error: OSError) -> StoreError:
        """An OSError in a user's words."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreError(
                f"no space is left for the store {self.root}",
                hint="free some, or give --out on another disk; the same command then goes on",
            )
        return StoreError(f"the store {self.root}: {(error.strerror or str(error)).lower()}", hint="give another --out")


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _step(data: dict[str, Any]) -> Step:
    return Step(**{**data, "inputs": {role: tuple(ids) for role, ids in data["inputs"].items()}})


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in _VERSIONS_OF:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
