"""Bombs, floods, survivors and escapes.

Where an attack can tell that it got through, it returns "done", which is the expected value: so no pass is no success.
What it cannot tell (a process, a file or a message left behind), the stage looks for. Bombs are bounded by themselves,
so that a hole in the sandbox fails a test and not the machine.
"""

from __future__ import annotations

from .program import Attack, Problem, asserted

DONE = Problem(calls=((),), expected=("done",), tests={})
# the same asked by a checker: does that survive it as well?
BOTH = Problem(
    calls=((),), expected=("done",), tests=asserted("assert f() == 'done'", calls=((),), expected=("done",)).tests
)
TIMEOUT = ("timeout",)
SHORT = {"cpu_s": 0.2, "idle_s": 0.5}

_TRY = """
import os
def tried(*ways):
    for way in ways:
        try:
            if way() is not False: return "done"
        except BaseException: pass
"""
_LIBC = """
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"
def call(x86, arm, *arguments):
    libc.syscall.restype = ctypes.c_long
    number = arm if ARM else x86
    return -1 if number is None else libc.syscall(ctypes.c_long(number), *arguments)
"""


def spin(body: str) -> str:
    return f"def f():\n    {body}\n"


TIME = [
    Attack("an endless loop", "the plain one", spin("while True: pass"), BOTH, status=TIMEOUT, limits=SHORT),
    Attack(
        "an endless loop at import",
        "before any call",
        "while True: pass\n",
        BOTH,
        status=TIMEOUT,
        slow=True,
        limits=SHORT,
    ),
    Attack(
        "a loop that catches everything",
        "what a signal handler raises is caught",
        """
def f():
    while True:
        try:
            while True: pass
        except BaseException: pass
""",
        BOTH,
        status=TIMEOUT,
        limits=SHORT,
    ),
    Attack(
        "a loop that catches everything at import",
        "the same, and its destructors go on",
        """
class Again:
    def __del__(self):
        while True:
            try:
                while True: pass
            except BaseException: pass
while True:
    try: Again()
    except BaseException: pass
""",
        BOTH,
        status=TIMEOUT,
        slow=True,
        limits=SHORT,
    ),
    Attack(
        "a loop in C",
        "no signal handler runs before it ends",
        spin("return sum(range(10 ** 12))"),
        DONE,
        status=TIMEOUT,
        limits=SHORT,
    ),
    Attack("a power", "likewise, and it does not check for signals", spin("return 7 ** 10 ** 9"), DONE, limits=SHORT),
    Attack(
        "a pattern that backtracks",
        "likewise",
        "import re\ndef f(): return re.match('(a+)+$', 'a' * 60 + 'b')\n",
        DONE,
        status=TIMEOUT,
        limits=SHORT,
    ),
    Attack(
        "four threads that spin",
        "together they use more CPU time than the clock shows",
        """
import threading
def spin():
    while True: sum(range(1000))
for _ in range(4): threading.Thread(target=spin).start()
def f(): spin()
""",
        DONE,
        status=TIMEOUT,
        limits=SHORT,
    ),
    Attack(
        "a long sleep",
        "uses no CPU time",
        "import time\ndef f(): time.sleep(10 ** 6)\n",
        BOTH,
        status=TIMEOUT,
        limits=SHORT,
    ),
    Attack(
        "many short sleeps",
        "progress, but none worth the name",
        "import time\ndef f():\n    while True: time.sleep(0.001)\n",
        DONE,
        status=TIMEOUT,
        limits={"cpu_s": 2, "idle_s": 0.5},
    ),
    Attack(
        "a little work and a long pause",
        "just more than the rule against sleepers asks for: its CPU time ends it",
        """
import time
def f():
    while True:
        time.sleep(0.01)
        begin = time.process_time()
        while time.process_time() - begin < 0.002: pass
""",
        DONE,
        status=TIMEOUT,
        limits={"cpu_s": 0.2, "idle_s": 0.5},
    ),
    Attack(
        "stopped by itself",
        "it neither runs nor ends",
        "import os, signal\ndef f(): os.kill(os.getpid(), signal.SIGSTOP)\n",
        BOTH,
        status=TIMEOUT,
        limits=SHORT,
    ),
    Attack(
        "stopped at import",
        "the same, earlier",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n",
        BOTH,
        status=TIMEOUT,
        slow=True,
        limits=SHORT,
    ),
    Attack(
        "signals ignored",
        "everything but SIGKILL and SIGSTOP",
        """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
signal.setitimer(signal.ITIMER_PROF, 0)
def f():
    while True: pass
""",
        BOTH,
        status=TIMEOUT,
        limits=SHORT,
    ),
    Attack(
        "a deadlock",
        "a lock taken twice",
        "import threading\nlock = threading.Lock()\ndef f():\n    lock.acquire()\n    lock.acquire()\n",
        DONE,
        status=TIMEOUT,
        limits=SHORT,
    ),
    Attack(
        "a thread that is waited for",
        "the interpreter waits for it at its end",
        """
import threading, time
threading.Thread(target=time.sleep, args=(10 ** 6,)).start()
def f(): raise SystemExit(0)
""",
        DONE,
    ),
    Attack(
        "an endless destructor",
        "runs when the interpreter is leaving",
        """
class Again:
    def __del__(self):
        while True: pass
keep = Again()
import atexit
atexit.register(Again)
def f(): return 1
""",
        DONE,
    ),
    Attack(
        "the clock turned off",
        "what measures its time inside its own process is its to replace",
        """
import signal, time
time.process_time = time.monotonic = time.perf_counter = lambda: 0.0
signal.setitimer = signal.signal = signal.alarm = lambda *a: None
def f():
    while True: pass
""",
        BOTH,
        status=TIMEOUT,
        limits=SHORT,
    ),
    Attack(
        "source that takes for ever to compile",
        "constants are folded before anything runs",
        "x = " + "(" * 90 + "1" + ")" * 90 + "\ny = " + "+".join(["1"] * 20000) + "\ndef f(): return 1\n",
        DONE,
        limits=SHORT,
    ),
    Attack(
        "source of five megabytes",
        "a data line that nobody writes by hand",
        "data = [" + "1234567," * 600_000 + "]\ndef f(): return 1\n",
        DONE,
        limits=SHORT,
    ),
]

