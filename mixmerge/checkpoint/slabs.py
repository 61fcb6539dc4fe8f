"""Stored weights a slab at a time. Read and not mapped, so that memory is what this process asked for."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .dtypes import torch_dtype
from .layout import TensorInfo
from .reading import fill

if TYPE_CHECKING:
    from torch import Tensor

_DIRECT: int = getattr(os, "O_DIRECT", 0) if sys.platform == "linux" else 0
_BLOCK = 4096  # what reads past the cache begin and end at, in the file and in memory
SLAB = 1 << 22  # weights of each model that are read at a time: long reads, small memory


class Source(Protocol):
    """One tensor of one model, to be read in runs of weights, flat and in the dtype it has. What `read` gives may be
    handed back with `release` when it is no longer used; `expect` says that it will be read soon."""

    itemsize: int

    def expect(self) -> None: ...
    def read(self, start: int, stop: int) -> Tensor: ...
    def release(self, tensor: Tensor) -> None: ...


class Files:
    """Open files, and memory to read into. Safe in several threads.

    A file that the system has in its cache is read from there; others are read past it, where the system can. That
    leaves the cache to whoever needs it, and costs a fraction of the time: filling it takes more than a diagnosis.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[Path, bool], int | None] = {}
        self._free: dict[int, list[Tensor]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            if file is not None:
                os.close(file)
        self._open.clear()
        self._free.clear()

    def source(self, info: TensorInfo) -> Source:
        return _Stored(self, info)

    def file(self, path: Path) -> int:
        file = self._opened(path, past_the_cache=False)
        assert file is not None
        return file

    def past_the_cache(self, path: Path) -> int | None:
        """The file opened for reads that do not go through the cache; None where it lies there, or none can be had."""
        return self._opened(path, past_the_cache=True) if _DIRECT else None

    def _opened(self, path: Path, past_the_cache: bool) -> int | None:
        with self._lock:
            if (path, past_the_cache) not in self._open:
                self._open[path, past_the_cache] = _open_direct(path) if past_the_cache else os.open(path, os.O_RDONLY)
            return self._open[path, past_the_cache]

    def take(self, size: int) -> Tensor:
        """uint8 (size,), contents unknown. Memory of a whole slab is used again: the kernel would have to clear it."""
        import torch

        with self._lock:
            kept = self._free.get(size)
            if kept:
                return kept.pop()
        return torch.empty(size, dtype=torch.uint8)

    def give(self, memory: Tensor) -> None:
        if len(memory) >= SLAB:
            with self._lock:
                self._free.setdefault(len(memory), []).append(memory)


class _Stored:
    def __init__(self, files: Files, info: TensorInfo) -> None:
        self._files, self._info = files, info
        self._dtype = torch_dtype(info.dtype)
        self.itemsize = self._dtype.itemsize

    def expect(self) -> None:
        if hasattr(os, "posix_fadvise") and self._files.past_the_cache(self._info.file) is None:
            file = self._files.file(self._info.file)
            os.posix_fadvise(file, self._info.offset, self._info.bytes, os.POSIX_FADV_WILLNEED)

    def read(self, start: int, stop: int) -> Tensor:
        size, first = (stop - start) * self.itemsize, self._info.offset + start * self.itemsize
        # The last slab of a tensor takes the memory of a whole one: those are there already.
        large = (stop - start) * 2 > SLAB
        memory = self._files.take((max(size, SLAB * self.itemsize) if large else size) + 3 * _BLOCK)
        skip = first % _BLOCK  # blocks of the file lie at multiples of a block in memory
        begin = -memory.data_ptr() % _BLOCK + skip
        have = self._read_blocks(memory.numpy().data, begin, first, size) if large and not skip % self.itemsize else 0
        begin = begin if not begin % self.itemsize else 0
        fill(
            self._files.file(self._info.file),
            memory.numpy().data[begin + have : begin + size],
            first + have,
            self._info,
        )
        return memory[begin : begin + size].view(self._dtype)

    def _read_blocks(self, memory: memoryview, begin: int, first: int, size: int) -> int:
        """Read to `memory` from `begin` on, in whole blocks; returns how many of the bytes wanted are there."""
        direct = self._files.past_the_cache(self._info.file)
        if direct is None:
            return 0
        done = 0
        try:
            while done < size:
                back = (first + done) % _BLOCK
                end = begin + size + -(first + size) % _BLOCK
                count = os.preadv(direct, [memory[begin + done - back : end]], first + done - back)
                if count <= back:
                    break
                done += count - back
        except OSError:  # a system that opens files so, and then cannot read them
            pass
        return min(done, size)

    def release(self, tensor: Tensor) -> None:
        import torch

        whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
        self._files.give(whole)


def _open_direct(path: Path) -> int | None:
    try:
        return None if _is_cached(path) else os.open(path, os.O_RDONLY | _DIRECT)
    except OSError:  # not to be had on this file system
        return None


def _is_cached(path: Path) -> bool:
    """Whether the system has most of a file in memory."""
    import ctypes
    import mmap

    import numpy as np

    size = path.stat().st_size
    if not size:
        return True
    pages = np.zeros(-(-size // mmap.PAGESIZE), dtype=np.uint8)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = np.frombuffer(mapped, dtype=np.uint8)
        mincore = ctypes.CDLL(None, use_errno=True).mincore
        mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        failed = mincore(view.ctypes.data, size, pages.ctypes.data)
        del view
    return bool(failed) or 2 * int((pages & 1).sum()) > len(pages)


class InMemory:
    """A tensor that was computed, such as one of a merge."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach().reshape(-1)
        self.itemsize = tensor.element_size()

    def expect(self) -> None:
        pass

    def read(self, start: int, stop: int) -> Tensor:
        return self._tensor[start:stop]

    def release(self, tensor: Tensor) -> None:
        pass
