"""Checkpoints to disk: safetensors with everything that belongs to a model beside them, whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import CheckpointError, StoreError
from ..types import Checkpoint
from .dtypes import dtype_name, torch_dtype
from .finite import require_finite
from .layout import FLOATS, INDEX, WEIGHTS
from .parts import cut
from .reading import Reader, Stored
from .stream import Derived, Family, by_family, open_all, open_checkpoint, workers

if TYPE_CHECKING:
    from torch import Tensor

BEGIN_BYTES = 8 << 20  # the disk is told to begin with so much at a time
PAGE = 4096
SHARD_BYTES = 5_000_000_000  # what the Hugging Face libraries take
_BESIDE = (  # what makes a model of weights; copied untouched
    *("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.*", "merges.txt", "*.model", "*.tiktoken", "*.jinja", "chat_template.json", "preprocessor_config.json"),
    *("*.py", "LICENSE*", "NOTICE*"),
)


def write(checkpoint: Checkpoint, out: Path, *, dtype: str | None = None, max_shard_bytes: int = SHARD_BYTES) -> str:
    """Write a checkpoint as a model directory `out`, which must not exist or be empty, and return its digest.

    dtype            "float32", "bfloat16" or "float16"; None keeps what is stored, and for a merge takes each
                     tensor's widest dtype among the experts
    max_shard_bytes  one file up to this size, several with an index above it

    config.json, generation config, tokenizer files and chat template are copied byte for byte; only the dtype in
    config.json changes, where the weights have another. `out` appears when it is whole. Raises CheckpointError when a
    tensor is not finite, StoreError when the disk is full.
    """
    return write_many([checkpoint], [out], dtype=dtype, max_shard_bytes=max_shard_bytes)[0]


def write_many(
    checkpoints: Sequence[Checkpoint],
    outs: Sequence[Path],
    *,
    dtype: str | None = None,
    max_shard_bytes: int = SHARD_BYTES,
    threads: int | None = None,
    digests: bool = True,
) -> list[str]:
    """As `write` for several; merges of the same base and experts share one pass over their tensors.

    digests  without them "" is returned for each, and the bytes are not hashed
    threads  how many parts of a tensor are worked on at a time (default: as many as torch has been given); the
             weights do not depend on it

    Memory, for methods that are rowwise: some parts of a tensor and of each merge; tensors of base and experts
    together up to 320 MiB are held, so that they are read once. Other methods hold whole tensors. Returns the digests
    in order.
    """
    readers = open_all(checkpoints)
    plans = [_plan(reader, dtype) for reader in readers]
    _require_space(outs, plans)
    with ExitStack() as stack:
        outputs = [
            stack.enter_context(_output(checkpoint, out, plan, max_shard_bytes, digests))
            for checkpoint, out, plan in zip(checkpoints, outs, plans, strict=True)
        ]
        for index, name, start, rows in _pass(checkpoints, readers, plans, threads):
            outputs[index].put(name, start, rows)
        return [output.finish() for output in outputs]


def sweep(
    checkpoints: Sequence[Checkpoint], *, dtype: str | None = None, threads: int | None = None
) -> Iterator[tuple[int, str, int, Tensor]]:
    """What `write_many` would write, and nothing is: (place in `checkpoints`, name, first row, rows).

    Tensors come in sorted order, the rows of one in order, the merges of one family side by side.
    """
    readers = open_all(checkpoints)
    return _pass(checkpoints, readers, [_plan(reader, dtype) for reader in readers], threads)


@contextmanager
def as_directory(checkpoint: Checkpoint) -> Iterator[Path]:
    """A model directory for who reads only those: the checkpoint's own, or one that is written for the time being."""
    if checkpoint.derivation is None:
        yield checkpoint.path
        return
    with tempfile.TemporaryDirectory(prefix="mixmerge-model-") as folder:
        write(checkpoint, Path(folder) / "model")
        yield Path(folder) / "model"


def digest(checkpoint: Checkpoint, *, dtype: str | None = None) -> str:
    """sha256 over (name, dtype, shape, bytes) of every tensor in sorted order; a derived checkpoint's is that of the
    files which `write` with the same `dtype` would leave. File layout and sharding have no part in it."""
    reader = open_checkpoint(checkpoint)
    plan, total = _plan(reader, dtype), hashlib.sha256()
    for name, entry in plan.items():
        _feed(total, entry, 0, _bytes(_rounded(entry, reader.get(name))))
    return total.hexdigest()


