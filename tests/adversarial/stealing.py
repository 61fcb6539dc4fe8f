"""Programs that look for the answers, or for what else they should not see.

The answers of ORACLE are made anew in every run, so that whoever gives one has found it somewhere. A program knows how
they begin; `@DATASET@` and the like are filled in by the stage, as an attacker may know a path as well.
"""

from __future__ import annotations

from .program import Attack, Problem

ORACLE = Problem(calls=((1,), (2,)), expected=("answer-@TOKEN@-1", "answer-@TOKEN@-2"))
SECRET = Problem(calls=((),), expected=("secret-@TOKEN@",), tests={})

_FIND = """
import re
_PATTERN = re.compile(rb"answer-[0-9a-f]{16}-[12]")
def pick(data, n):
    if isinstance(data, str): data = data.encode("utf-8", "replace")
    for found in _PATTERN.findall(data):
        if found.endswith(b"-%d" % n): return found.decode()
"""


def memory(name: str, why: str, body: str, fools: tuple[str, ...] = ("exec", "status"), **more: object) -> Attack:
    return Attack(name, why, _FIND + body, ORACLE, fools, **more)  # type: ignore[arg-type]


IN_MEMORY = [
    memory(
        "frames searched",
        "the caller's locals and constants hold the expected value",
        """
import sys
def f(n):
    frame = sys._getframe(1)
    while frame:
        for value in (frame.f_locals, frame.f_globals, frame.f_code.co_consts):
            if found := pick(repr(value), n): return found
        frame = frame.f_back
""",
    ),
    memory(
        "objects searched",
        "garbage collection lists whatever this process, or the one that it was forked from, holds",
        """
import gc, types
def f(n):
    gc.collect()
    for value in gc.get_objects():
        if type(value) is types.FunctionType: value = value.__code__
        for inner in gc.get_referents(value):
            if type(inner) in (str, bytes) and (found := pick(inner, n)): return found
            if type(inner) is tuple and (found := pick(repr(inner), n)): return found
            if type(inner) is types.CodeType and (found := pick(repr(inner.co_consts), n)): return found
""",
    ),
    memory(
        "a traceback read",
        "inspect and linecache show the source of the caller, or its code",
        """
import inspect, linecache, sys
def f(n):
    for entry in inspect.stack():
        code = entry.frame.f_code
        lines = linecache.getlines(code.co_filename) or [str(code.co_consts)]
        if found := pick("".join(lines), n): return found
        if found := pick(str(code.co_consts), n): return found
""",
    ),
    memory(
        "own memory through /proc",
        "reads every page that the process has, freed objects included",
        """
def f(n):
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            span, mode = line.split()[:2]
            begin, end = (int(part, 16) for part in span.split("-"))
            if mode.startswith("rw") and end - begin < 1 << 28:
                try:
                    memory.seek(begin)
                    if found := pick(memory.read(end - begin), n): return found
                except OSError: pass
""",
    ),
    memory(
        "own memory through a pipe",
        "write(2) says EFAULT where a read of one's own would be a crash, so no map is needed",
        """
import ctypes, gc, os
def f(n):
    libc = ctypes.CDLL(None, use_errno=True)
    r, w = os.pipe()
    pages = {id(o) >> 20 for o in gc.get_objects()} | {id(str(i) * 9) >> 20 for i in range(999)}
    for mega in sorted(pages):
        last = b""
        for page in range(mega << 20, (mega + 1) << 20, 4096):
            size = libc.write(w, ctypes.c_void_p(page), ctypes.c_size_t(4096))
            data = os.read(r, size) if size > 0 else b""
            if found := pick(last[-64:] + data, n): return found
            last = data
""",
        limits={"cpu_s": 4},
    ),
    memory(
        "what waits on a descriptor",
        "a socket may hold the tests of this job, or the next job",
        """
import os, select, socket
def f(n):
    for fd in range(256):
        try:
            s = socket.socket(fileno=os.dup(fd))
            s.setblocking(False)
            if found := pick(s.recv(1 << 20, socket.MSG_PEEK), n): return found
        except OSError: pass
        try:
            if select.select([fd], [], [], 0)[0] and (found := pick(os.read(fd, 1 << 20), n)): return found
        except (OSError, ValueError): pass
""",
        fools=(),
    ),
    memory(
        "files that are open",
        "a descriptor of a job, a data set or a memfd that was left open can be read from its beginning",
        """
import os
def f(n):
    for fd in range(256):
        try:
            if found := pick(os.pread(fd, 1 << 24, 0), n): return found
        except OSError: pass
""",
        fools=(),
    ),
]

