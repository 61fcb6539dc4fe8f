"""What goes into the sandbox and what comes out."""

from __future__ import annotations

import hashlib
import itertools
import marshal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from . import wire


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    cpu_s      seconds of CPU time over all that it does, loading included; a busy machine changes nothing
    idle_s     seconds in which it may wait without using a CPU and without waiting for one; None for 3 * cpu_s + 1
    memory_mb  MiB of address space; the interpreter takes about 30, numpy 150
    file_mb    MiB of all the files that it writes
    output_kb  KiB of the values that a Program may return in all
    """

    cpu_s: float = 3.0
    idle_s: float | None = None
    memory_mb: int = 1024
    file_mb: int = 64
    output_kb: int = 1024

    @property
    def patience_s(self) -> float:
        return 3 * self.cpu_s + 1 if self.idle_s is None else self.idle_s


@dataclass(frozen=True)
class Program:
    """`code` is executed as a module, then its `entry_point` is called once per entry of `inputs`.

    Each entry is the positional arguments of one call: plain data (None, bool, int, float, str, bytes, list, tuple,
    set, dict and what else `wire` carries).
    """

    code: str
    entry_point: str
    inputs: tuple[tuple[object, ...], ...]

    def __post_init__(self) -> None:
        require_calls(self.inputs)


def require_calls(calls: Sequence[Sequence[object]]) -> None:
    """Raise TypeError unless every entry is a call's arguments: (1, 2) is mistaken easily for ((1,), (2,))."""
    for number, arguments in enumerate(calls):
        if not isinstance(arguments, tuple | list):
            raise TypeError(
                f"call {number} is {arguments!r}, not the tuple of its arguments: write ({arguments!r},), so that two "
                "calls of one argument are ((1,), (2,))"
            )


@dataclass(frozen=True)
class Raised:
    """Stands in the place of an output when the call raised. `type` is the builtin exception that it was or derives
    from, `text` its first 2,000 characters."""

    type: str
    text: str


@dataclass(frozen=True)
class Digest:
    """Stands for an output that is too long to travel: the BLAKE2b-256 of its marshalled form (version 2), and its
    length in bytes."""

    digest: bytes
    size: int


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
    """What came of a Program.

    status     "ok": the code loaded and every call returned or raised; "timeout": time ran out; "error": the rest
    outputs    per input, in order: the value that the call returned, Raised, or Digest; fewer when not "ok"
    seconds    per input, of CPU time, as the program's own process measured them: to be believed of a reference only
    detail     why it is not "ok", for a reader
    isolation  the layers that held while it ran
    """

    status: Literal["ok", "error", "timeout"]
    outputs: tuple[object, ...]
    seconds: tuple[float, ...]
    detail: str
    isolation: tuple[str, ...]


@dataclass(frozen=True)
class Cases:
    """Calls and what they must give, packed once by `pack` and used for every candidate of a problem.

    inputs    the arguments of all calls, as a candidate's process reads them
    stream    the bytes with which a candidate answers when every output is the expected one, and with which it ends
    ends      where in `stream` the answer to each call ends
    sizes     bytes of each expected output
    limits_s  CPU seconds for each call
    agrees    asked with a call's index and the output's value where the bytes differ
    """

    inputs: bytes
    stream: bytes
    ends: tuple[int, ...]
    sizes: tuple[int, ...]
    limits_s: tuple[float, ...]
    agrees: Callable[[int, object], bool]

    def with_agrees(self, agrees: Callable[[int, object], bool]) -> Cases:
        """The same cases, judged by another function where bytes differ: for cases that were kept on disk."""
        return Cases(self.inputs, self.stream, self.ends, self.sizes, self.limits_s, agrees)


SHORT = 96
"""Bytes of a marshalled output that travels as it is; a longer one travels as its digest."""
_END = wire.frame(b".[]")


