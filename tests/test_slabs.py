"""Reading past the system's cache gives the same bytes as reading through it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mixmerge import CheckpointError
from mixmerge.checkpoint import slabs
from mixmerge.checkpoint.layout import TensorInfo

COUNT = 20_000


def stored(path: Path, dtype: str, tensor: torch.Tensor, offset: int) -> TensorInfo:
    """A tensor at some place of a file."""
    data = bytes(offset) + tensor.view(torch.uint8).numpy().tobytes()
    path.write_bytes(data)
    return TensorInfo("w", (len(tensor),), dtype, path, len(data) - offset, offset)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """How many bytes were read with each file's flags; nothing counts as cached."""
    if not slabs._DIRECT:
        pytest.skip("this system has no reads past its cache")
    monkeypatch.setattr(slabs, "_is_cached", lambda path: False)
    monkeypatch.setattr(slabs, "SLAB", 4096)
    found: dict[int, int] = {}
    opened: dict[int, int] = {}
    real_open, real_read = os.open, os.preadv

    def noted(path: Path, flags: int) -> int:
        file = real_open(path, flags)
        opened[file] = flags
        return file

    def counted(file: int, buffers: list[memoryview], offset: int) -> int:
        count = real_read(file, buffers, offset)
        found[opened[file] & slabs._DIRECT] = found.get(opened[file] & slabs._DIRECT, 0) + count
        return count

    monkeypatch.setattr(os, "open", noted)
    monkeypatch.setattr(os, "preadv", counted)
    return found


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
@pytest.mark.parametrize("offset", [0, 8, 4096, 4104, 9000, 8191])
def test_blocks_that_hold_a_tensor_are_read_and_no_others(
    tmp_path: Path, reads: dict[int, int], dtype: str, offset: int
) -> None:
    kind = torch.bfloat16 if dtype == "BF16" else torch.float32
    tensor = torch.randn(COUNT, generator=torch.Generator().manual_seed(offset)).to(kind)
    info = stored(tmp_path / "model.safetensors", dtype, tensor, offset)
    try:
        probe = os.open(info.file, os.O_RDONLY | slabs._DIRECT)
    except OSError:
        pytest.skip("this file system has no reads past the cache")
    os.close(probe)
    with slabs.Files() as files:
        source = files.source(info)
        source.expect()
        for start in range(0, COUNT, 4096):
            stop = min(start + 4096, COUNT)
            part = source.read(start, stop)
            assert torch.equal(part, tensor[start:stop])
            source.release(part)
        assert torch.equal(source.read(17, 3000), tensor[17:3000])
        assert torch.equal(source.read(5, 6), tensor[5:6])
    if offset % tensor.element_size():
        assert set(reads) == {0}  # its weights lie between the places where a number can
    else:
        assert reads[slabs._DIRECT] >= 0.9 * info.bytes
        assert reads[0] <= 0.3 * info.bytes


def test_a_system_that_cannot_after_all_is_read_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.arange(COUNT, dtype=torch.float32)
    info = stored(tmp_path / "model.safetensors", "F32", tensor, 64)
    monkeypatch.setattr(slabs, "_is_cached", lambda path: False)
    real = os.preadv

    def refusing(file: int, buffers: list[memoryview], offset: int) -> int:
        if len(buffers[0]) % 4096 == 0:
            raise OSError(22, "Invalid argument")
        return real(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", refusing)
    with slabs.Files() as files:
        assert torch.equal(files.source(info).read(0, COUNT), tensor)


def test_a_file_that_ends_within_a_tensor_is_told(tmp_path: Path, reads: dict[int, int]) -> None:
    tensor = torch.arange(COUNT, dtype=torch.float32)
    info = stored(tmp_path / "model.safetensors", "F32", tensor, 64)
    os.truncate(info.file, 64 + 4 * COUNT - 10)
    with slabs.Files() as files, pytest.raises(CheckpointError, match="ends within w"):
        files.source(info).read(COUNT - 4096, COUNT)


def test_a_file_that_was_just_written_is_cached(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(1 << 20)}, tmp_path / "model.safetensors")
    if slabs._DIRECT:
        assert slabs._is_cached(tmp_path / "model.safetensors")
    (tmp_path / "empty").touch()
    with slabs.Files() as files:
        assert files.past_the_cache(tmp_path / "empty") is None
