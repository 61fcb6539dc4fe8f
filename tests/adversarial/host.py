"""Hosts that grant less than this one: an ordinary user, refused namespaces. For real, and in a process of its own.

`refuse` changes the process that calls it, for good. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass

NAMESPACES = 0x7E020000  # every CLONE_NEW… flag but that of time
_CLONES = (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000)
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# unshare, setns, mount, umount2, pivot_root, and the newer calls that mount: what Docker's own filter refuses
_MOUNTING = {
    "x86_64": (272, 308, 165, 166, 155, 428, 429, 430, 431, 432, 433, 442),
    "aarch64": (97, 268, 40, 39, 41, 428, 429, 430, 431, 432, 433, 442),
}
_CLONE, _CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
_LANDLOCK = (444, 445, 446)
_SECCOMP, _PRCTL = {"x86_64": 317, "aarch64": 277}, {"x86_64": 157, "aarch64": 167}
# what Docker leaves root: CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT
# MKNOD AUDIT_WRITE SETFCAP
_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Condition:
    """A kind of host. `user`: as an ordinary user, for which root must run the tests; `refused`: what is missing."""

    name: str
    user: bool = False
    refused: tuple[str, ...] = ()
    most: int = 3
    least: int = 0


HERE = Condition("here")
USER = Condition("as a user", user=True)
REFUSED = Condition("without namespaces", refused=("namespaces",), most=2, least=1)
BOTH = Condition("as a user without namespaces", user=True, refused=("namespaces",), most=2, least=1)
COUNTED = Condition("with a limit of no namespaces", user=True, refused=("counted namespaces",), most=2, least=1)
OLD = Condition("on an old kernel", user=True, refused=("namespaces", "landlock"), most=1, least=1)
NONE = Condition("without seccomp", user=True, refused=("namespaces", "landlock", "seccomp"), most=0)
CONDITIONS = {one.name: one for one in (HERE, USER, REFUSED, BOTH, COUNTED, OLD, NONE)}


def refuse(what: tuple[str, ...]) -> None:
    """Take away from this process and its children, for good, what a stricter host would not grant."""
    if "counted namespaces" in what:
        _count_namespaces()
    if "namespaces" in what and os.geteuid() == 0:
        _keep_capabilities(_CAPABILITIES)
    if filtered := set(what) & {"namespaces", "landlock", "seccomp"}:
        _filter(filtered)


def _count_namespaces() -> None:
    """In a user namespace of its own, no more namespaces may be made: as some distributions set it for all users."""
    uid, gid = os.geteuid(), os.getegid()
    _checked(_libc.unshare(_CLONES[0]), "unshare")
    for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{file}", "w") as handle:
            handle.write(text)
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        with open(f"/proc/sys/user/max_{kind}_namespaces", "w") as handle:
            handle.write("0")
    _keep_capabilities(())


def _keep_capabilities(kept: tuple[int, ...]) -> None:
    for capability in range(64):
        if capability not in kept and _libc.prctl(24, capability, 0, 0, 0) != 0:  # PR_CAPBSET_DROP
            break
    low, high = (sum(1 << one % 32 for one in kept if one // 32 == half) for half in (0, 1))
    # version 3, pid 0: effective, permitted and inheritable, their low halves and then their high ones
    sets = struct.pack("<6I", low, low, 0, high, high, 0)
    _checked(_libc.capset(struct.pack("<Ii", 0x20080522, 0), sets), "capset")


def _filter(what: set[str]) -> None:
    machine = platform.machine()
    load, equal, any_bit, give = 0x20, 0x15, 0x45, 0x06
    allowed = (give, 0, 0, 0x7FFF0000)

    def no(number: int) -> tuple[int, int, int, int]:
        return (give, 0, 0, 0x00050000 | number)

    code = [(load, 0, 0, 4), (equal, 1, 0, _ARCHITECTURE[machine]), allowed, (load, 0, 0, 0)]
    if "namespaces" in what:
        for number in _MOUNTING[machine]:
            code += [(equal, 0, 1, number), no(errno.EPERM)]
        flags = [(load, 0, 0, 16), (any_bit, 0, 1, NAMESPACES), no(errno.EPERM), allowed]
        code += [(equal, 0, 1, _CLONE3), no(errno.ENOSYS), (equal, 0, len(flags), _CLONE[machine]), *flags]
    if "landlock" in what:
        for number in _LANDLOCK:
            code += [(equal, 0, 1, number), no(errno.ENOSYS)]
    if "seccomp" in what:
        option = [(load, 0, 0, 16), (equal, 0, 1, 22), no(errno.EINVAL), allowed]
        code += [(equal, 0, 1, _SECCOMP[machine]), no(errno.ENOSYS), (equal, 0, len(option), _PRCTL[machine]), *option]
    text = b"".join(struct.pack("<HBBI", *one) for one in [*code, allowed])
    buffer = ctypes.create_string_buffer(text, len(text))
    program = struct.pack("HxxxxxxQ", len(text) // 8, ctypes.addressof(buffer))
    _checked(_libc.prctl(38, 1, 0, 0, 0), "no_new_privs")
    _checked(_libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0), "seccomp")  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def adopt_orphans() -> None:
    """Whatever a descendant leaves behind becomes a child of this process, where it can be seen."""
    _checked(_libc.prctl(36, 1, 0, 0, 0), "subreaper")