def plan(checkpoint: Checkpoint, dtype: str | None = None) -> Mapping[str, Entry]:
    """What `write` would write, by name; reads headers only."""
    return _plan(open_checkpoint(checkpoint), dtype)


@dataclass(frozen=True)
class Entry:
    """One tensor to be written; `dtype` is safetensors' spelling."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


def _plan(reader: Reader, dtype: str | None) -> dict[str, Entry]:
    """What will be written, in sorted name order: a stored checkpoint whole, a derived one without a tied head."""
    wanted = dtype_name(_parse(dtype)) if dtype else None
    names = sorted(reader.layout.tensors) if isinstance(reader, Stored) else reader.names
    plan = {}
    for name in names:
        own, shape = reader.dtype(name), reader.layout.tensors[name].shape
        kind = wanted if wanted and own in FLOATS else own
        size = torch_dtype(kind).itemsize
        for length in shape:
            size *= length
        plan[name] = Entry(name, kind, shape, size)
    return plan


def _parse(dtype: str) -> Any:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in known:
        raise CheckpointError(f"unknown dtype {dtype!r}", hint=f"allowed: {', '.join(known)}")
    return known[dtype]


def _pass(
    checkpoints: Sequence[Checkpoint],
    readers: Sequence[Reader],
    plans: Sequence[Mapping[str, Entry]],
    threads: int | None,
) -> Iterator[tuple[int, str, int, Tensor]]:
    """(index of the checkpoint, name, first row, rows in their final dtype), names in sorted order for each; merges of
    one family together."""
    import torch

    for index, (checkpoint, reader) in enumerate(zip(checkpoints, readers, strict=True)):
        if checkpoint.derivation is None:
            for name, entry in plans[index].items():
                for start, stop in cut(entry.shape):
                    rows = reader.get(name, start, stop) if entry.shape else reader.get(name)
                    yield index, name, start, _rounded(entry, rows)
    with workers(torch.get_num_threads() if threads is None else threads) as pool:
        for members in by_family(checkpoints).values():
            first = readers[members[0]]
            assert isinstance(first, Derived)
            derivations = [found for index in members if (found := checkpoints[index].derivation)]
            family = Family(derivations, first.family.inputs)
            for name in family.inputs.names:
                entries = [plans[index][name] for index in members]
                dtypes = [str(torch_dtype(entry.dtype)).removeprefix("torch.") for entry in entries]
                for position, start, rows in family.combine(name, dtypes, pool):
                    yield members[position], name, start, rows


def _rounded(entry: Entry, rows: Tensor) -> Tensor:
    found = rows.detach().to(torch_dtype(entry.dtype))
    if entry.dtype == "F16":  # the only one that a finite float32 may not fit
        require_finite(found, entry.name, "a model in float16")
    return found


class _Output:
    """A model directory that is being filled: headers are written first, each tensor then at its place."""

    def __init__(self, folder: Path, plan: Mapping[str, Entry], max_shard_bytes: int, digests: bool) -> None:
        self.folder, self.plan = folder, plan
        self._digest = hashlib.sha256() if digests else None
        self._places: dict[str, tuple[IO[bytes], int]] = {}
        self._files: list[IO[bytes]] = []
        self._done: dict[str, int] = {}  # bytes of each tensor that are written
        self._waiting: dict[int, int] = {}  # bytes of each file that the disk was not told to write yet
        shards = _shards(plan, max_shard_bytes)
        weight_map: dict[str, str] = {}
        for number, shard in enumerate(shards, 1):
            file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            self._begin(folder / file, shard)
            weight_map.update({entry.name: file for entry in shard})
        if len(shards) > 1:
            total = sum(entry.bytes for entry in plan.values())
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
            (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def _begin(self, path: Path, shard: Sequence[Entry]) -> None:
        # Whole pages first, so that all of these start on one: the system copies them a third faster, and reads past
        # its cache need no more than they ask for. Then wide dtypes, which start at a multiple of their own width.
        ordered = sorted(
            shard, key=lambda entry: (entry.bytes % PAGE > 0, -torch_dtype(entry.dtype).itemsize, entry.name)
        )
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for entry in ordered:
            header[entry.name] = {
                "dtype": entry.dtype,
                "shape": list(entry.shape),
                "data_offsets": [offset, offset + entry.bytes],
            }
            offset += entry.bytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % PAGE)
        stream = path.open("wb", buffering=0)
        self._files.append(stream)
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + offset)
        for entry in ordered:
            self._places[entry.name] = (stream, 8 + len(text) + header[entry.name]["data_offsets"][0])

    def put(self, name: str, start: int, rows: Tensor) -> None:
        """Some rows at their place; those of one tensor come in order."""
        stream, offset = self._places[name]
        data = _bytes(rows)
        if self._digest:
            _feed(self._digest, self.plan[name], start, data)
        offset += self._done.get(name, 0)
        self._done[name] = self._done.get(name, 0) + len(data)
        file = stream.fileno()
        self._waiting[file] = self._waiting.get(file, 0) + len(data)
        while data:
            count = os.pwrite(file, data, offset)
            data, offset = data[count:], offset + count
        if self._waiting[file] >= BEGIN_BYTES:
            start_writing(file)
            self._waiting[file] = 0
        if self._done[name] >= self.plan[name].bytes:
            del self._places[name]

    def finish(self) -> str:
        if self._places:
            raise CheckpointError(f"{self.folder}: tensors were never written: {', '.join(sorted(self._places)[:5])}")
        for stream in self._files:
            os.fsync(stream.fileno())
        return self._digest.hexdigest() if self._digest else ""

    def close(self) -> None:
        for stream in self._files:
            stream.close()


@contextmanager
def _output(
    checkpoint: Checkpoint, out: Path, plan: Mapping[str, Entry], max_shard_bytes: int, digests: bool
) -> Iterator[_Output]:
    """A directory beside `out` that becomes `out` when the block ends well and vanishes when it does not."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: exists already", hint="give a new directory")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.partial")
    output = None
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt that was killed
        folder.mkdir()
        _copy_beside(checkpoint, folder, plan)
        output = _Output(folder, plan, max_shard_bytes, digests)
        yield output
        output.close()
        folder.rename(out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"{out}: the disk is full", hint="free some space, then run again") from error
        raise
    finally:
        if output:
            output.close()
        shutil.rmtree(folder, ignore_errors=True)


