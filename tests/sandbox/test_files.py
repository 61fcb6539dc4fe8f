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
    assert files.size(str(tmp_path), 1 << 20) == 0
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "large").write_bytes(b"x" * 100_000)
    (tmp_path / "empty").touch()
    assert 100_000 + 2 * 4096 <= files.size(str(tmp_path), 1 << 20) < 200_000


@pytest.mark.parametrize("depth", [3, 1500, 5000])
def test_depth_is_no_hiding_place(tmp_path: Path, depth: int) -> None:
    nest(tmp_path, depth)
    assert files.size(str(tmp_path), depth * 4096) > depth * 4096
    assert files.empty(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_turns_into_a_link_while_it_is_counted_unlocks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, place = tmp_path / "victim", tmp_path / "work" / "x"
    victim.mkdir(mode=0o500)
    place.mkdir(parents=True)
    real, asked = os.scandir, []

    def swapped(path: str | int) -> object:
        """The folder within is locked, and a link is in its place as soon as that was found."""
        asked.append(path)
        if len(asked) == 1:
            return real(path)
        if len(asked) == 2:
            place.rmdir()
            place.symlink_to(victim)
        raise PermissionError(13, "locked")

    monkeypatch.setattr(os, "scandir", swapped)
    assert files.size(str(place.parent), 1 << 20) > 1 << 20
    assert victim.stat().st_mode & 0o777 == 0o500


def test_a_link_in_the_place_of_a_folder_is_not_walked(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "large").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to(tmp_path / "far")
    assert files.size(str(tmp_path / "link"), 1 << 20) == 0


def test_counting_ends_where_it_is_too_much(tmp_path: Path) -> None:
    for name in range(100):
        (tmp_path / str(name)).touch()
    assert 20_000 < files.size(str(tmp_path), 20_000) < 30_000


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
