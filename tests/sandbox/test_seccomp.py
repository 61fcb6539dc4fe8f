"""The filter decides as it says, on both architectures: it is run here by an interpreter of its own language."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from mixmerge.sandbox import seccomp, syscalls

ALLOW, KILL = 0x7FFF0000, 0x80000000
OWN_ID = 4321
HEADERS = {
    "x86_64": ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"],
    "aarch64": ["/usr/include/asm-generic/unistd.h"],
}


def refused(number: int) -> int:
    return 0x00050000 | number


def decide(machine: str, call: str | int, *arguments: int, architecture: int | None = None, **allowed: bool) -> int:
    """What the filter answers to a system call."""
    given = {"writing": True, "attributes": True, "passing": False, **allowed}
    code = seccomp.program(machine, **given)
    own, column = syscalls.ARCHITECTURES[machine]
    number = syscalls.names(column)[call] if isinstance(call, str) else call
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, own if architecture is None else architecture, 0, *padded)
    return run(code, data)


def run(code: bytes, data: bytes) -> int:
    """Classic BPF, as far as seccomp allows it: load, and, jump, return."""
    accumulator, at = 0, 0
    while True:
        operation, yes, no, value = struct.unpack_from("<HBBI", code, 8 * at)
        value = OWN_ID if value == 0x11111111 else value
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x06:
            return int(value)
        else:
            hit = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[operation]
            at += yes if hit else no


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    path = next((Path(path) for path in HEADERS[machine] if Path(path).is_file()), None)
    if path is None:
        pytest.skip("no kernel headers on this machine")
    pattern = r"#define __NR(?:3264)?_(\w+)\s+(\d+)"
    real = {name: int(number) for name, number in re.findall(pattern, path.read_text())}
    real["newfstatat"] = real.get("newfstatat", real.get("fstatat", -1))
    column = syscalls.ARCHITECTURES[machine][1]
    ours = syscalls.names(column)
    assert {name: real.get(name) for name in ours} == ours
    if machine == "aarch64":  # a "-" means that there is no such call
        missing = syscalls.names(0).keys() - ours.keys()
        assert not missing & real.keys()


def test_what_a_program_needs_is_allowed(machine: str) -> None:
    for call in ("read", "write", "mmap", "futex", "exit_group", "newfstatat", "getrandom", "clock_nanosleep", "ppoll"):
        assert decide(machine, call) == ALLOW, call
    assert decide(machine, "clone", 0x3D0F00) == ALLOW  # a thread, with libc's flags
    assert decide(machine, "openat", 0, 0, 0o2 | 0o100) == ALLOW
    assert decide(machine, "unlinkat") == ALLOW
    assert decide(machine, "kill", OWN_ID, 9) == ALLOW
    assert decide(machine, "socketpair", 1, 1 | 0o2000000) == ALLOW
    assert decide(machine, "prlimit64", 0, 7, 0, 1 << 40) == ALLOW  # reading a limit


@pytest.mark.parametrize("name", ["socket", "connect", "execve", "ptrace", "bpf", "io_uring_setup", "unshare", "mount"])
def test_what_leads_out_is_refused(machine: str, name: str) -> None:
    numbers = {
        "x86_64": {"socket": 41, "connect": 42, "execve": 59, "ptrace": 101, "bpf": 321, "unshare": 272, "mount": 165},
        "aarch64": {
            "socket": 198,
            "connect": 203,
            "execve": 221,
            "ptrace": 117,
            "bpf": 280,
            "unshare": 97,
            "mount": 40,
        },
    }
    assert decide(machine, numbers[machine].get(name, 425)) == refused(errno.EPERM)


def test_arguments_decide(machine: str) -> None:
    no = refused(errno.EPERM)
    assert decide(machine, "clone", 0x01200011) == no  # fork
    assert decide(machine, "clone", 0x10000000) == no  # a user namespace
    for call in ("kill", "tgkill", "tkill"):
        for other in (1, 0, OWN_ID + 1, 0xFFFFFFFF):
            assert decide(machine, call, other, 9) == no
    assert decide(machine, "prctl", 1) == no  # to outlive its parent
    assert decide(machine, "prctl", 15) == ALLOW  # a thread's name
    for command in (8, 10, 15):  # F_SETOWN, F_SETSIG, F_SETOWN_EX
        assert decide(machine, "fcntl", 3, command) == no
    assert decide(machine, "socketpair", 1, 2) == no  # datagrams can be aimed
    assert decide(machine, "socketpair", 2, 1) == no
    assert decide(machine, "prlimit64", 0, 7, 1 << 40) == no  # the pointer's high half counts too
    assert decide(machine, "prlimit64", 0, 7, 1) == no
    assert decide(machine, "prlimit64", 99, 7, 0) == no
    assert decide(machine, "ioctl", 0, 0x5412) == no  # TIOCSTI
    assert decide(machine, "clone3") == refused(errno.ENOSYS)
    assert decide(machine, 5000) == refused(errno.ENOSYS)


def test_without_a_file_system_of_its_own_it_may_do_less(machine: str) -> None:
    assert decide(machine, "fchmodat", attributes=False) == refused(errno.EPERM)
    assert decide(machine, "openat", 0, 0, 0o1, writing=False) == refused(errno.EACCES)
    assert decide(machine, "openat", 0, 0, 0o100, writing=False) == refused(errno.EACCES)
    assert decide(machine, "openat", 0, 0, 0o2000000, writing=False) == ALLOW
    assert decide(machine, "unlinkat", writing=False) == refused(errno.EPERM)
    assert decide(machine, "recvmsg") == refused(errno.EPERM)
    assert decide(machine, "recvmsg", passing=True) == ALLOW


def test_other_calling_conventions_end_the_process(machine: str) -> None:
    assert decide(machine, "read", architecture=0x40000003) == KILL  # 32-bit x86
    if machine == "x86_64":
        assert decide(machine, 0x40000000) == KILL  # x32