MEMORY = [
    Attack("ten gigabytes at once", "more than the limit in one piece", spin("return len(bytearray(10 ** 10))"), BOTH),
    Attack(
        "memory doubled for ever",
        "quickly",
        "def f():\n    x = [0]\n    while len(x) < 3 << 28: x += x\n    return 'done'\n",
        BOTH,
        limits={"cpu_s": 2, "memory_mb": 256},
    ),
    Attack(
        "memory in small pieces",
        "slowly, and it catches the error to go on",
        """
def f():
    keep = []
    for _ in range(4000):
        try: keep.append(bytes(1 << 20))
        except MemoryError: pass
        if len(keep) > 600: return "done"
""",
        DONE,
        limits={"cpu_s": 2, "memory_mb": 256},
    ),
    Attack(
        "memory mapped",
        "shared, anonymous and without a reservation",
        """
import mmap
def f():
    keep = []
    for flags in (mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000):
        try:
            for _ in range(64):
                keep.append(mmap.mmap(-1, 16 << 20, flags=flags))
                keep[-1][::4096] = bytes(4096)
        except (OSError, ValueError): pass
    if len(keep) >= 64: return "done"
""",
        DONE,
        limits={"cpu_s": 2, "memory_mb": 256},
    ),
    Attack(
        "memory that no process has mapped",
        "memfd, pipes and System V segments are the kernel's memory; a segment stays until somebody removes it",
        _LIBC
        + """
def f():
    total = 0
    try:
        for n in range(40):
            fd = os.memfd_create("x")
            total += sum(os.write(fd, bytes(1 << 20)) for _ in range(16))
            if total > 256 << 20: return "done"
    except (OSError, AttributeError): pass
    keep = []
    try:
        for n in range(30):
            keep.append(os.pipe())
            import fcntl
            fcntl.fcntl(keep[-1][1], 1031, 1 << 20)
    except OSError: pass
    if call(29, 194, 0, ctypes.c_size_t(64 << 20), 0o1600) >= 0: return "done"
    if call(68, 186, 0, 0o1600) >= 0: return "done"
    if call(64, 190, 0, 1, 0o1600) >= 0: return "done"
""",
        DONE,
        limits={"memory_mb": 256},
    ),
    Attack(
        "memory at import",
        "before any call",
        "x = [bytes(1 << 20) for _ in range(1000)]\ndef f(): return 'done'\n",
        BOTH,
        limits={"memory_mb": 256},
    ),
    Attack(
        "endless recursion",
        "a limit on recursion that is out of the way",
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x=0): return f([x])\n",
        BOTH,
        limits={"cpu_s": 0.5, "memory_mb": 256},
    ),
    Attack(
        "recursion in C",
        "the interpreter's own stack",
        """
import sys
sys.setrecursionlimit(10 ** 9)
def f():
    x = []
    for _ in range(10 ** 5): x = [x]
    repr(x)
    x == x
    return hash(x)
""",
        BOTH,
        limits={"cpu_s": 0.5},
    ),
    Attack(
        "source nested too deep",
        "the compiler recurses; older ones crash",
        "def f(): return eval('-' * 10 ** 6 + '1'), eval('(' * 10 ** 6)\n",
        DONE,
        limits={"cpu_s": 2},
    ),
    Attack("a segmentation fault", "reads at address 0", "import ctypes\ndef f(): return ctypes.string_at(0)\n", BOTH),
    Attack("a segmentation fault at import", "earlier", "import ctypes\nctypes.string_at(0)\n", BOTH),
    Attack("an abort", "with a core dump, where those are on", "import os\ndef f(): os.abort()\n", BOTH),
]

