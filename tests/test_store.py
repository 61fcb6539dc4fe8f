from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixmerge.errors import StoreError
from mixmerge.store import Store, progress, write_json
from mixmerge.types import Step

STEP = Step("0123456789abcdef", "train", "train a", inputs={"data": ("a", "b")})


def done(store: Store) -> None:
    out = store.begin(STEP)
    (out / "sub").mkdir(exist_ok=True)
    (out / "sub" / "weights").write_bytes(b"x" * 100)
    store.commit(STEP, 0.0, {"loss": 1.5})


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    done(Store(tmp_path))
    record = Store(tmp_path).record(STEP.id)
    assert record is not None
    assert (record.step, record.outcome, record.bytes) == (STEP, {"loss": 1.5}, 100)


def test_what_is_not_whole_is_not_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.begin(STEP)
    assert store.record(STEP.id) is None
    done(store)
    (store.path(STEP.id) / "sub" / "weights").write_bytes(b"x" * 99)
    assert Store(tmp_path).record(STEP.id) is None


def test_work_of_a_killed_step_stays_for_the_next_attempt(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.begin(STEP) / "checkpoint").write_text("half way")
    assert (Store(tmp_path).begin(STEP) / "checkpoint").read_text() == "half way"


def test_progress_is_read_while_the_step_runs_and_not_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    progress(store.begin(STEP), 3, 10, "loss 1.2")
    assert store.progress(STEP.id) == {"done": 3, "total": 10, "note": "loss 1.2"}
    store.commit(STEP, 0.0, {})
    assert not list(tmp_path.rglob(".progress"))


def test_a_failure_is_kept_until_the_next_attempt(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.begin(STEP)
    store.fail(STEP, "loss is nan")
    assert store.failure(STEP.id) == "loss is nan"
    store.begin(STEP)
    assert store.failure(STEP.id) == ""


def test_a_store_that_another_run_holds(tmp_path: Path) -> None:
    code = (
        "from mixmerge.store import Store; from pathlib import Path\n"
        f"with Store(Path({str(tmp_path)!r})).lock(): print('held', flush=True); input()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(StoreError, match=f"is held by process {holder.pid}") as caught, Store(tmp_path).lock():
        pass
    assert "another --out" in caught.value.hint
    holder.kill()
    holder.wait()
    with Store(tmp_path).lock():  # a killed run holds nothing
        pass


def test_a_full_disk_is_said_plainly(tmp_path: Path) -> None:
    error = Store(tmp_path).explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert "no space is left" in error.message
    assert "then goes on" in error.hint


def test_a_really_full_disk(tmp_path: Path) -> None:
    """A real file system of 64 kB, where this user may mount one."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    try:
        store = Store(small)
        (small / "filler").write_bytes(b"x" * 48_000)
        with pytest.raises(StoreError, match="no space is left"):
            store.put_spec(Step("0" * 16, "train", "x" * 30_000))
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_damaged_record_says_what_to_remove(tmp_path: Path) -> None:
    done(Store(tmp_path))
    (Store(tmp_path).path(STEP.id).parent / "record.json").write_text("{")
    with pytest.raises(StoreError, match="is damaged") as caught:
        Store(tmp_path).record(STEP.id)
    assert "remove" in caught.value.hint


def test_a_json_file_is_never_half_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == '{\n "a": 1\n}'