def _copy_beside(checkpoint: Checkpoint, folder: Path, plan: Mapping[str, Entry]) -> None:
    for file in sorted({file for pattern in _BESIDE for file in checkpoint.path.glob(pattern) if file.is_file()}):
        shutil.copyfile(file, folder / file.name)
    floats = {entry.dtype for entry in plan.values() if entry.dtype in FLOATS}
    widest = max(floats, key=lambda name: torch_dtype(name).itemsize, default=None)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    key = next((key for key in ("dtype", "torch_dtype") if key in config), None)
    changed: dict[str, Any] = {}
    if key and widest and config[key] != (name := str(torch_dtype(widest)).removeprefix("torch.")):
        changed[key] = name
    if checkpoint.reading and checkpoint.reading.layers:
        changed["num_hidden_layers"] = len(checkpoint.reading.layers)
    if changed:
        text = json.dumps(config | changed, indent=2, ensure_ascii=False)
        (folder / "config.json").write_text(text + "\n", "utf-8")


def _require_space(outs: Sequence[Path], plans: Sequence[Mapping[str, Entry]]) -> None:
    needed = sum(entry.bytes for plan in plans for entry in plan.values())
    parent = next(folder for folder in (outs[0].absolute(), *outs[0].absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise StoreError(
            f"{outs[0].parent}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free",
            hint="free some space, or keep fewer merges",
        )


def _shards(plan: Mapping[str, Entry], max_shard_bytes: int) -> list[list[Entry]]:
    shards: list[list[Entry]] = [[]]
    size = 0
    for entry in plan.values():
        if shards[-1] and size + entry.bytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.bytes
    return shards


def _start_writing() -> Callable[[int], Any]:
    """(file): let the disk begin with what was written so far, while the next rows are computed, so that there is
    little left to wait for in the end. Where the system has no such call, nothing."""
    call = getattr(ctypes.CDLL(None), "sync_file_range", None) if sys.platform == "linux" else None
    if call is None:
        return lambda _: None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return lambda file: call(file, 0, 0, 2)  # SYNC_FILE_RANGE_WRITE, up to the end


start_writing = _start_writing()


def _bytes(rows: Tensor) -> memoryview:
    import torch

    data: memoryview = rows.contiguous().reshape(-1).view(torch.uint8).numpy().data
    return data


def _feed(total: Any, entry: Entry, start: int, data: memoryview) -> None:
    """Add rows in their final dtype to a digest."""
    if start == 0:
        total.update(f"{entry.name}\0{entry.dtype}\0{entry.shape}\0".encode())
    total.update(data)
