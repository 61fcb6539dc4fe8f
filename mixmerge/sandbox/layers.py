"""The layers between a candidate and the host, each put up by trying it. Standard library only; most are Linux.

`enter_namespaces` runs in the supervisor, before it forks; `lock_down` in the child, before any candidate code. Both
return the names of what really holds; a layer that the host refuses is left out and the next one is tried.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LINUX = sys.platform.startswith("linux")
_libc = ctypes.CDLL(None, use_errno=True) if _LINUX else None

# <linux/sched.h>; the order is the order of trying, and a user namespace is what lets an ordinary user have the others
_NAMESPACES = {
    "user-namespace": 0x10000000,
    "pid-namespace": 0x20000000,
    "network-namespace": 0x40000000,
    "ipc-namespace": 0x08000000,
    "mount-namespace": 0x00020000,
}
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 16384, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER, _PR_CAPBSET_DROP = 1, 38, 36, 24
_SYS_LANDLOCK = (444, 445, 446)  # create_ruleset, add_rule, restrict_self: the same numbers on every architecture
_SYS_MOUNT_SETATTR = 442
_AT_RECURSIVE, _AT_FDCWD = 0x8000, -100


def _prctl(option: int, value: int) -> None:
    if _libc is None or _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _syscall(number: int, *arguments: object) -> int:
    if _libc is None:
        raise OSError(errno.ENOSYS, "no Linux")
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"syscall {number}")
    return result


def die_with_parent() -> bool:
    """Be killed when the thread that started this process ends. False where the host has no such thing."""
    with contextlib.suppress(OSError):
        _prctl(_PR_SET_PDEATHSIG, 9)
        return True
    return False


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none escapes by forking twice."""
    with contextlib.suppress(OSError):
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def enter_namespaces(work: str, work_mb: int) -> list[str]:
    """New namespaces, a read-only view of the files, and a file system in memory on `work`; names what holds.

    The pid namespace begins with the next fork: that child is its first process, and all others end with it.
    """
    if _libc is None:
        return []
    uid, gid = os.geteuid(), os.getegid()
    held: list[str] = []
    for name, flag in _NAMESPACES.items():
        if _libc.unshare(ctypes.c_int(flag)) == 0:
            held.append(name)
            if name == "user-namespace":
                _map_ids(uid, gid)
    if "mount-namespace" in held:
        held.remove("mount-namespace")
        with contextlib.suppress(OSError):
            _private_files(work, work_mb)
            held.append("read-only-files")
    return held


def _map_ids(uid: int, gid: int) -> None:
    """Inside, the caller is itself and nobody else exists."""
    for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with contextlib.suppress(OSError), open(f"/proc/self/{file}", "w") as handle:
            handle.write(text)


def _private_files(work: str, work_mb: int) -> None:
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
    # MOUNT_ATTR_RDONLY = 1 on every mount below /, so that not even a file's mode or time can be changed
    attributes = struct.pack("<QQQQ", 1, 0, 0, 0)
    size = ctypes.c_size_t(len(attributes))
    _syscall(_SYS_MOUNT_SETATTR, ctypes.c_int(_AT_FDCWD), b"/", ctypes.c_uint(_AT_RECURSIVE), attributes, size)
    _mount("tmpfs", work, "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={work_mb}m,mode=700,nr_inodes=1024")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    assert _libc is not None
    if _libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]) != 0:
        raise OSError(ctypes.get_errno(), f"mount on {target}")


def lock_down(job: dict[str, Any], held: list[str]) -> list[str]:
    """Everything that the child puts on itself; `held` is what the supervisor reached. Names what holds in all.

    The job's `without` leaves layers out, so that tests can see what the others do alone.
    """
    names = list(held)
    with contextlib.suppress(OSError):
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        names.append("no-new-privileges")
    layers: list[tuple[str, Callable[[], None]]] = [
        ("landlock", lambda: _landlock(job)),
        ("no-capabilities", _drop_capabilities),
        ("rlimits", lambda: _rlimits(job["limits"])),
        ("seccomp", _seccomp),
    ]
    for name, layer in layers:
        if name not in job["without"]:
            with contextlib.suppress(OSError, ValueError):
                layer()
                names.append(name)
    if "seccomp" not in names and "user-namespace" not in names:
        # counted over the whole user there, so it must leave room for what else this user runs
        with contextlib.suppress(OSError, ValueError):
            _lower(resource.RLIMIT_NPROC, 512)
    if "seccomp" in names or "network-namespace" in names:
        names.append("no-network")
    return names


