"""What goes into the sandbox and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Program:
    """`code` is executed as a module, then its `entry_point` is called once per entry of `inputs`.

    Each entry is the positional arguments of one call: plain data (None, bool, int, float, str, bytes, list, tuple,
    set, dict).
    """

    code: str
    entry_point: str
    inputs: tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    cpu_s      seconds of CPU time over all its calls
    wall_s     seconds until a program that waits is ended, its time in the queue for a CPU not counted; None for
               3 * cpu_s + 1
    memory_mb  MiB of address space; the interpreter takes about 30
    file_mb    MiB of each file that it writes, and of all together where it has a file system of its own
    output_kb  KiB of values that it may return in all
    """

    cpu_s: float = 3.0
    wall_s: float | None = None
    memory_mb: int = 512
    file_mb: int = 8
    output_kb: int = 1024


@dataclass(frozen=True)
class Raised:
    """Stands in the place of an output when the call raised. `type` is the builtin exception that it was or derives
    from, `text` its first 500 characters."""

    type: str
    text: str


class Opaque:
    """Stands for an output, or a part of one, that is no plain data. Equal to nothing, not even to itself."""

    def __init__(self, type: str) -> None:
        self.type = type

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Opaque({self.type!r})"


@dataclass(frozen=True)
class Outcome:
    """What came of a program.

    status     "ok": the code loaded and every call returned or raised; "timeout": time ran out; "error": the rest
    outputs    per input, in order, the value that the call returned, or Raised; shorter than the inputs when not "ok"
    detail     why it is not "ok", for a reader
    isolation  the layers that held while it ran
    """

    status: Literal["ok", "error", "timeout"]
    outputs: tuple[object, ...]
    detail: str
    isolation: tuple[str, ...]