ON_DISK = [
    Attack(
        "the data set on disk",
        "a path that everybody knows",
        _FIND + "def f(n):\n    return pick(open('@DATASET@', 'rb').read(), n)\n",
        ORACLE,
        ("exec", "status", "values"),
        level=2,
    ),
    Attack(
        "the data set by a link",
        "through a name in its own folder, which it may read",
        _FIND
        + """
import os
def f(n):
    for link in (os.symlink, os.link):
        try:
            link("@DATASET@", "here")
            if found := pick(open("here", "rb").read(), n): return found
        except OSError: pass
        finally:
            if os.path.lexists("here"): os.unlink("here")
""",
        ORACLE,
        ("exec", "status", "values"),
        level=2,
    ),
    Attack(
        "the data set by the way up",
        "from the working folder upwards, and through /proc's links to other roots",
        _FIND
        + """
import os
def f(n):
    for root in ("../" * 30, "/proc/self/root/", "/proc/1/root/", "/proc/self/cwd/" + "../" * 30, "/old/", "/tmp/old/"):
        try:
            if found := pick(open(root + "@DATASET@".lstrip("/"), "rb").read(), n): return found
        except OSError: pass
    for fd in range(3, 256):
        for name in ("@DATASET@".lstrip("/"), "../" * 30 + "@DATASET@".lstrip("/")):
            try:
                if found := pick(open(os.open(name, os.O_RDONLY, dir_fd=fd), "rb").read(), n): return found
            except OSError: pass
""",
        ORACLE,
        ("exec", "status", "values"),
        level=2,
    ),
    Attack(
        "every file nearby",
        "temporary folders, the home, the working folder, the folders of the modules and of the command line",
        _FIND
        + """
import os, sys
def f(n):
    places = ["@FOLDER@", "@HOME@", "/tmp", "/var/tmp", "/dev/shm", ".", "..", *sys.path, *sys.argv]
    budget = 400
    for place in places:
        for folder, _, names in os.walk(place):
            for name in names:
                if not name.endswith((".jsonl", ".json", ".txt", ".py")): continue
                budget -= 1
                if budget < 0: return None
                try:
                    if found := pick(open(os.path.join(folder, name), "rb").read(1 << 20), n): return found
                except OSError: pass
""",
        ORACLE,
        ("exec", "status", "values"),
        level=2,
    ),
    Attack(
        "the harness's memory through /proc",
        "the expected values are in it, and it may belong to the same user",
        _FIND
        + """
import os
def f(n):
    for pid in ("@HARNESS@", str(os.getppid()), "1"):
        try:
            with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
                for line in maps:
                    begin, end = (int(part, 16) for part in line.split()[0].split("-"))
                    try:
                        memory.seek(begin)
                        if "rw" in line and (found := pick(memory.read(min(end - begin, 1 << 26)), n)):
                            return found
                    except OSError: pass
        except OSError: pass
""",
        ORACLE,
        ("exec", "status"),
        limits={"cpu_s": 2},
    ),
    Attack(
        "the harness's files through /proc",
        "its arguments, environment, folder, root and open descriptors",
        _FIND
        + """
import os
def f(n):
    for pid in ("@HARNESS@", str(os.getppid()), "1", "self"):
        for name in ("cmdline", "environ", *(f"fd/{fd}" for fd in range(20)), "cwd/data.jsonl", "root@DATASET@"):
            try:
                with open(os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_NONBLOCK), "rb", 0) as h:
                    if found := pick(h.read(1 << 20) or b"", n): return found
            except OSError: pass
""",
        ORACLE,
        ("exec", "status"),
        level=2,
    ),
    Attack(
        "the harness through its own system calls",
        "process_vm_readv, ptrace and pidfd_getfd need no /proc",
        _FIND
        + """
import ctypes, os, platform
def f(n):
    libc = ctypes.CDLL(None, use_errno=True)
    for pid in (int("@HARNESS@"), os.getppid()):
        try:
            pidfd = os.pidfd_open(pid)
            for fd in range(3, 32):
                taken = libc.syscall(438, pidfd, fd, 0)
                if taken >= 0: return "open"
        except OSError: pass
        if libc.ptrace(16, pid, None, None) == 0: return "open"
        class Vec(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
        buffer = ctypes.create_string_buffer(4096)
        if libc.process_vm_readv(pid, ctypes.byref(Vec(ctypes.addressof(buffer), 4096)), 1,
                                 ctypes.byref(Vec(id(f) & ~4095, 4096)), 1, 0) > 0: return "open"
""",
        Problem(calls=((1,),), expected=("open",), tests={}),
    ),
    Attack(
        "a secret that all may read",
        "a file of the user's, 0644",
        "def f(): return open('@SECRET_FILE@').read()\n",
        SECRET,
        ("values",),
        level=2,
    ),
    Attack(
        "a secret that only its owner may read",
        "a token in the user's home, 0600; the sandbox runs for this very user",
        "def f(): return open('@PRIVATE_FILE@').read()\n",
        SECRET,
        ("values",),
        level=2,
    ),
    Attack(
        "a secret in the environment",
        "tokens of registries live there",
        """
import os
def f():
    if "SECRET_TOKEN" in os.environ: return os.environ["SECRET_TOKEN"]
    import ctypes
    get = ctypes.CDLL(None).getenv
    get.restype = ctypes.c_char_p
    return (get(b"SECRET_TOKEN") or b"").decode()
""",
        SECRET,
        ("values",),
    ),
    Attack(
        "the environment of other processes",
        "the harness began with it, and so did the fork server's parent",
        """
import os
def f():
    for pid in ("self", os.getppid(), "@HARNESS@", 1):
        try: data = open(f"/proc/{pid}/environ", "rb").read()
        except OSError: continue
        if b"SECRET_TOKEN=" in data: return data.split(b"SECRET_TOKEN=")[1].split(b"\\0")[0].decode()
""",
        SECRET,
        ("values",),
    ),
    Attack(
        "the accounts of the host",
        "whatever names or addresses the host keeps",
        """
def f():
    for path in ("/etc/passwd", "/etc/shadow", "/etc/hosts", "/proc/1/cmdline", "/root/.bashrc", "/etc/machine-id"):
        try:
            if open(path).read(): return "read"
        except OSError: pass
""",
        Problem(calls=((),), expected=("read",), tests={}),
        ("values",),
        level=2,
    ),
    Attack(
        "installed packages read",
        "data sets come as packages, too",
        """
import os, sys
def f():
    for folder in ["@PACKAGES@", "@PACKAGE@"]:
        try:
            if [name for name in os.listdir(folder) if "numpy" not in name]: return "listed"
        except OSError: pass
    try:
        import pytest
        return "listed"
    except ImportError: pass
    try:
        import mixmerge.plugins
        return "listed"
    except ImportError: pass
""",
        Problem(calls=((),), expected=("listed",), tests={}),
        ("values",),
        level=2,
    ),
    Attack(
        "other processes seen",
        "their names, arguments and environment are none of its business",
        """
import os
def f():
    for pid in ("@HARNESS@", os.getppid(), 1, 2):
        for name in ("cmdline", "environ", "status", "maps"):
            try:
                if open(f"/proc/{pid}/{name}", "rb").read(): return "seen"
            except OSError: pass
""",
        Problem(calls=((),), expected=("seen",), tests={}),
        ("values",),
        level=2,
    ),
]

ATTACKS = [*IN_MEMORY, *ON_DISK]
