"""SHA-256 of files, so that what they hold names them and not where they lie. Large ones are read once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import SourceError

_LARGE_BYTES = 64 << 20  # what is smaller is read again sooner than it is worth a note
_READ_BYTES = 4 << 20


def sha256(what: str, files: Sequence[Path], cache: Path) -> str:
    """Over the names and contents of files, in the order of their names; `what` they are, for the person who waits.

    A large file's digest is noted in `cache` under its path, and the file is read again when its size, a time of change
    or its place on disk is another. What takes more than a second says so on stderr.
    Raises SourceError when a file changes while it is read, or cannot be.
    """
    from tqdm import tqdm

    total = hashlib.sha256()
    try:
        noted = {file: _noted(file, cache) for file in sorted(files, key=lambda file: file.name)}
        size = sum(file.stat().st_size for file, digest in noted.items() if not digest)
        told = f"reading {what}, to know it by what it holds"
        with tqdm(total=size, desc=told, unit="B", unit_scale=True, leave=False, delay=1, disable=None) as bar:
            for file, digest in noted.items():
                total.update(f"{digest or _read(file, cache, bar)} {file.name}\n".encode())
    except OSError as error:
        raise SourceError(f"cannot read {error.filename}: {(error.strerror or str(error)).lower()}") from error
    return total.hexdigest()


def _read(file: Path, cache: Path, bar: Any) -> str:
    before, digest = _state(file), hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
            bar.update(len(block))
    if _state(file) != before:
        raise SourceError(f"{file} changed while it was read", hint="run the same command again when it is whole")
    if before["size"] >= _LARGE_BYTES:
        _note(file, cache, {**before, "sha256": digest.hexdigest()})
    return digest.hexdigest()


def _state(file: Path) -> dict[str, int]:
    """What changes with the contents; the time of the last change of any kind cannot be set back, as the other can."""
    stat = file.stat()
    return {"size": stat.st_size, "modified_ns": stat.st_mtime_ns, "changed_ns": stat.st_ctime_ns, "inode": stat.st_ino}


def _noted(file: Path, cache: Path) -> str:
    """The digest that was noted for the file as it is now; "" when there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(_place(file, cache).read_text())
        digest = str(note.pop("sha256"))
        return digest if note == _state(file) else ""
    return ""


def _note(file: Path, cache: Path, note: dict[str, int | str]) -> None:
    """Where there is no room for notes, files are read each time."""
    with contextlib.suppress(OSError):
        place = _place(file, cache)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.{os.getpid()}")
        part.write_text(json.dumps(note))
        part.replace(place)


def _place(file: Path, cache: Path) -> Path:
    return cache / "digests" / f"{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:32]}.json"
