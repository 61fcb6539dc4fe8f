"""Namespaces, Landlock, capabilities and resource limits, through the standard library alone. Linux.

Each function puts up one layer on the calling process or raises OSError; which of them a host grants is found by
trying. They run in the fork server, before it ever forks a candidate, but for `limit`, which each candidate gets.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import struct
import sys
from collections.abc import Sequence

_LINUX = sys.platform.startswith("linux")
_libc = ctypes.CDLL(None, use_errno=True) if _LINUX else None

_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on every architecture
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT = 1, 4, 38, 24, 47

NOBODY = 65534
"""The user id of a candidate, where the host lets us change it."""


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def _call(name: str, *arguments: object) -> int:
    if _libc is None:
        raise OSError(errno.ENOSYS, f"{name}: no Linux")
    return _checked(int(getattr(_libc, name)(*arguments)), name)


def _syscall(number: int, *arguments: object) -> int:
    return _call("syscall", ctypes.c_long(number), *arguments)


def _prctl(option: int, value: int) -> None:
    _call("prctl", option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def die_with_parent() -> None:
    """Be killed when the thread that started this process ends; does nothing where the host has no such thing."""
    with contextlib.suppress(OSError):
        _prctl(_PR_SET_PDEATHSIG, 9)


def no_new_privileges() -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def hide_memory() -> None:
    """Close this process's memory and environment in /proc, and ptrace, to the user's others, candidates among them.

    For good: another call could be judging still. What it costs is a core dump, and a debugger that is not root's.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def drop_capabilities() -> None:
    """All of them, for good."""
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError:
            break  # the kernel knows no more of them, or they may not be dropped, since there are none
    with contextlib.suppress(OSError):
        _prctl(_PR_CAP_AMBIENT, 4)
    # _LINUX_CAPABILITY_VERSION_3, pid 0 = this process; three empty sets of 64 bits
    _call("capset", struct.pack("<Ii", 0x20080522, 0), struct.pack("<6I", *[0] * 6))


def become_nobody() -> None:
    """Another user, who owns nothing. The kernel forgets whose end this process shares, so it is said again."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    die_with_parent()


# -- namespaces --------------------------------------------------------------------------------------------------


def enter_namespaces(
    user: bool, visible: Sequence[str], hidden: Sequence[str], kept: Sequence[str], work: str, work_mb: int
) -> None:
    """Leave the host: new namespaces, a read-only root of `visible` alone, and `work_mb` MiB of memory on `work`.

    Forks: returns in the first process of the new pid namespace, with which everything in it ends; the calling
    process waits for that one. `user` enters a user namespace too, which is what lets an ordinary user have the others.
    `hidden` are folders below visible ones that become empty, but for what is `kept` in them or elsewhere.
    """
    outside = os.geteuid(), os.getegid()
    kinds = _NEWNS | _NEWPID | _NEWIPC | _NEWUTS | _NEWCGROUP | _NEWNET
    _call("unshare", ctypes.c_int(kinds | (_NEWUSER if user else 0)))
    if user:
        for file, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{NOBODY} {outside[0]} 1"),
            ("gid_map", f"{NOBODY} {outside[1]} 1"),
        ):
            with open(f"/proc/self/{file}", "w") as handle:
                handle.write(text)
    _new_root(visible, hidden, kept)
    _writable(work, work_mb)
    _leave_old_root()
    _call("sethostname", b"sandbox", ctypes.c_size_t(7))
    child = os.fork()
    if child:
        _wait_for(child)
    die_with_parent()
    if not user:
        become_nobody()


def _wait_for(child: int) -> None:
    """In the process that stays behind: end as the child ends."""
    os.closerange(3, 256)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255)


def _mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    _call("mount", *encoded[:3], ctypes.c_ulong(flags), encoded[3])


def _pivot(new: str, old: str) -> None:
    _syscall(_PIVOT_ROOT[os.uname().machine], new.encode(), old.encode())


def _new_root(visible: Sequence[str], hidden: Sequence[str], kept: Sequence[str]) -> None:
    """As bubblewrap does: a file system in memory becomes the root, with the old one below it while the new is made."""
    _mount(None, "/", flags=_REC | _PRIVATE)
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, "size=4m,mode=755")
    for folder in ("/tmp/new", "/tmp/old"):
        os.mkdir(folder, 0o755)
    _pivot("/tmp", "/tmp/old")
    os.chdir("/")
    _mount("tmpfs", "/new", "tmpfs", _NOSUID | _NODEV, "size=4m,mode=755")
    for path in visible:
        _show(path)
    covered = [f"/new{path}" for path in hidden if os.path.isdir(f"/new{path}")]
    for path in covered:
        _mount("tmpfs", path, "tmpfs", _NOSUID | _NODEV, "size=64k,mode=755")
    for path in kept:
        _show(path)
    for path in covered:
        _mount(None, path, flags=_REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)


def _writable(work: str, work_mb: int) -> None:
    os.makedirs(f"/new{work}", exist_ok=True)
    options = f"size={work_mb}m,mode=1777,nr_inodes={64 * work_mb}"
    _mount("tmpfs", f"/new{work}", "tmpfs", _NOSUID | _NODEV | _NOEXEC, options)


def _leave_old_root() -> None:
    _call("umount2", b"/old", _DETACH)
    os.chdir("/new")
    _pivot(".", ".")
    _call("umount2", b".", _DETACH)
    os.chdir("/")
    _mount(None, "/", flags=_REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)


def _show(path: str) -> None:
    """Bind one path of the old root into the new one, read-only; a path that does not exist is left out."""
    source, target = f"/old{path}", f"/new{path}"
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif os.path.exists(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "a"):
            pass
    else:
        return
    _mount(source, target, flags=_BIND | _REC)
    # in a user namespace, flags that the host's mount has may not be taken away
    kept = os.statvfs(target).f_flag & (_NOSUID | _NODEV | _NOEXEC)
    nodev = 0 if path.startswith("/dev/") else _NODEV
    _mount(None, target, flags=_REMOUNT | _BIND | _RDONLY | _NOSUID | nodev | kept)


# -- Landlock ----------------------------------------------------------------------------------------------------


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where it has none."""
    try:
        return _syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    except OSError:
        return 0