def pack(
    calls: Sequence[Sequence[object]],
    expected: Sequence[object],
    limits_s: Sequence[float],
    agrees: Callable[[int, object], bool] | None = None,
) -> Cases:
    """Cases of `calls` (positional arguments, plain data) with their `expected` outputs (values, or Digest).

    An output whose bytes are the expected one's is equal, and nothing is decoded. Where the bytes differ, the value is
    decoded and `agrees(index, value)` decides, in the caller's process (None: `==`); an exception in it is a failure.
    Raises ValueError where the three differ in length, TypeError where a call is no tuple of arguments.
    """
    require_calls(calls)
    if not len(calls) == len(expected) == len(limits_s):
        raise ValueError(f"{len(calls)} calls, {len(expected)} expected outputs, {len(limits_s)} limits")
    forms = [_form(value) for value in expected]
    frames = [wire.frame(body) for body, _ in forms]
    equal = _equal_to(expected) if agrees is None else agrees
    return Cases(
        packed_inputs(calls),
        b"".join([*frames, _END]),
        tuple(itertools.accumulate(map(len, frames))),
        tuple(size for _, size in forms),
        tuple(float(limit) for limit in limits_s),
        equal,
    )


def _equal_to(expected: Sequence[object]) -> Callable[[int, object], bool]:
    return lambda index, value: bool(value == expected[index])


def _form(value: object) -> tuple[bytes, int]:
    """The frame of a right output, and its size; a frame that nothing equals where the value has no such form."""
    if isinstance(value, Digest):
        return b"h" + value.digest, value.size
    try:
        data = marshal.dumps(value, 2)  # type: ignore[arg-type]
    except ValueError:
        return b"?", len(wire.dumps(wire.encode(value, lambda _: None)))
    return (b"m" + data if len(data) <= SHORT else b"h" + hashlib.blake2b(data, digest_size=32).digest()), len(data)


def packed_inputs(calls: Sequence[Sequence[object]]) -> bytes:
    """Arguments of calls as a candidate's process reads them. TypeError for what is no plain data."""
    listed = [list(call) for call in calls]
    try:
        return b"m" + marshal.dumps(listed, 2)
    except ValueError:
        return b"j" + wire.dumps(wire.encode(listed, _refuse))


def _refuse(value: Any) -> Any:
    raise TypeError(f"an input holds a {type(value).__name__}, which is no plain data")


@dataclass(frozen=True)
class Tests:
    """A benchmark's own test program, run by a trusted checker in a process of its own, away from the candidate.

    test    asserts, executed with the candidate's names bound to proxies
    prompt  trusted code that runs first: it gives the tests the helpers that a benchmark's prompt defines
    check   call `check(entry point)` afterwards, as HumanEval's tests want
    """

    __test__: ClassVar[bool] = False  # pytest takes a class of this name for one of its own

    test: str
    prompt: str = ""
    check: bool = False


@dataclass(frozen=True)
class Job:
    """A candidate and what it is judged against."""

    code: str
    entry_point: str
    against: Cases | Tests
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate passes, in EvalPlus' words.

    status  "pass"; "timeout" when a limit on time ended it; "fail"
    detail  why it is not "pass", for a reader
    by      how: outputs compared as "data", or tests run away from the candidate ("split")
    passed  for "data": how many calls agreed before the first that did not
    cpu_s   what its process used
    """

    status: Literal["pass", "fail", "timeout"]
    detail: str
    by: Literal["data", "split"]
    passed: int
    cpu_s: float


@dataclass(frozen=True)
class Isolation:
    """What stands between a candidate and this host.

    level         3: namespaces, seccomp; 2: Landlock, seccomp; 1: seccomp, the disk can be read; 0: limits only
    layers        their names, in the order in which they were put up
    landlock_abi  0 where the kernel has none
    uid           the user id that a candidate sees
    """

    level: int
    layers: tuple[str, ...]
    landlock_abi: int
    uid: int
    kernel: str