PROCESSES = [
    Attack(
        "a fork bomb",
        "64 processes that sleep; a real one does not stop",
        """
import os, time
def f():
    begun = os.getpid()
    for _ in range(6): os.fork()
    if os.getpid() != begun: time.sleep(60)
    return "done"
""",
        BOTH,
    ),
    Attack(
        "a fork bomb at import",
        "earlier, and it catches what refuses it",
        """
import os, time
begun, started = os.getpid(), 0
for _ in range(50):
    try:
        if os.fork() == 0: time.sleep(60)
        started += 1
    except OSError: pass
def f(): return "done" if started else None
""",
        BOTH,
    ),
    Attack(
        "processes by other names",
        "fork, vfork, clone and clone3 as the kernel knows them",
        _LIBC
        + """
def f():
    libc.syscall.restype = ctypes.c_long
    args = (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17)
    for numbers, arguments in (((57, None), ()), ((56, 220), (17, 0, 0, 0, 0)), ((435, 435), (args, 88))):
        pid = call(*numbers, *arguments)
        if pid == 0: os._exit(0)
        if pid > 0: return "done"
""",
        DONE,
    ),
    Attack(
        "programs run",
        "every way to start one that Python has",
        _TRY
        + """
import subprocess, sys
def f():
    program = "/usr/bin/true" if os.path.exists("/usr/bin/true") else "/bin/true"
    def piped(): os.popen("true").read(); return False
    return tried(
        lambda: subprocess.run([program], check=True),
        lambda: subprocess.run([sys.executable, "-c", ""], check=True),
        lambda: os.posix_spawn(program, ["true"], {}),
        lambda: os.system("true") == 0,
        lambda: os.forkpty()[0] > 0 or os._exit(0),
        piped,
    )
""",
        DONE,
    ),
    Attack(
        "this process made another program",
        "an exec keeps the descriptors: the line to the judge is the new program's",
        """
import os, sys
def f():
    text = "import os; os.write(3, b'\\\\x0d\\\\0\\\\0\\\\0[\\"r\\",\\"done\\"]')"
    for path in (sys.executable, "/usr/bin/python3", "/bin/sh", "/lib64/ld-linux-x86-64.so.2"):
        try: os.execv(path, [path, "-c", text])
        except OSError: pass
    try:
        fd = os.memfd_create("x")
        os.write(fd, open(sys.executable, "rb").read())
        os.execve(fd, ["x", "-c", text], {})
    except OSError: pass
    with open("own", "w") as h: h.write("#!/bin/sh\\ntrue\\n")
    try: os.chmod("own", 0o755)
    except OSError: pass
    os.execv("./own", ["own"])
""",
        DONE,
    ),
    Attack(
        "a survivor",
        "two forks and a session of its own tear it from whoever watches it",
        """
import os, time
def f():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(256):
                try: os.close(fd)
                except OSError: pass
            time.sleep(60)
        os._exit(0)
    return "done"
""",
        BOTH,
    ),
    Attack(
        "a survivor that was told to outlive",
        "the death signal of its parent taken back, its session and group left",
        _LIBC
        + """
import time
def f():
    libc.prctl(1, 0, 0, 0, 0)
    libc.prctl(36, 1, 0, 0, 0)
    for leave in (os.setsid, lambda: os.setpgid(0, 0)):
        try: leave()
        except OSError: pass
    time.sleep(1000)
""",
        DONE,
        limits=SHORT,
    ),
    Attack(
        "a thread bomb",
        "threads are allowed, and small stacks let thousands of them fit",
        """
import threading, time
def f():
    threading.stack_size(32768)
    started = 0
    try:
        for _ in range(6000):
            threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
            started += 1
    except (RuntimeError, MemoryError): pass
    while True: time.sleep(1)
""",
        DONE,
        limits={"cpu_s": 0.5, "idle_s": 1},
    ),
    Attack(
        "daemon threads left running",
        "its answer is wrong, and its threads go on",
        """
import threading
def spin():
    while True: sum(range(1000))
for _ in range(3): threading.Thread(target=spin, daemon=True).start()
def f(): return 0
""",
        BOTH,
    ),
    Attack(
        "a process pool",
        "forks, and semaphores that live in shared memory by name",
        """
import multiprocessing
def f():
    with multiprocessing.get_context("fork").Pool(2) as pool: pool.map(abs, [1])
    return "done"
""",
        DONE,
        limits={"idle_s": 2},
    ),
]

