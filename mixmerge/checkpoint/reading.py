"""Stored weights, some rows at a time. Read and not mapped: a page that was read once does not stay in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from ..errors import CheckpointError
from ..types import Checkpoint
from .adapter import check_adapter, read_adapter
from .dtypes import torch_dtype
from .layout import Layout, TensorInfo, inspect
from .tokens import Read, aligned, has_tokens, with_vocabulary

if TYPE_CHECKING:
    from torch import Tensor


class Reader(Protocol):
    """A checkpoint opened for reading by name. `dtype` is what the tensor has when it is written.

    `get` gives rows `start` to `stop` along the first dimension, the whole tensor without them.
    """

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def layout(self) -> Layout: ...
    def get(self, name: str, start: int = 0, stop: int | None = None) -> Tensor: ...
    def dtype(self, name: str) -> str: ...


class Stored:
    """A model directory; its files stay open as long as this lives. What an adapter changes comes as float32."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.layout, self._adapter = inspect(checkpoint.path), None
        if checkpoint.reading and checkpoint.reading.adapter:
            check_adapter(checkpoint.reading.adapter, self.layout)
            self._adapter = read_adapter(checkpoint.reading.adapter)
        if checkpoint.reading and checkpoint.reading.layers:
            self.layout = self.layout.with_layers(checkpoint.reading.layers)
        self._stored, self._tokens = self.layout, checkpoint.reading.tokens if checkpoint.reading else None
        if self._tokens:
            self.layout = with_vocabulary(self.layout, len(self._tokens.rows))
        self.names: Sequence[str] = self.layout.names
        self._files: dict[Path, IO[bytes]] = {}
        self._lenders: dict[int, Stored] = {}

    def info(self, name: str) -> TensorInfo:
        return self.layout.tensors[name]

    def get(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        if self._tokens and has_tokens(name, self._stored):
            end = len(self._tokens.rows) if stop is None else stop
            return aligned(self._tokens, name, start, end, self._read, self._lender)
        return self._read(name, start, stop)

    def _lender(self, place: int) -> Read:
        assert self._tokens is not None
        if place not in self._lenders:
            path = self._tokens.lenders[place]
            self._lenders[place] = Stored(Checkpoint(path.name, path, str(path)))
        return self._lenders[place].get

    def _read(self, name: str, start: int, stop: int | None) -> Tensor:
        import torch

        info = self._stored.tensors[name]
        first, size, shape = 0, info.bytes, list(info.shape)
        if info.shape and info.shape[0]:
            shape[0] = (info.shape[0] if stop is None else stop) - start
            row = info.bytes // info.shape[0]
            first, size = start * row, shape[0] * row
        buffer = torch.empty(size, dtype=torch.uint8)
        if info.file not in self._files:
            self._files[info.file] = info.file.open("rb", buffering=0)
        fill(self._files[info.file].fileno(), buffer.numpy().data, info.offset + first, info)
        rows = buffer.view(torch_dtype(info.dtype)).reshape(shape)
        return self._adapter.applied(info.name, rows, start) if self._adapter else rows

    def dtype(self, name: str) -> str:
        return self.info(name).dtype


def fill(file: int, buffer: memoryview, offset: int, info: TensorInfo) -> None:
    """Read bytes of a tensor from an open file. Safe in several threads; CheckpointError where the file ends."""
    done = 0
    while done < len(buffer):
        count = os.preadv(file, [buffer[done:]], offset + done)
        if not count:
            raise CheckpointError(f"{info.file}: ends within {info.name}", hint="was it changed while it was read?")
        done += count
