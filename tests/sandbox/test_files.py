"""What a candidate wrote is counted and cleared away, however deep or locked it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mixmerge.sandbox import files


def nest(folder: Path, depth: int) -> None:
    """Folders in folders, deeper than any path that can be named."""
    here = Path.cwd()
    try:
        os.chdir(folder)
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        Path("file").write_text("x")
    finally:
        os.chdir(here)


def test_size_counts_files_and_folders(tmp_path: Path) -> None:
    assert files.size(str(tmp_path)) == 0
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "large").write_bytes(b"x" * 100_000)
    (tmp_path / "empty").touch()
    assert 100_000 + 2 * 4096 <= files.size(str(tmp_path)) < 200_000


@pytest.mark.parametrize("depth", [3, 1500, 5000])
def test_depth_is_no_hiding_place(tmp_path: Path, depth: int) -> None:
    nest(tmp_path, depth)
    assert files.size(str(tmp_path)) > depth * 4096 or files.size(str(tmp_path)) == 1 << 62
    assert files.empty(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    work = tmp_path / "work"
    (work / "a").mkdir(parents=True)
    (work / "a" / "link").symlink_to(kept)
    (work / "link").symlink_to(kept)
    (work / "loop").symlink_to(work / "loop")
    (work / "locked").mkdir(mode=0o300)
    assert files.empty(str(work))
    assert (kept / "file").read_text() == "x"