FILES = [
    Attack(
        "one large file",
        "more than the limit",
        """
def f():
    with open("large", "wb") as h:
        for _ in range(64): h.write(bytes(1 << 20))
    return "done"
""",
        BOTH,
        limits={"file_mb": 8},
    ),
    Attack(
        "many files",
        "none is large",
        """
def f():
    for n in range(64):
        with open(f"large{n}", "wb") as h: h.write(bytes(1 << 20))
    import time
    time.sleep(0.3)
    return "done"
""",
        DONE,
        limits={"file_mb": 8},
    ),
    Attack(
        "many files that are unlinked",
        "they take room and have no names",
        """
import os
def f():
    keep = []
    for n in range(60):
        keep.append(open("x", "wb"))
        os.unlink("x")
        try: keep[-1].write(bytes(4 << 20)); keep[-1].flush()
        except OSError: pass
    if sum(os.fstat(h.fileno()).st_blocks * 512 for h in keep) > 200 << 20: return "done"
""",
        DONE,
        limits={"file_mb": 8, "cpu_s": 2},
    ),
    Attack(
        "a hundred thousand small files",
        "they take inodes, and time to remove",
        """
def f():
    for n in range(100_000):
        with open(f"f{n}", "w"): pass
""",
        DONE,
        limits={"cpu_s": 1},
    ),
    Attack(
        "folders in folders",
        "deeper than recursion goes, and than a path can say",
        """
import os
def f():
    for _ in range(3000):
        os.mkdir("d" * 100)
        os.chdir("d" * 100)
    open("at the bottom", "w")
""",
        DONE,
        limits={"cpu_s": 2},
    ),
    Attack(
        "folders in folders with short names",
        "deeper than recursion goes, though a path can say it",
        """
import os, time
def f():
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    open("f", "w")
    time.sleep(0.2)
""",
        DONE,
        limits={"cpu_s": 2},
    ),
    Attack(
        "folders that cannot be read",
        "whoever clears away cannot list them, and no chmod was needed",
        """
import os
def f():
    for mode in (0o300, 0o100, 0o000, 0o500):
        os.mkdir(f"locked{mode}", mode)
        try:
            open(f"locked{mode}/f", "w").write("x")
            os.mkdir(f"locked{mode}/inner", mode)
        except OSError: pass
    os.umask(0o777)
    os.mkdir("masked")
    open("masked file", "w")
    os.makedirs("a/b/c", exist_ok=True)
""",
        BOTH,
    ),
    Attack(
        "files that cannot be changed",
        "modes taken away after writing",
        """
import os
def f():
    os.makedirs("a/b")
    open("a/b/f", "w").write("x")
    for path in ("a/b/f", "a/b", "a", "."):
        try: os.chmod(path, 0)
        except OSError: pass
""",
        BOTH,
    ),
    Attack(
        "names that are no text",
        "bytes that are no UTF-8, newlines, dashes, very long ones",
        r"""
import os
def f():
    for name in (b"\xff\xfe", b"a\nb", b"-rf", b"*", b" ", b"x" * 255, "\u00e9\u202e".encode()):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        os.mkdir(name[:200] + b".d")
        os.close(os.open(name[:200] + b".d/" + name, os.O_CREAT | os.O_WRONLY))
""",
        BOTH,
    ),
    Attack(
        "links to a victim",
        "whoever clears away must not walk through them",
        """
import os
def f():
    for way, name in ((os.symlink, "s"), (os.link, "h")):
        for target in ("@VICTIM@", "@VICTIM@/victim", "/", "..", "."):
            try: way(target, name + str(len(os.listdir("."))))
            except OSError: pass
    os.mkdir("d")
    try: os.symlink("@VICTIM@", "d/inner")
    except OSError: pass
""",
        BOTH,
    ),
    Attack(
        "a victim's modes through a folder that turns into a link",
        "whoever unlocks folders while the program runs must not unlock what a link shows",
        """
import os, threading
def f():
    import time
    end = time.monotonic() + 1
    while time.monotonic() < end:
        os.mkdir("x", 0)
        time.sleep(0.0005)
        os.rmdir("x")
        os.symlink("@VICTIM@/locked", "x")
        time.sleep(0.0005)
        os.unlink("x")
""",
        DONE,
        limits={"cpu_s": 1, "idle_s": 3},
    ),
    Attack(
        "pipes, sockets and devices",
        "whoever opens them may wait for ever",
        _TRY
        + """
import socket
def f():
    tried(lambda: os.mkfifo("fifo"), lambda: False)
    tried(lambda: socket.socket(socket.AF_UNIX).bind("socket"), lambda: False)
    if tried(lambda: os.mknod("zero", 0o20666, os.makedev(1, 5)), lambda: os.mknod("disk", 0o60666, os.makedev(8, 0))): return "done"
    os.symlink("fifo", "to fifo")
""",
        DONE,
    ),
    Attack(
        "a sparse file of a terabyte",
        "it takes no room and looks as if it did",
        """
import os
def f():
    for size in (1 << 40, 1 << 30):
        fd = os.open("sparse", os.O_CREAT | os.O_RDWR)
        try:
            os.truncate(fd, size)
            return "done"
        except OSError: pass
        try:
            os.posix_fallocate(fd, 0, size)
            return "done"
        except OSError: pass
""",
        DONE,
    ),
    Attack(
        "the folder filled to the last byte",
        "the next candidate wants a temporary file as well",
        """
def f():
    n = 0
    while n < 2000:
        try:
            with open(f"x{n}", "wb") as h:
                while True: h.write(bytes(1 << 16))
        except OSError: pass
        n += 1
""",
        DONE,
        limits={"file_mb": 8, "cpu_s": 1},
    ),
    Attack(
        "writing outside",
        "the folder of the harness, temporary folders, the package, the interpreter, devices",
        _TRY
        + """
def f():
    import sys
    places = ["@VICTIM@", "@FOLDER@", "@HOME@", "@PACKAGE@", "/var/tmp", "/dev/shm", "/", "/run", "/usr/lib", "/etc", "/tmp/..",
              os.path.dirname(os.__file__), os.path.dirname(sys.executable)]
    for place in places:
        if tried(lambda: open(os.path.join(place, "@MARK@"), "w").write("x"), lambda: os.mkdir(os.path.join(place, "@MARK@d"))):
            return "done"
    return tried(
        lambda: open("@VICTIM@/victim", "w"), lambda: open("@VICTIM@/victim", "r+").write("x"),
        lambda: os.truncate("@VICTIM@/victim", 0), lambda: os.unlink("@VICTIM@/victim"),
        lambda: os.rename("@VICTIM@/victim", "@VICTIM@/other"), lambda: os.rename("@VICTIM@/victim", "stolen"),
        lambda: os.chmod("@VICTIM@/victim", 0o777), lambda: os.utime("@VICTIM@/victim", (1, 1)), lambda: os.chown("@VICTIM@/victim", 1, 1),
        lambda: os.setxattr("@VICTIM@/victim", "user.x", b"x"), lambda: os.rmdir("@VICTIM@/empty"),
        lambda: os.symlink("/", "@VICTIM@/link"), lambda: os.link("@VICTIM@/victim", "@VICTIM@/hard"), lambda: os.mkfifo("@VICTIM@/fifo"),
        lambda: open("/dev/tty", "w").write("x"), lambda: open("/dev/kmsg", "w").write("x"), lambda: open("/proc/sys/kernel/hostname", "w").write("x"),
        lambda: open("/proc/self/oom_score_adj", "w").write("1000"), lambda: open("/proc/@HARNESS@/oom_score_adj", "w").write("1000"),
    )
""",
        DONE,
    ),
    Attack(
        "text without end",
        "printed",
        "def f():\n    while True: print('x' * 65536)\n",
        BOTH,
        status=TIMEOUT,
        limits=SHORT,
    ),
    Attack(
        "text without end on the descriptors",
        "of output and of errors",
        """
import os, sys
def f():
    while True:
        for fd in (1, 2):
            try: os.write(fd, b"x" * 65536)
            except OSError: pass
        print("x" * 65536, file=sys.stderr)
""",
        BOTH,
        status=TIMEOUT,
        limits=SHORT,
    ),
]

