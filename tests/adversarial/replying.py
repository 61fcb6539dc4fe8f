"""Programs that misuse the line to their judge, or send it values that are hard to bear.

The first kind knows how this sandbox speaks: frames of a little-endian length and a body on descriptor 3. That is no
secret, and must not be one. The second kind is honest about its value, which is large, deep, endless or hostile.
"""

from __future__ import annotations

from .forging import EQUALS, SQUARES, WRONG
from .program import Attack, Problem, asserted

# a line's body by the judge's own rules, and pieces that several attacks share
_LINE = """
import os, socket, struct, time
def frame(body, size=None): return struct.pack("<I", len(body) if size is None else size) + body
def say(data, fd=3):
    try:
        while data: data = data[os.write(fd, data):]
    except OSError: pass
RIGHT = [b'["r","pass"]', b'["pass",""]', b'{"status":"pass","verdict":"pass","why":"exit"}', b'["r",[1,4,9]]', b'["r",true]',
         b'm["pass"]', b'.[]', b'pass', b'g["r",true]', b'["r",["f"]]', b'{"used":0.0}', b'{"ask":"used"}', b'{"stop":true}']
"""


def replies(name: str, why: str, body: str, problem: Problem = SQUARES, **more: object) -> Attack:
    return Attack(name, why, _LINE + body, problem, **more)  # type: ignore[arg-type]


ONE = Problem(calls=(([5],),), expected=([25],), tests={})
_BIG_INPUTS = Problem(calls=(([0] * 500_000,),), expected=(1,), tests={})


def used(*lines: str, right: object = None) -> Problem:
    """A test that does something with the value beyond comparing it; `right` is what f([5]) should give."""
    expected = SQUARES.expected if right is None else (SQUARES.expected[0], right, SQUARES.expected[2])
    return asserted(*lines, calls=SQUARES.calls, expected=expected)


