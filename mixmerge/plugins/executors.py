"""Places that run steps: `local` (worker processes on this machine) and `ray` (workers on a Ray cluster)."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import IO, Annotated, Any

from pydantic import Field

from mixmerge import Component, StepError, executor, hookimpl

_MEMORY_PER_WORKER = 4 << 30
"""Bytes. A worker that trains the quickstart's 135M model peaks at about 3.5 GiB."""

_ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Large tensors in huge pages: pouring one merge of each method took 23 CPU seconds, not 25 (quickstart, one run)."""


@executor(name="local", version="1")
def local(
    worker: Sequence[str],
    /,
    *,
    workers: Annotated[int, Field(ge=1)] | None = None,
    threads: Annotated[int, Field(ge=1)] | None = None,
) -> contextlib.AbstractContextManager[LocalPool]:
    """Worker processes on this machine.

    workers   how many steps at a time; by default one where there is a GPU (training takes them all), else one per
              core as far as 4 GiB of memory each go
    threads   of each worker; by default the cores shared out among the workers
    """
    return _local_pool(worker, *local_size(workers, threads))


def local_size(workers: int | None = None, threads: int | None = None) -> tuple[int, int]:
    """(workers, threads of each) that `local` uses for these settings on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers is None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        workers = 1 if shutil.which("nvidia-smi") else max(1, min(cores, memory // _MEMORY_PER_WORKER))
    return workers, threads or max(1, cores // workers)


@contextlib.contextmanager
def _local_pool(worker: Sequence[str], workers: int, threads: int) -> Iterator[LocalPool]:
    pool = LocalPool(tuple(worker), workers, threads)
    try:
        yield pool
    finally:
        pool.close()


@dataclass
class LocalPool:
    """Long-lived worker processes, started when first needed; a worker that dies takes only its step with it."""

    command: tuple[str, ...]
    slots: int
    threads: int
    _tasks: queue.SimpleQueue[tuple[str, Future[None]] | None] = field(default_factory=queue.SimpleQueue)
    _threads: list[threading.Thread] = field(default_factory=list)
    _processes: set[subprocess.Popen[str]] = field(default_factory=set)
    _idle: int = 0

    def submit(self, step_id: str) -> Future[None]:
        future: Future[None] = Future()
        self._tasks.put((step_id, future))
        if len(self._threads) < self.slots:
            thread = threading.Thread(target=self._serve, daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def close(self) -> None:
        """End every worker now; what it was doing stays in the store's `work` and is resumed later."""
        for _ in self._threads:
            self._tasks.put(None)
        for process in tuple(self._processes):
            with contextlib.suppress(OSError):
                os.killpg(process.pid, 9)
        for thread in self._threads:
            thread.join(timeout=5)

    def _serve(self) -> None:
        process: subprocess.Popen[str] | None = None
        while task := self._tasks.get():
            step_id, future = task
            if not future.set_running_or_notify_cancel():
                continue
            if process is None or process.poll() is not None:
                process = self._spawn()
            reply = _ask(process, step_id)
            if reply == "done":
                future.set_result(None)
            else:
                what = "failed" if reply else f"ended its worker ({_why(process)})"
                future.set_exception(StepError(f"step {step_id} {what}"))
        if process is not None:
            process.terminate()

    def _spawn(self) -> subprocess.Popen[str]:
        # One thread per process unless told otherwise: with OpenMP's default spinning, two on a busy machine were
        # measured 5 to 18 times slower. The parallelism lives in the number of workers.
        threads = str(self.threads)
        env = {**_ALLOCATOR, **os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        env["TOKENIZERS_PARALLELISM"] = "false"
        process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True
        )
        self._processes.add(process)
        return process


def _ask(process: subprocess.Popen[str], step_id: str) -> str:
    """`done`, `failed`, or "" when the worker died."""
    stdin, stdout = _pipes(process)
    try:
        stdin.write(f"{step_id}\n")
        stdin.flush()
        return stdout.readline().partition(" ")[0]
    except OSError:
        return ""


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _why(process: subprocess.Popen[str]) -> str:
    status = process.wait(timeout=10)
    return f"signal {-status}" if status < 0 else f"exit status {status}"


@executor(name="ray", version="1")
def ray(
    worker: Sequence[str],
    /,
    *,
    address: str | None = None,
    workers: Annotated[int, Field(ge=1)] = 2,
    cpus: Annotated[float, Field(gt=0)] = 1.0,
    gpus: Annotated[float, Field(ge=0)] = 0.0,
) -> contextlib.AbstractContextManager[Any]:
    """Workers on a Ray cluster that shares the store's file system; needs `pip install mixmerge[ray]`.

    address   of the cluster; by default one that is started on this machine
    workers   how many steps at a time, each with `cpus` and `gpus` of Ray's
    """
    return _ray_pool(worker, address, workers, cpus, gpus)


@contextlib.contextmanager
def _ray_pool(worker: Sequence[str], address: str | None, workers: int, cpus: float, gpus: float) -> Iterator[Any]:
    try:
        import ray as ray_package
    except ImportError:
        raise StepError("the executor 'ray' needs Ray", hint="pip install 'ray>=2.40'") from None
    ray_package.init(address=address, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)

    class Worker:
        """Holds one local worker process on whichever node Ray puts it."""

        def __init__(self) -> None:
            self.pool = LocalPool(tuple(worker), 1, max(1, int(cpus)))

        def do(self, step_id: str) -> None:
            self.pool.submit(step_id).result()

    try:
        actor = ray_package.remote(num_cpus=cpus, num_gpus=gpus)(Worker)
        yield RayPool([actor.remote() for _ in range(workers)])
    finally:
        ray_package.shutdown()


class RayPool:
    """Hands each step to an actor that is free."""

    def __init__(self, actors: list[Any]) -> None:
        self.slots = len(actors)
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for actor in actors:
            self._free.put(actor)

    def submit(self, step_id: str) -> Future[None]:
        future: Future[None] = Future()
        threading.Thread(target=self._run, args=(step_id, future), daemon=True).start()
        return future

    def _run(self, step_id: str, future: Future[None]) -> None:
        actor = self._free.get()
        try:
            actor.do.remote(step_id).future().result()
            future.set_result(None)
        except Exception as error:  # Ray wraps what the actor raised in classes of its own
            future.set_exception(StepError(f"step {step_id} failed on Ray: {error}"))
        finally:
            self._free.put(actor)


@hookimpl
def register_executors() -> list[Component]:
    return [local, ray]