NETWORK = [
    Attack(
        "a connection",
        "to a port of this host that listens",
        """
import socket
def f():
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as s:
                s.settimeout(1)
                s.connect((host, int("@PORT@")))
                s.sendall(b"hello")
                return "done"
        except OSError: pass
""",
        DONE,
    ),
    Attack(
        "a datagram",
        "nobody needs to answer",
        """
import socket
def f():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        return "done" if s.sendto(b"hello", ("127.0.0.1", int("@UDP@"))) else None
""",
        DONE,
    ),
    Attack(
        "sockets of this host",
        "by a path and by an abstract name: D-Bus, an ssh agent, Docker",
        """
import socket
def f():
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for name in ("@SOCKET@", "\\0@ABSTRACT@", "/var/run/docker.sock"):
            try:
                s = socket.socket(socket.AF_UNIX, kind)
                s.connect(name)
                s.send(b"hello")
                return "done"
            except OSError: pass
            try:
                a, b = socket.socketpair(socket.AF_UNIX, kind)
                a.sendto(b"hello", name)
                return "done"
            except OSError: pass
""",
        DONE,
    ),
    Attack(
        "sockets of other families",
        "netlink, packets, crypto, virtual machines, Bluetooth: the kernel's less tried parts",
        _TRY
        + """
import socket
def f():
    return tried(*(lambda family=family, kind=kind: socket.socket(family, kind)
                   for family in range(1, 46) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW)))
""",
        DONE,
    ),
    Attack(
        "a server",
        "another candidate may connect to it",
        """
import socket
def f():
    with socket.create_server(("127.0.0.1", 0)): return "done"
""",
        DONE,
    ),
    Attack(
        "a name looked up",
        "a query carries whatever one likes",
        """
import socket
def f():
    socket.setdefaulttimeout(1)
    socket.getaddrinfo("secret.example.com", 80)
    return "done"
""",
        DONE,
        limits={"idle_s": 3},
    ),
]