def landlock(readable: Sequence[str], writable: Sequence[str]) -> int:
    """Read `readable` and what lies below, change `writable`, and nothing else of the file system; gives the ABI.

    From ABI 4 also no TCP, from ABI 6 no signals and no abstract sockets to the outside. Nothing may be executed.
    OSError where the kernel has no Landlock.
    """
    abi = landlock_abi()
    if abi < 1:
        raise OSError(errno.ENOSYS, "no Landlock")
    rights = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):  # refer, truncate, ioctl on devices
        rights |= (1 << bit) if abi >= since else 0
    attributes = struct.pack("<QQQ", rights, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint(0))
    # not: execute; make character devices, sockets, pipes, block devices
    changing = rights & ~(1 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11)
    of_a_file = 1 << 1 | 1 << 2 | (rights & (1 << 14 | 1 << 15))
    try:
        for paths, allowed in ((readable, 1 << 2 | 1 << 3), ((*writable, "/dev/null"), changing)):
            for path in paths:
                if os.path.exists(path):
                    _allow(ruleset, path, allowed if os.path.isdir(path) else allowed & of_a_file)
        no_new_privileges()
        _syscall(_LANDLOCK_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)
    return abi


def _allow(ruleset: int, path: str, rights: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("<Qi", rights, handle)
        _syscall(_LANDLOCK_ADD, ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint(0))
    finally:
        os.close(handle)


# -- limits ------------------------------------------------------------------------------------------------------


def limit(cpu_s: float, memory_mb: int, file_mb: int) -> None:
    """Resource limits of one candidate. The fork server measures CPU time finely; this one holds without it, too."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, 64)
    _lower(resource.RLIMIT_FSIZE, file_mb << 20)
    _lower(resource.RLIMIT_CPU, int(cpu_s) + 2)
    with contextlib.suppress(OSError, ValueError):  # honest deep recursion; the kernel keeps 128 MB free for the stack
        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        resource.setrlimit(resource.RLIMIT_STACK, (100 << 20 if hard < 0 else min(100 << 20, hard), hard))
    _lower(resource.RLIMIT_AS, memory_mb << 20)


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(OSError, ValueError):  # such as RLIMIT_AS on a host that has none
        resource.setrlimit(kind, (value, value))
