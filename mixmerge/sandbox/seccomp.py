"""The filter of system calls: a classic BPF program over struct seccomp_data, put on a process by itself.

struct seccomp_data: the call's number at 0, the architecture at 4, six arguments of 8 bytes from 16 (little-endian).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

from . import syscalls

_LD, _AND, _JEQ, _JGE, _JSET, _RET = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_PID = 0x11111111  # stands for the process's own id until it is known

# terminal attributes, bytes waiting, non-blocking, close-on-exec (twice), window size
_IOCTL = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451, 0x5413)
# get the parent-death signal and dumpability, set and get a thread's name, name a mapping; it may not *set* the first
_PRCTL = (2, 3, 15, 16, 0x53564D41)
# not F_SETOWN, F_SETSIG and F_SETOWN_EX: they make the kernel send a signal of one's choice to another process
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1031, 1032)
_OPEN_FOR_WRITING = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC

Code = list[tuple[int, int, int, int]]


def _refuse(number: int) -> int:
    return 0x00050000 | number


def program(machine: str, *, writing: bool, attributes: bool, passing: bool) -> bytes:
    """The filter for a kind of machine; KeyError for one that is not known.

    writing     it may change files (Landlock or a file system of its own says which); otherwise an open for writing
                is refused by its flags
    attributes  it may change modes and times, and link
    passing     it may receive and send file descriptors
    """
    architecture, column = syscalls.ARCHITECTURES[machine]
    code: Code = [(_LD, 0, 0, 4), (_JEQ, 1, 0, architecture), (_RET, 0, 0, _KILL), (_LD, 0, 0, 0)]
    if machine == "x86_64":  # the x32 calling convention has numbers of its own
        code += [(_JGE, 0, 1, 0x40000000), (_RET, 0, 0, _KILL)]
    for name, number in syscalls.judged(column).items():
        rule = _rules(writing)[name]
        code += [(_JEQ, 0, len(rule), number), *rule]
    numbers = syscalls.allowed(column, writing=writing, attributes=attributes, passing=passing)
    for first, last in _runs(numbers):
        code += [(_JGE, 0, 2, first), (_JGE, 1, 0, last + 1), (_RET, 0, 0, _ALLOW)]
    # a number of the future: libraries try such a call and fall back when there is none
    code += [(_JGE, 0, 1, 450), (_RET, 0, 0, _refuse(errno.ENOSYS)), (_RET, 0, 0, _refuse(errno.EPERM))]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _rules(writing: bool) -> dict[str, Code]:
    no = (_RET, 0, 0, _refuse(errno.EPERM))
    yes = (_RET, 0, 0, _ALLOW)
    absent = (_RET, 0, 0, _refuse(errno.ENOSYS))

    def one_of(argument: int, *values: int) -> Code:
        tests = [part for value in values for part in ((_JEQ, 0, 1, value), yes)]
        return [(_LD, 0, 0, 16 + 8 * argument), *tests, no]

    def opening(flags: int) -> Code:
        if writing:
            return [yes]
        refused = (_RET, 0, 0, _refuse(errno.EACCES))
        return [(_LD, 0, 0, 16 + 8 * flags), (_JSET, 0, 1, _OPEN_FOR_WRITING), refused, yes]

    return {
        "clone": [(_LD, 0, 0, 16), (_JSET, 0, 1, 0x00010000), yes, no],  # CLONE_THREAD: threads, no processes
        "clone3": [absent],  # it hides its flags behind a pointer; libc falls back to clone
        "openat2": [absent],
        "open": opening(1),
        "openat": opening(2),
        "kill": one_of(0, _PID),
        "tgkill": one_of(0, _PID),
        "tkill": one_of(0, _PID),
        "ioctl": one_of(1, *_IOCTL),
        "prctl": one_of(0, *_PRCTL),
        "fcntl": one_of(1, *_FCNTL),
        # AF_UNIX and SOCK_STREAM, which asyncio needs; a datagram socket could be aimed at others
        "socketpair": [
            *[(_LD, 0, 0, 16), (_JEQ, 1, 0, 1), no],
            *[(_LD, 0, 0, 24), (_AND, 0, 0, 0xF), (_JEQ, 0, 1, 1), yes, no],
        ],
        # reading limits, its own alone: pid 0, and no new limit (both halves of the pointer)
        "prlimit64": [
            *[(_LD, 0, 0, 16), (_JEQ, 1, 0, 0), no],
            *[(_LD, 0, 0, 32), (_JEQ, 0, 3, 0), (_LD, 0, 0, 36), (_JEQ, 0, 1, 0), yes, no],
        ],
    }


def _runs(numbers: set[int]) -> list[tuple[int, int]]:
    """Consecutive numbers as (first, last)."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


class Filter:
    """A program ready to be put on: made once, before forking, so that each child only fills in its own id."""

    def __init__(self, *, writing: bool, attributes: bool, passing: bool = False) -> None:
        if not sys.platform.startswith("linux") or sys.maxsize < 1 << 32:
            raise OSError(errno.ENOSYS, "seccomp needs 64-bit Linux")
        machine = os.uname().machine
        if machine not in syscalls.ARCHITECTURES:
            raise OSError(errno.ENOSYS, f"no table of system calls for {machine}")
        code = program(machine, writing=writing, attributes=attributes, passing=passing)
        values = [struct.unpack_from("<I", code, place + 4)[0] for place in range(0, len(code), 8)]
        self._own_id = [8 * index + 4 for index, value in enumerate(values) if value == _PID]
        self._code = ctypes.create_string_buffer(code, len(code))
        self._header = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(self._code))
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl
        self._prctl(3, ctypes.c_ulong(0), None, 0, 0)  # PR_GET_DUMPABLE: the first call takes ten times as long

    def install(self) -> None:
        """Put it on this process, for good. OSError where the kernel has no such thing."""
        for place in self._own_id:
            struct.pack_into("<I", self._code, place, os.getpid())
        # PR_SET_NO_NEW_PRIVS; then PR_SET_SECCOMP with SECCOMP_MODE_FILTER, which has no number that differs by machine
        for option, first, second in ((38, 1, None), (22, 2, self._header)):
            if self._prctl(option, ctypes.c_ulong(first), second, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), f"prctl {option}")