def _rlimits(limits: dict[str, float]) -> None:
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, 64)
    _lower(resource.RLIMIT_FSIZE, int(limits["file_mb"]) << 20)
    # the supervisor measures CPU time finely; this coarse one holds even if the supervisor is gone
    _lower(resource.RLIMIT_CPU, int(limits["cpu_s"]) + 2)
    with contextlib.suppress(OSError, ValueError):  # honest deep recursion; the kernel keeps 128 MB free for the stack
        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        resource.setrlimit(resource.RLIMIT_STACK, (100 << 20 if hard < 0 else min(100 << 20, hard), hard))
    _lower(resource.RLIMIT_AS, int(limits["memory_mb"]) << 20)


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _drop_capabilities() -> None:
    if _libc is None:
        raise OSError(errno.ENOSYS, "no Linux")
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    # _LINUX_CAPABILITY_VERSION_3, pid 0 = this process; three empty sets of 64 bits
    if _libc.capset(struct.pack("<Ii", 0x20080522, 0), struct.pack("<6I", *[0] * 6)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _landlock(job: dict[str, Any]) -> None:
    """Read `readable`, list `listable`, write in `work`; from ABI 4 no TCP, from ABI 6 no signals to the outside."""
    create, add, restrict = _SYS_LANDLOCK
    abi = _syscall(create, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    rights = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):  # refer, truncate, ioctl on devices
        rights |= (1 << bit) if abi >= since else 0
    attributes = struct.pack("<QQQ", rights, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _syscall(create, attributes, ctypes.c_size_t(size), ctypes.c_uint(0))
    file_rights = 1 << 1 | 1 << 2 | (rights & (1 << 14))
    rules = [(path, 1 << 2 | 1 << 3) for path in job["readable"]]  # read file, read directory
    rules += [(path, 1 << 3) for path in job["listable"]]
    rules += [("/dev/null", file_rights), ("/dev/urandom", 1 << 2), ("/dev/zero", 1 << 2)]
    # in `work` everything but executing and making devices, sockets and pipes
    rules.append((job["work"], rights & ~(1 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11)))
    try:
        for path, allowed in rules:
            with contextlib.suppress(OSError):
                _allow(ruleset, add, path, allowed if Path(path).is_dir() else allowed & (file_rights | 1 << 2))
        _syscall(restrict, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, add: int, path: str, rights: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _syscall(add, ctypes.c_int(ruleset), ctypes.c_int(1), struct.pack("<Qi", rights, handle), ctypes.c_uint(0))
    finally:
        os.close(handle)


# x86_64 numbers. What a candidate has no honest use for and what reaches beyond its own process:
_REFUSED = (
    *(41, 57, 58, 59, 322),  # socket, fork, vfork, execve, execveat
    *(101, 310, 311, 312, 424, 434, 438),  # ptrace, process_vm_readv/writev, kcmp, pidfd_send_signal/open/getfd
    *(109, 112, 129, 297, 141, 144),  # setpgid, setsid, rt_(tg)sigqueueinfo, setpriority, sched_setscheduler
    *(155, 161, 165, 166, 272, 308, 428, 429, 430, 431, 432, 433, 442),  # pivot_root, chroot, mounts, unshare, setns
    *(90, 91, 268, 452, 92, 93, 94, 260),  # chmod and chown: Landlock does not cover them
    *(132, 235, 261, 280, 188, 189, 190, 197, 198, 199),  # times and extended attributes: likewise
    *(103, 135, 163, 167, 168, 169, 175, 176, 179, 227, 246, 248, 249, 250),  # syslog … reboot, modules, keys
    *(298, 303, 304, 305, 313, 320, 321, 323, 425, 426, 427),  # perf, handles, clock, bpf, userfaultfd, io_uring
)
_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOWED, _EPERM, _KILLED = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_ENOSYS = 0x00050000 | errno.ENOSYS


def _seccomp() -> None:
    if os.uname().machine != "x86_64" or sys.maxsize < 1 << 32 or _libc is None:
        raise OSError(errno.ENOSYS, "no filter for this architecture")
    program = _filter(os.getpid())
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    _syscall(317, ctypes.c_uint(1), ctypes.c_uint(0), header)  # seccomp(SECCOMP_SET_MODE_FILTER)


def _filter(own_pid: int) -> bytes:
    """A classic BPF program over struct seccomp_data: number at 0, architecture at 4, arguments of 8 bytes from 16."""
    code: list[tuple[int, int, int, int]] = [
        (_LD, 0, 0, 4),
        (_JEQ, 1, 0, 0xC000003E),  # AUDIT_ARCH_X86_64; another calling convention has other numbers
        (_RET, 0, 0, _KILLED),
        (_LD, 0, 0, 0),
        (_JGE, 0, 1, 0x40000000),  # the x32 numbers
        (_RET, 0, 0, _KILLED),
    ]

    def when(number: int, argument: int, test: int, value: int, hit: int, miss: int) -> None:
        """For one system call, decide by the low half of one argument."""
        code.extend([(_JEQ, 0, 4, number), (_LD, 0, 0, 16 + 8 * argument), (test, 0, 1, value)])
        code.extend([(_RET, 0, 0, hit), (_RET, 0, 0, miss)])

    when(56, 0, _JSET, 0x00010000, _ALLOWED, _EPERM)  # clone: threads only
    code.extend([(_JEQ, 0, 1, 435), (_RET, 0, 0, _ENOSYS)])  # clone3 hides its flags: libc falls back to clone
    for number in (62, 200, 234):  # kill, tkill, tgkill
        when(number, 0, _JEQ, own_pid, _ALLOWED, _EPERM)
    when(157, 0, _JEQ, _PR_SET_PDEATHSIG, _EPERM, _ALLOWED)  # prctl: it may not outlive its supervisor
    when(53, 0, _JEQ, 1, _ALLOWED, _EPERM)  # socketpair: AF_UNIX only, which asyncio needs
    when(302, 0, _JEQ, 0, _ALLOWED, _EPERM)  # prlimit64: of itself only
    for number in _REFUSED:
        code.extend([(_JEQ, 0, 1, number), (_RET, 0, 0, _EPERM)])
    code.append((_RET, 0, 0, _ALLOWED))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
