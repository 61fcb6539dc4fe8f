"""Many candidates: workers, each a thread with boxes of its own, and what is refused."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ..errors import SandboxError
from . import layers
from .box import PRELOADED, Box, Kind, Refused, isolation
from .judging import compare, split, supply
from .values import Cases, Job, Limits, Outcome, Program, Tests, Verdict

_DEFAULT = Limits()
ALLOW, REQUIRE = "MIXMERGE_ALLOW_UNSANDBOXED", "MIXMERGE_REQUIRE_ISOLATION"
Item = TypeVar("Item", Job, Program)
Found = TypeVar("Found")
_ENDED_TWICE = "the sandbox ended, twice, while it ran"
Progress = Callable[[int, int], None]


def judge(
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    without: Sequence[str] = (),
) -> list[Verdict]:
    """Judge candidates, `workers` at a time (None: as many as there are CPUs); verdicts in the order of `jobs`.

    `progress(done, all)` is called after each. `without` leaves out layers, so that tests can see what the others do
    alone. Raises SandboxError where the host isolates less than is required; see `require`.
    """
    file_mb = max((job.limits.file_mb for job in jobs), default=64)
    return _each(jobs, lambda worker, job: worker.verdict(job), workers, file_mb, progress, tuple(without))


def run_programs(
    programs: Sequence[Program], *, limits: Limits = _DEFAULT, workers: int | None = None, without: Sequence[str] = ()
) -> list[Outcome]:
    """Run programs for what they return; outcomes in the order of `programs`. The rest is as for `judge`."""
    return _each(
        programs,
        lambda worker, program: worker.outcome(program, limits),
        workers,
        limits.file_mb,
        None,
        tuple(without),
    )


def require(without: tuple[str, ...] = ()) -> None:
    """Raise SandboxError unless this host isolates candidates as far as it must.

    At least to level 1, unless the environment says MIXMERGE_ALLOW_UNSANDBOXED=1; to the level that
    MIXMERGE_REQUIRE_ISOLATION names, where it does.
    """
    wanted = os.environ.get(REQUIRE, "")
    if wanted not in ("", "0", "1", "2", "3"):
        raise SandboxError(f"{REQUIRE} is {wanted!r}", hint="allowed: 0, 1, 2, 3")
    least = int(wanted or (0 if os.environ.get(ALLOW, "") not in ("", "0") else 1))
    found = isolation(without)
    if found.level < least:
        raise SandboxError(
            f"this host isolates programs to level {found.level} ({', '.join(found.layers)}), and {least} is required",
            hint="`mixmerge doctor` says what is missing; Linux 5.13 with seccomp and Landlock gives level 2"
            + (f"; {ALLOW}=1 runs them all the same, as you, with limits only" if least == 1 else ""),
        )


def _each(
    items: Sequence[Item],
    do: Callable[[_Worker, Item], Found],
    workers: int | None,
    file_mb: int,
    progress: Progress | None,
    without: tuple[str, ...],
) -> list[Found]:
    if not items:
        return []
    require(without)
    if isolation(without).level < 2:  # candidates of this user see /proc, and the answers are in this process's memory
        with contextlib.suppress(OSError):
            layers.hide_memory()
    plan = _Plan.of(items, file_mb, without)
    found: dict[int, Found] = {}
    waiting = deque(range(len(items)))
    lock = threading.Lock()

    def work() -> None:
        with _Worker(plan) as worker:
            while waiting:
                try:
                    index = waiting.popleft()
                except IndexError:
                    return
                found[index] = do(worker, items[index])
                if progress:
                    with lock:
                        progress(len(found), len(items))

    count = max(1, min(workers or len(os.sched_getaffinity(0)), len(items)))
    with ThreadPoolExecutor(count, thread_name_prefix="mixmerge-sandbox") as pool:
        try:
            for future in [pool.submit(work) for _ in range(count)]:
                future.result()
        finally:
            waiting.clear()  # after an interrupt the others end with the candidate that they are at
    return [found[index] for index in range(len(items))]


class _Worker:
    """Boxes of one thread, made when they are needed and replaced when they are spoilt."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._boxes: dict[str, Box] = {}
        for name in plan.boxes:  # together: starting one takes longer than judging many
            self._start(name)

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._boxes):
            self._discard(name)

    def verdict(self, job: Job) -> Verdict:
        against = job.against
        if isinstance(against, Cases):
            found = self._try(job.code, lambda box: compare(box, job, against))
            return found or Verdict("fail", _ENDED_TWICE, "data", 0, 0.0)
        found = self._try(
            job.code,
            lambda box: split(box, lambda: self._box("checker"), lambda: self._discard("checker"), job, against),
        )
        return found or Verdict("fail", _ENDED_TWICE, "split", 0, 0.0)

    def outcome(self, program: Program, limits: Limits) -> Outcome:
        found = self._try(program.code, lambda box: supply(box, program, limits))
        return found or Outcome("error", (), (), _ENDED_TWICE, ())

    def _try(self, code: str, do: Callable[[Box], Found]) -> Found | None:
        """Once more in new boxes when the fork server is gone: the host may have ended it for want of memory.

        None when that happens twice on one program; SandboxError when no box can be had.
        """
        name = "numpy" if "numpy" in code else "candidate"
        for _ in range(2):
            box = self._box(name)
            try:
                found = do(box)
            except (OSError, EOFError):
                self._discard(name)
                self._discard("checker")
            else:
                if box.spoilt:
                    self._discard(name)
                return found
        return None

    def _box(self, name: str) -> Box:
        if name not in self._boxes:
            self._start(name)
        try:
            return self._boxes[name].ready()
        except Refused as error:
            raise SandboxError(
                f"the sandbox does not start any more: {error}", hint="is there memory left, and room for processes?"
            ) from error

    def _start(self, name: str) -> None:
        self._boxes[name] = Box(self._plan.kind(name))

    def _discard(self, name: str) -> None:
        if name in self._boxes:
            self._boxes.pop(name).close()


_IMPORT = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class _Plan:
    """Which boxes a worker needs: a fork server, one with numpy (which makes each fork slower), a checker."""

    boxes: tuple[str, ...]
    preload: tuple[str, ...]
    file_mb: int
    without: tuple[str, ...]

    @classmethod
    def of(cls, items: Sequence[Job | Program], file_mb: int, without: tuple[str, ...]) -> _Plan:
        numpy = sum("numpy" in item.code for item in items)
        tests = any(isinstance(item, Job) and isinstance(item.against, Tests) for item in items)
        boxes = (*["candidate"] * (numpy < len(items)), *["numpy"] * (numpy > 0), *["checker"] * tests)
        imported = {name for item in items for name in _IMPORT.findall(item.code)}
        return cls(boxes, tuple(sorted(imported & PRELOADED - {"numpy"})), file_mb, without)

    def kind(self, name: str) -> Kind:
        if name == "checker":
            return Kind("checker", file_mb=self.file_mb, without=self.without)
        return Kind("candidate", (*self.preload, *["numpy"] * (name == "numpy")), self.file_mb, self.without)