FRAMES = [
    replies(
        "verdicts on every descriptor",
        "one of them may lead to whoever decides",
        f"""
for fd in range(256):
    for body in RIGHT:
        say(frame(body), fd); say(body + b"\\n", fd)
{WRONG}
""",
    ),
    replies(
        "verdicts on every descriptor in a call",
        "the same, when the judge waits for an answer",
        """
def f(*args):
    for fd in range(256):
        for body in RIGHT: say(frame(body), fd)
    os._exit(0)
""",
    ),
    replies(
        "a hundred replies ahead of time",
        "the judge takes them for answers to what it asks next; none of them knows an answer",
        f"""
for body in RIGHT * 10: say(frame(body))
{WRONG}
""",
    ),
    replies(
        "every call answered twice",
        "an answer too many shifts all that follow",
        """
def f(*args):
    say(frame(b'["r",[]]') + frame(b"m" + b"[\\0\\0\\0\\0"))
    return []
""",
    ),
    replies(
        "an answer to the last call only",
        "the end of the data, before its time",
        """
def f(*args):
    say(frame(b".[]") * 3)
    os._exit(0)
""",
    ),
    replies(
        "a frame that claims four gigabytes", "a reader that allocates first", "say(frame(b'x', 0xffffffff))\n" + WRONG
    ),
    replies(
        "a frame that claims 64 MiB",
        "a reader that waits for the rest",
        "say(frame(b'x', 64 << 20))\ntime.sleep(9)\n",
        limits={"idle_s": 0.5},
    ),
    replies(
        "half a frame",
        "and then nothing, for ever",
        """
def f(*args):
    say(b"\\x10\\0")
    time.sleep(1000)
""",
        limits={"idle_s": 0.5},
        status=("timeout",),
    ),
    replies(
        "a byte now and then",
        "there is always something to read, so a judge that keeps the time between reads never does",
        """
say(struct.pack("<I", 60 << 20))
while True:
    say(b"x")
    time.sleep(0.05)
""",
        limits={"idle_s": 0.5},
    ),
    replies(
        "garbage",
        "neither frames nor text",
        """
import random
def f(*args):
    say(bytes(random.randrange(256) for _ in range(5000)))
    for body in (b"", b"\\xff" * 50, b"[" * 5000, b'["r"', b'["r",{"t":"o"}]', b'["e"]', b'{"t":"t","v":7}', b'["r",{"t":"zz"}]',
                 b'["r",{"t":[]}]', b'["r",NaN]', b'["r",1e999]', b'["r",{"t":"i","v":"zz"}]', b'["r",{"t":"np","d":"O","s":[1],"v":""}]',
                 b'["r",' + b"9" * 5000 + b"]", b'["r",{"t":"r","v":[0,1,0]}]', b'["r",{"t":"d","v":[[{"t":"d","v":[]},1]]}]'):
        say(frame(body))
""",
    ),
    replies(
        "the line closed",
        "nobody hears an end that nobody sends",
        "os.close(3)\ntime.sleep(1000)\n",
        limits={"idle_s": 0.5},
    ),
    replies(
        "the line shut down in a call",
        "in one direction, and then in both",
        """
def f(*args):
    s = socket.socket(fileno=3)
    s.shutdown(socket.SHUT_WR); s.shutdown(socket.SHUT_RDWR)
    while True: pass
""",
        limits={"cpu_s": 0.2},
    ),
    replies(
        "the line made into another file",
        "descriptor 3 is a pipe of its own now, and the judge's end hears nothing more",
        """
r, w = os.pipe()
for fd in (3, 4, 5): os.dup2(w, fd)
def f(*args): return None
time.sleep(1000)
""",
        limits={"idle_s": 0.5},
    ),
    replies(
        "its inputs never read",
        "a judge that writes more than the line holds, and does nothing else meanwhile, writes for ever",
        'say(frame(b\'["r",["f"]]\'))\ntime.sleep(1e6)\n',
        _BIG_INPUTS,
        limits={"idle_s": 0.5},
    ),
    replies(
        "its tests' arguments never read",
        "the same to a checker",
        'say(frame(b\'["r",["f"]]\'))\ntime.sleep(1e6)\n',
        asserted("assert f([0] * 500000) == 1", calls=(([0] * 500_000,),), expected=(1,)),
        limits={"idle_s": 0.5},
    ),
    replies(
        "a flood of small frames",
        "a judge that keeps what it did not ask for",
        """
def f(*args):
    say(frame(b"m\\0\\0"))
    many = frame(b"x") * 10000
    while True: say(many)
""",
        ONE,
        limits={"cpu_s": 0.2},
    ),
    replies(
        "a flood of large frames",
        "the same: gigabytes in a second",
        """
def f(*args):
    say(frame(b"m\\0\\0"))
    large = frame(b"x" * (1 << 20))
    while True: say(large)
""",
        limits={"cpu_s": 0.2},
    ),
    replies(
        "a flood while it loads",
        "before the judge has asked for anything but the code",
        """
large = frame(b"x" * (63 << 20))
while True: say(large)
""",
        limits={"cpu_s": 0.2},
    ),
    replies(
        "a thread that answers instead",
        "it goes on writing while the main thread is served",
        """
import threading
def more():
    while True:
        for body in RIGHT: say(frame(body))
threading.Thread(target=more, daemon=True).start()
def f(*args): return None
""",
        limits={"cpu_s": 0.2},
    ),
    replies(
        "marshalled replies with code",
        "marshal builds code objects, and a set whose member contains itself: hashing it ends the interpreter",
        """
import marshal
code = marshal.dumps((lambda: None).__code__)
ring = b"<\\x01\\0\\0\\0\\xa8\\x01\\0\\0\\0r\\0\\0\\0\\0"
def f(*args):
    for body in (code, ring, b"[" + b"\\xff" * 4, b"(" * 9000): say(frame(b"m" + body))
    for body in (code, ring): say(frame(b"g" + body)); say(frame(b"j" + body))
    time.sleep(0.2)
    os._exit(0)
""",
    ),
    replies(
        "pickled replies with code",
        "a judge that unpickles runs it",
        """
def f(*args):
    code = b"cposix\\n_exit\\n(I0\\ntR."
    for head in (b"", b"m", b"j", b"g", b"e"): say(frame(head + code))
    os._exit(0)
""",
    ),
    replies(
        "numbers that collide, written by hand",
        "multiples of 2**61-1 have one hash: a set of them takes the judge minutes, and its writer nothing",
        """
import json
many = [{"t": "i", "v": hex((2**61 - 1) * (i + 2))} for i in range(60000)]
SET = json.dumps(["r", {"t": "s", "v": many}]).encode()
DICT = json.dumps(["r", {"t": "d", "v": [[one, 1] for one in many]}]).encode()
def f(*args):
    for body in (SET, DICT): say(frame(body)); say(frame(b"j" + body))
    time.sleep(0.2)
    os._exit(0)
""",
    ),
    replies(
        "millions of small values",
        "64 MiB of JSON are gigabytes of objects",
        """
BODY = b'["r",[' + b"[]," * 20000000 + b"[]]]"
def f(*args):
    say(frame(BODY))
    os._exit(0)
""",
        used("assert f([5]) == [25]"),
        limits={"cpu_s": 2},
    ),
    replies(
        "millions of small values as data",
        "the same where the judge itself would decode them",
        """
BODY = b'j["r",[' + b"[]," * 5000000 + b"[]]]"
def f(*args):
    say(frame(BODY))
    os._exit(0)
""",
        ONE,
        limits={"cpu_s": 2},
    ),
    replies(
        "a fraction that takes for ever to reduce",
        "building it asks for the greatest common divisor of two numbers of a hundred thousand digits",
        """
BODY = b'["r",{"t":"fr","v":["0x' + b"f" * 120000 + b'","0x' + b"e" * 119999 + b'"]}]'
LARGE = b'["r",{"t":"fr","v":["0x' + b"f" * 20000000 + b'","0x' + b"e" * 19999999 + b'"]}]'
def f(*args):
    say(frame(b"j" + BODY) + frame(LARGE))
    time.sleep(0.2)
    os._exit(0)
""",
        limits={"cpu_s": 2},
    ),
    replies(
        "names of another kind",
        "what loading answers decides what the tests can call",
        """
say(frame(b'["r",["f","check","abs",["t"],{"t":"t","v":["abs","math"]},{"t":"t","v":["check","json"]},{"t":"t","v":["f","os"]},7,null]]'))
time.sleep(0.3)
say(frame(b'["r",0]') * 20)
os._exit(0)
""",
    ),
    replies(
        "exceptions of every class",
        "an exception travels by its name, and the checker builds it",
        """
import builtins
NAMES = [name for name in dir(builtins) if isinstance(getattr(builtins, name), type)] + ["eval", "exit", "__import__", "OutOfTime"]
def f(*args):
    for name in NAMES: say(frame(b'["e","%s","0"]' % name.encode()))
    os._exit(0)
""",
        asserted(
            "import builtins",
            "seen = 0",
            "for name in range(120):",
            "    try:",
            "        assert f(name) == 'right'",
            "    except Exception:",
            "        seen += 1",
            "assert seen == 0",
            calls=tuple((n,) for n in range(120)),
            expected=("right",) * 120,
        ),
    ),
]


