"""Does steps by id; `main` is the worker, a process that does them until its input ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import MixmergeError
from ..registry import Registry
from ..store import Store
from ..types import Record, Step
from .job import Job, component_of
from .steps import DO, observer

__all__ = ["component_of", "main", "observer", "perform", "work"]


def perform(step: Step, store: Store, registry: Registry) -> Record:
    """Do one step and commit it. What the step raises is kept beside its log and raised again."""
    started = time.time()
    out = store.begin(step)
    try:
        outcome = DO[step.kind](Job(step, store, registry, out))
        return store.commit(step, started, outcome)
    except OSError as error:
        explained = store.explain(error) if error.errno else error
        store.fail(step, str(explained))
        raise explained from error
    except Exception as error:
        store.fail(step, str(error) if isinstance(error, MixmergeError) else f"{type(error).__name__}: {error}")
        raise


def work(store: Store, registry: Registry, ids: Iterable[str], reply: Callable[[str], None]) -> None:
    """Do the steps whose ids come in, one line each; reply `done` or `failed` for each. Output goes to its log."""
    for line in ids:
        step_id = line.strip()
        if not step_id:
            continue
        step = store.spec(step_id)
        store.begin(step)
        reply(_logged(step, store, registry))


def _logged(step: Step, store: Store, registry: Registry) -> str:
    sys.stdout.flush()
    sys.stderr.flush()
    with open(store.work(step.id) / "log.txt", "a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            perform(step, store, registry)
        except Exception:
            traceback.print_exc()
            return f"failed {step.id}"
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
    return f"done {step.id}"


def main(store: Path, plugins: tuple[str, ...]) -> None:
    """`mixmerge worker`: step ids on standard input, replies on standard output. Ends with its parent."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the run decides what ends
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    work(Store(store), Registry(plugins), sys.stdin, lambda line: print(line, file=replies, flush=True))
