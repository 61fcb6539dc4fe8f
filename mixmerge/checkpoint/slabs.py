"""Stored weights a slab at a time. Read and not mapped, so that memory is what this process asked for."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .dtypes import torch_dtype
from .layout import TensorInfo
from .reading import fill

if TYPE_CHECKING:
    from torch import Tensor

SLAB = 1 << 22  # weights of each model that are read at a time: long reads, small memory


class Source(Protocol):
    """One tensor of one model, to be read in runs of weights, flat and in the dtype it has. What `read` gives may be
    handed back with `release` when it is no longer used; `expect` says that it will be read soon."""

    itemsize: int

    def expect(self) -> None: ...
    def read(self, start: int, stop: int) -> Tensor: ...
    def release(self, tensor: Tensor) -> None: ...


class Files:
    """Open files, and memory to read into. Safe in several threads."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}
        self._free: dict[int, list[Tensor]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            os.close(file)
        self._open.clear()
        self._free.clear()

    def source(self, info: TensorInfo) -> Source:
        return _Stored(self, info)

    def file(self, path: Path) -> int:
        with self._lock:
            if path not in self._open:
                self._open[path] = os.open(path, os.O_RDONLY)
            return self._open[path]

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
        if hasattr(os, "posix_fadvise"):
            file = self._files.file(self._info.file)
            os.posix_fadvise(file, self._info.offset, self._info.bytes, os.POSIX_FADV_WILLNEED)

    def read(self, start: int, stop: int) -> Tensor:
        size = (stop - start) * self.itemsize
        # The last slab of a tensor takes the memory of a whole one: those are there already.
        large = (stop - start) * 2 > SLAB
        memory = self._files.take(max(size, SLAB * self.itemsize) if large else size)
        file = self._files.file(self._info.file)
        fill(file, memory.numpy().data[:size], self._info.offset + start * self.itemsize, self._info)
        return memory[:size].view(self._dtype)

    def release(self, tensor: Tensor) -> None:
        import torch

        whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
        self._files.give(whole)


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