def value(name: str, why: str, body: str, problem: Problem | None = None, **more: object) -> Attack:
    return Attack(name, why, f"def f(*args):\n    {body}\n", problem or SQUARES, **more)  # type: ignore[arg-type]


_RING = "a = []; a.append(a); return a"
VALUES = [
    value("a huge number", "no JSON reader takes it, and its decimal digits take a minute", "return 10 ** 10000"),
    value("a number of a million digits", "the same, larger", "return 1 << 4000000"),
    value("a lone surrogate", "no encoder takes it", "return '\\ud800' * 3"),
    value("a list that contains itself", "whoever walks it never ends", _RING),
    value("a dict that contains itself", "likewise", "d = {}; d[1] = d; return [d]"),
    value(
        "a list of a hundred thousand levels",
        "whoever recurses into it overflows its stack",
        "a = []\n    for _ in range(10 ** 5): a = [a]\n    return a",
    ),
    value(
        "a tuple of a hundred thousand levels",
        "the same",
        "a = ()\n    for _ in range(10 ** 5): a = (a,)\n    return a",
    ),
    value("not a number", "it is unequal to itself, and no bound holds it", "return [float('nan')] * len(args[0])"),
    value("infinity", "differences of it are not numbers", "return [float('inf')] * len(args[0])"),
    value(
        "numbers that collide",
        "a set of multiples of 2**61-1, made by itself at the same price",
        "return {(2 ** 61 - 1) * i for i in range(2, 3000)}",
    ),
    value("a signalling decimal", "comparing with it raises", "import decimal; return decimal.Decimal('sNaN')"),
    value(
        "a decimal of a billion digits",
        "as an int it fills the memory",
        "import decimal; return decimal.Decimal('1e999999999')",
    ),
    value("a range of a trillion", "it travels in three numbers, and lists as a trillion", "return range(10 ** 12)"),
    value(
        "a string of 100 MB",
        "equal to nothing, but it has to be carried",
        "return 'x' * 10 ** 8",
        limits={"cpu_s": 0.5},
    ),
    value(
        "a list of ten million", "likewise", "return [0] * 10 ** 7", used("assert f([5]) == [25]"), limits={"cpu_s": 2}
    ),
    value("a list of two million as data", "likewise", "return [0] * 2 * 10 ** 6", limits={"cpu_s": 0.5}),
    value("bytes where text is expected", "marshal takes any buffer for bytes", "return memoryview(b'abc')"),
    value("an open file", "no data at all", "return open('/dev/null')"),
    value("a function", "likewise", "return f"),
    value("a module", "likewise", "import os; return os"),
    value(
        "a lock and a generator", "likewise, in a list", "import threading; return [threading.Lock(), (i for i in [])]"
    ),
    value("a type of its own", "a class travels as a handle", "return type('list', (list,), {})"),
    Attack(
        "an array of a billion empty rows",
        "no bytes, and a billion lists once somebody lists it",
        "import numpy\ndef f(*args): return numpy.zeros((10 ** 9, 0))\n",
        used("import numpy as np", "assert list(f([5])) == [25]", "assert np.asarray(f([5])).tolist() == [25]"),
        numpy=True,
    ),
    Attack(
        "an array with a mask of its own",
        "numpy's own subclasses answer == in their way",
        "import numpy\ndef f(*args): return numpy.ma.masked_all(3)\n",
        used("import numpy as np", "assert np.equal(f([3, -1, 2]), [1, 4, 9]).all()"),
        numpy=True,
    ),
    value(
        "an endless generator listed",
        "the test lists it",
        "return iter(int, 1)",
        used("assert list(f([5])) == [25]"),
        limits={"cpu_s": 0.5, "memory_mb": 300},
    ),
    value(
        "an endless generator summed",
        "the test adds it up",
        "return iter(int, 1)",
        used("assert sum(f([5])) == 25"),
        limits={"cpu_s": 0.5, "memory_mb": 300},
    ),
    value(
        "an endless generator looped over",
        "the test leaves the loop when it has seen enough",
        "return iter(int, 1)",
        used("for n, entry in enumerate(f([5])):", "    if n == 0: assert entry == 25"),
        limits={"cpu_s": 0.5, "memory_mb": 300},
    ),
    value(
        "a range listed",
        "the checker would list it itself",
        "return range(10 ** 12)",
        used("assert list(f([5])) == [25]"),
    ),
    value("a range sorted", "likewise", "return range(10 ** 12)", used("assert sorted(f([5])) == [25]")),
    value(
        "a range in a tuple",
        "likewise",
        "return (range(10 ** 12),)",
        used("assert [list(a) for a in f([5])] == [[25]]", right=[[25]]),
    ),
    value(
        "a range added up",
        "the checker computes for a day",
        "return range(10 ** 12)",
        used("assert sum(f([5])) == 25"),
        limits={"cpu_s": 0.5, "idle_s": 0.5},
    ),
    value(
        "a range searched",
        "likewise",
        "return range(10 ** 12)",
        used("assert 0.5 in f([5])", right=[0.5]),
        slow=True,
        limits={"cpu_s": 0.5, "idle_s": 0.5},
    ),
    value(
        "a number that the test repeats by",
        "`[0] * n` fills the checker's memory",
        "return 10 ** 11",
        used("assert [0] * f([5]) == [0] * 25", right=25),
    ),
    value(
        "a number that the test raises to",
        "`2 ** n` takes for ever",
        "return 10 ** 12",
        used("assert 2 ** f([5]) == 2 ** 25", right=25),
        slow=True,
        limits={"cpu_s": 0.5, "idle_s": 0.5},
    ),
    value(
        "a text that the test formats with",
        "`'%s' % …` with a width fills the memory",
        "return '%0999999999d'",
        used("assert f([5]) % 5 == '25'", right="2%d"),
    ),
    value(
        "a text that the test searches with",
        "a pattern that backtracks for a day",
        "return '(a+)+$'",
        used("import re", "assert re.match(f([5]), 'a' * 60 + 'b')", right="a"),
        slow=True,
        limits={"cpu_s": 0.5, "idle_s": 0.5},
    ),
    Attack(
        "an object with a hostile length",
        "len, bool, iteration, indexing and attributes of a handle are asked of the candidate",
        """
import os
class Bad:
    def __len__(self): return 10 ** 18
    def __iter__(self): return iter(range(10 ** 12))
    def __getitem__(self, key): return self
    def __bool__(self): raise SystemExit(0)
    def __getattr__(self, name): return self
    def __call__(self, *args): return self
def f(*args): return Bad()
""",
        used("out = f([5])", "assert len(out) == 1 and list(out) == [25]"),
    ),
    Attack(
        "an object that exits when it is measured",
        "the same, with an end",
        "import os\nclass Bad:\n    def __len__(self): os._exit(0)\n    __iter__ = __bool__ = __len__\ndef f(*args): return Bad()\n",
        used("assert len(f([5])) == 1"),
        ("status",),
    ),
    Attack(
        "an object whose attributes are objects",
        "a chain of handles without an end",
        f"{EQUALS}\ndef f(*args): return Same()\n",
        used("out = f([5])", "assert out.real == 25", "assert out.conjugate() == 25", right=25),
        ("exec", "status"),
    ),
    Attack(
        "a handle that stands for another",
        "handles are numbers: these are of objects that do not exist",
        _LINE
        + """
say(frame(b'["r",["f"]]'))
for n in (-1, 10 ** 9, 2 ** 70): say(frame(b'["r",{"t":"o","id":%d,"n":"list"}]' % n))
time.sleep(0.3)
os._exit(0)
""",
        used("assert f([5]) == [25]", "assert len(f([5])) == 1"),
    ),
]

ATTACKS = [*FRAMES, *VALUES]