ESCAPES = [
    Attack(
        "the harness killed",
        "by its number, its group, and everybody that may be signalled",
        """
import os, signal
def f():
    done = None
    for pid in (int("@HARNESS@"), os.getppid()):
        if pid > 1:
            for kill in (os.kill, os.killpg):
                try: kill(pid, signal.SIGKILL); done = "done"
                except OSError: pass
    try:
        os.kill(-1, 0)
        # in a pid namespace of its own numbers are low, and nobody else is there to be hurt
        if os.getpid() < 50: os.kill(-1, signal.SIGKILL)
        else: done = "done"
    except OSError: pass
    if os.getpgrp() != os.getpid():
        try: os.kill(0, signal.SIGTERM); done = "done"
        except OSError: pass
    return done
""",
        DONE,
    ),
    Attack(
        "the harness signalled by other calls",
        "queues, threads, pidfds, and the owner of a descriptor, whom the kernel signals in our name",
        _LIBC
        + """
import fcntl, signal
def f():
    info = ctypes.create_string_buffer(128)
    ctypes.c_int.from_buffer(info, 0).value = ctypes.c_int.from_buffer(info, 0).value or 15
    ctypes.c_int.from_buffer(info, 8).value = -1
    for pid in (int("@HARNESS@"), os.getppid()):
        if pid < 2: continue
        if call(129, 138, pid, 15, info) >= 0: return "done"
        if call(297, 240, pid, pid, 15, info) >= 0: return "done"
        if call(200, 130, pid, 15) >= 0: return "done"
        if call(234, 131, pid, pid, 15) >= 0: return "done"
        try:
            signal.pidfd_send_signal(os.pidfd_open(pid), 15)
            return "done"
        except (OSError, AttributeError): pass
        r, w = os.pipe()
        try:
            fcntl.fcntl(r, fcntl.F_SETOWN, pid)
            fcntl.fcntl(r, 10, signal.SIGKILL)  # F_SETSIG
            fcntl.fcntl(r, fcntl.F_SETFL, fcntl.fcntl(r, fcntl.F_GETFL) | os.O_ASYNC)
            os.write(w, b"x")
            return "done"
        except OSError: pass
        try:
            fcntl.ioctl(3, 0x8901, ctypes.c_int(pid))  # FIOSETOWN
            return "done"
        except (OSError, TypeError): pass
""",
        DONE,
    ),
    Attack(
        "the harness slowed",
        "its limits, priority and processors; the same user may change those",
        _LIBC
        + """
import resource
def f():
    one = (ctypes.c_uint64 * 2)(1, 1)
    for pid in (int("@HARNESS@"), os.getppid()):
        if pid < 2: continue
        for way in (
            lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (1000, 1000)),
            lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
            lambda: os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))}),
            lambda: os.sched_setscheduler(pid, 3, os.sched_param(0)),
        ):
            try:
                way()
                return "done"
            except OSError: pass
        if call(251, 30, 1, pid, (3 << 13)) >= 0: return "done"  # ioprio_set: idle
        if call(256, 238, pid, ctypes.c_ulong(64), one, one) > 0: return "done"  # migrate_pages
""",
        DONE,
    ),
    Attack(
        "limits raised",
        "its own",
        """
import resource
def f():
    # setting a limit to what it is already is no success; so is raising a soft one to the hard one
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE):
        soft, hard = resource.getrlimit(kind)
        if hard == resource.RLIM_INFINITY: return "done"
        for new in (resource.RLIM_INFINITY, hard * 2 + 1):
            try:
                resource.setrlimit(kind, (new, new))
                return "done"
            except (OSError, ValueError): pass
""",
        DONE,
    ),
    Attack(
        "calls of another architecture",
        "the numbers of 32-bit programs and of x32 mean other calls: 2 is fork",
        """
import ctypes, mmap
def f():
    def run(code):
        area = mmap.mmap(-1, 4096, prot=7)
        area.write(code)
        return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(area)))()
    if 0 <= run(b"\\xb8\\x27\\x00\\x00\\x40\\x0f\\x05\\xc3") < 1 << 31: return "done"  # mov eax, getpid | x32; syscall; ret
    if 0 <= run(b"\\x53\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\x5b\\xc3") < 1 << 31: return "done"  # mov eax, 20; int 0x80
""",
        DONE,
        machine="x86_64",
    ),
    Attack(
        "another root",
        "namespaces, mounts, chroot and handles",
        _LIBC
        + """
def f():
    flags = (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000)
    for flag in flags:
        if libc.unshare(flag) == 0: return "done"
    if libc.mount(b"tmpfs", b".", b"tmpfs", ctypes.c_ulong(0), None) == 0: return "done"
    if libc.mount(b"proc", b".", b"proc", ctypes.c_ulong(0), None) == 0: return "done"
    if libc.umount2(b"/tmp", 2) == 0: return "done"
    for way in (lambda: os.chroot("."), lambda: os.setuid(0) if os.getuid() else os.chroot("."), lambda: os.setgroups([0])):
        try:
            way()
            return "done"
        except OSError: pass
    handle = (ctypes.c_uint32 * 34)(128)
    if call(304, 265, -100, handle, 0) >= 0: return "done"
    for fd in range(3, 64):
        if libc.setns(fd, 0) == 0: return "done"
""",
        DONE,
    ),
    Attack(
        "a system call that nobody needs",
        "tracing, keys, modules, performance counters, io_uring, clocks, personalities",
        _LIBC
        + """
REFUSED = {
    "ptrace": (101, 117), "process_vm_writev": (311, 271), "kcmp": (312, 272), "io_uring_setup": (425, 425), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "sethostname": (170, 161),
    "setdomainname": (171, 162), "acct": (163, 89), "quotactl": (179, 60), "swapon": (167, 224), "personality": (135, 92),
    "fanotify_init": (300, 262), "inotify_init1": (294, 26), "mq_open": (240, 180), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "setns": (308, 268), "pivot_root": (155, 41), "open_by_handle_at": (304, 265), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "memfd_secret": (447, 447), "modify_ldt": (154, None), "iopl": (172, None),
    "vmsplice": (278, 75), "move_pages": (279, 239), "mbind": (237, 235), "lookup_dcookie": (212, 18), "seccomp": (317, 277),
}
EPERM, EACCES, ENOSYS = 1, 13, 38
def f():
    allowed = []
    for name, numbers in REFUSED.items():
        ctypes.set_errno(0)
        result = call(*numbers, ctypes.c_long(-1), ctypes.c_long(-1), ctypes.c_long(-1), ctypes.c_long(-1), ctypes.c_long(-1))
        if (ARM and numbers[1] is None) or (result < 0 and ctypes.get_errno() in (EPERM, EACCES, ENOSYS)): continue
        allowed.append(name)
    if allowed: raise LookupError(" ".join(allowed))
    return "refused"
""",
        DONE,
    ),
    Attack(
        "a debugger",
        "on its parent, and by its parent",
        _LIBC
        + """
def f():
    for request, pid in ((16, os.getppid()), (0x4206, os.getppid()), (16, int("@HARNESS@")), (0, 0)):
        if call(101, 117, request, pid, 0, 0) == 0: return "done"
""",
        DONE,
    ),
    Attack(
        "descriptors that were left open",
        "anything beyond the three streams and one line is somebody else's",
        """
import os
def f():
    extra = 0
    for fd in range(4, 1024):
        try: os.fstat(fd)
        except OSError: continue
        extra += 1
    if extra: return "done"
    for fd in (0, 1, 2):
        if not os.path.samestat(os.fstat(fd), os.stat("/dev/null")): return "done"
""",
        DONE,
    ),
    Attack(
        "the next candidate's world",
        "whatever it changes in modules, files and itself must be gone when the next one begins",
        """
import builtins, os, random, sys, tempfile
builtins.len = lambda x: 7
builtins.patched = sys.patched = True
os.environ["PATCHED"] = "1"
random.seed = lambda *a: None
sys.path.insert(0, "/nowhere"); sys.setrecursionlimit(50_000)
tempfile.tempdir = "/nowhere"
os.umask(0o777)
open("left", "w").write("x")
os.makedirs("here/and/there")
def f(): return "other"
""",
        BOTH,
    ),
]

ATTACKS = [*TIME, *MEMORY, *PROCESSES, *FILES, *NETWORK, *ESCAPES]
