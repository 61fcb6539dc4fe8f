"""Programs that must pass, among them what a strict sandbox is tempted to refuse."""

from __future__ import annotations

from .program import Form, Honest, Problem, asserted


def honest(
    name: str, code: str, expected: object, call: tuple[object, ...] = (), *, why: str = "", **more: object
) -> Honest:
    """One call, and what it gives; both as data and as a test."""
    return Honest(name, why, code, Problem(calls=(call,), expected=(expected,)), **more)  # type: ignore[arg-type]


def asks(name: str, code: str, *lines: str, why: str = "", numpy: bool = False, **form: str) -> Honest:
    return Honest(name, why, code, asserted(*lines, **form), numpy=numpy)


_NUMPY = ("import numpy as np",)

LIBRARY = [
    honest(
        "recursion to 5,000",
        "import sys\nsys.setrecursionlimit(20000)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\n",
        5000,
        (5000,),
        why="a common answer to problems about trees",
    ),
    honest(
        "a pool of threads",
        """
from concurrent.futures import ThreadPoolExecutor
def f(n):
    with ThreadPoolExecutor(8) as pool: return list(pool.map(lambda x: x * x, range(n)))
""",
        [0, 1, 4, 9, 16],
        (5,),
    ),
    honest(
        "threads and a queue",
        """
import queue, threading
def f(n):
    todo, done = queue.Queue(), []
    def work():
        while (x := todo.get()) is not None:
            done.append(x + 1)
    workers = [threading.Thread(target=work) for _ in range(4)]
    for w in workers: w.start()
    for i in range(n): todo.put(i)
    for _ in workers: todo.put(None)
    for w in workers: w.join()
    return sorted(done)
""",
        [1, 2, 3],
        (3,),
    ),
    honest(
        "asyncio",
        """
import asyncio
async def g(x):
    await asyncio.sleep(0.01)
    return x
async def main(n): return await asyncio.gather(*(g(i) for i in range(n)))
def f(n): return list(asyncio.run(main(n)))
""",
        [0, 1, 2],
        (3,),
        why="makes a socket pair and a selector",
    ),
    honest(
        "temporary files",
        """
import os, tempfile
def f(text):
    with tempfile.NamedTemporaryFile("w+", suffix=".txt") as h:
        h.write(text); h.flush()
        with open(h.name) as again: seen = again.read()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a")
        with open(path, "w") as h: h.write(seen)
        return os.listdir(folder), open(path).read()
""",
        (["a"], "text"),
        ("text",),
        why="level 1 has no place to write",
        level=2,
    ),
    honest(
        "files in the working folder",
        """
import csv, json, os
def f():
    with open("a.csv", "w", newline="") as h: csv.writer(h).writerows([[1, 2], [3, 4]])
    with open("a.csv") as h: rows = list(csv.reader(h))
    os.rename("a.csv", "b.csv"); os.makedirs("x/y", exist_ok=True)
    json.dump(rows, open("x/y/c.json", "w"))
    return json.load(open("x/y/c.json")), sorted(os.listdir("."))
""",
        ([["1", "2"], ["3", "4"]], ["b.csv", "x"]),
        level=2,
    ),
    honest("400 MB of memory", "def f(n):\n    x = bytearray(n << 20)\n    x[::4096] = b'x' * len(x[::4096])\n    return len(x)\n", 400 << 20, (400,)),
    honest("a long list of small objects", "def f(n): return sum(len(x) for x in [[i] for i in range(n)])\n", 2_000_000, (2_000_000,)),
    honest(
        "slow, within its limit",
        "import time\ndef f():\n    begin = time.process_time()\n    while time.process_time() - begin < 0.6: pass\n    return 1\n",
        1,
        limits={"cpu_s": 1.0},
        why="60 % of the limit",
    ),
    honest("a short sleep", "import time\ndef f():\n    time.sleep(0.5)\n    return 1\n", 1, limits={"cpu_s": 0.5, "idle_s": 1.5}),
    honest("stdin is at its end", "import sys\ndef f(): return sys.stdin.read(), sys.stdin.readline(), list(sys.stdin)\n", ("", "", [])),
    honest(
        "input is at its end",
        "def f():\n    try: return input()\n    except EOFError: return 'end'\n",
        "end",
        why="a program for a contest, called as a function",
    ),
    honest("much is printed", "import sys\ndef f():\n    for i in range(20000): print(i, 'x' * 100)\n    print('e', file=sys.stderr, flush=True)\n    return 1\n", 1),
    honest(
        "the standard library",
        """
import bisect, calendar, cmath, collections, copy, dataclasses, datetime, decimal, enum, fractions, functools, hashlib
import heapq, inspect, io, itertools, json, logging, math, operator, os, pathlib, pprint, random, re, secrets, statistics
import string, struct, sys, textwrap, time, traceback, types, typing, unicodedata, uuid, zlib, base64, array, contextlib
import email, html, urllib.parse, xml.etree.ElementTree, sqlite3, ast, difflib, locale, platform, numbers, weakref, abc
import warnings, pickle, shutil, tempfile, threading, queue, subprocess, socket, gzip, bz2, zipfile, glob, fnmatch, timeit
def f():
    random.seed(3); random.random(); secrets.token_hex(4); uuid.uuid4(); time.time(); time.perf_counter()
    datetime.datetime.now(); platform.python_version(); logging.getLogger().warning("x"); locale.getlocale()
    return (calendar.isleap(2024), decimal.Decimal("1.10"), fractions.Fraction(1, 3), datetime.date(2024, 2, 29),
            hashlib.sha256(b"x").hexdigest()[:6], zlib.crc32(b"x"), statistics.median([1, 3, 2]), unicodedata.name("é")[:5])
""",
        (True, *(__import__("decimal").Decimal("1.10"), __import__("fractions").Fraction(1, 3)),
         __import__("datetime").date(2024, 2, 29), "2d7116", 2363233923, 2, "LATIN"),
        why="what models import, needed or not",
    ),
    honest(
        "typing and dataclasses",
        """
from __future__ import annotations
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Any, Dict, Generic, List, NamedTuple, Optional, TypeVar
T = TypeVar("T")
@dataclass(order=True)
class Node(Generic[T]):
    value: T
    rest: List[Node] = field(default_factory=list)
class Point(NamedTuple):
    x: int
    y: int = 2
@lru_cache(maxsize=None)
def fib(n: int) -> int: return n if n < 2 else fib(n - 1) + fib(n - 2)
def f(n: Optional[int] = None) -> Any: return fib(n), Node(3).value, Point(1), sorted([Node(2), Node(1)])[0].value
""",
        (832040, 3, (1, 2), 1),
        (30,),
        why="dataclasses and pickling look a class's module up in sys.modules",
    ),
    honest(
        "a main block",
        "def f(x): return x + 1\nif __name__ == '__main__':\n    import sys\n    print(f(int(input())))\n    sys.exit(0)\n",
        3,
        (2,),
        why="it must not run",
    ),
    honest("an import of unittest and doctest", "import doctest, unittest\nclass T(unittest.TestCase):\n    def test(self): self.fail()\ndef f(x):\n    '''\n    >>> f(1)\n    7\n    '''\n    return x\ndoctest.testmod()\n", 4, (4,)),
    honest("exceptions of its own", "class E(ValueError): pass\ndef f(x):\n    try: raise E('a')\n    except ValueError as e: return str(e)\n", "a", (1,)),
    honest("pickles of its own classes", "import copy, pickle\nclass P:\n    def __init__(self, x): self.x = x\ndef f(x): return pickle.loads(pickle.dumps(P(x))).x, copy.deepcopy(P(x)).x\n", (3, 3), (3,)),
    honest("signals and timers of its own", "import signal\ndef f():\n    seen = []\n    signal.signal(signal.SIGALRM, lambda *a: seen.append(1))\n    signal.setitimer(signal.ITIMER_REAL, 0.01)\n    signal.pause()\n    return seen\n", [1]),
    honest("exit handlers", "import atexit\natexit.register(print, 'bye')\ndef f(): return 1\n", 1),
    honest("an exit that it catches", "import sys\ndef f():\n    try: sys.exit(1)\n    except SystemExit: return 'caught'\n", "caught"),
]  # fmt: skip

VALUES = [
    honest("text of all kinds", "def f(s): return s[::-1], s.upper(), len(s), 'naïve 日本語 🎉\\x00\\ud83d'\n", ("ßå", "ÅSS", 2, "naïve 日本語 🎉\x00\ud83d"), ("åß",)),
    honest("numbers of all kinds", "def f(): return 10 ** 300, -(2 ** 64), 1e308 * 10, 0.1 + 0.2, 1j, True, None, b'\\xff'\n", (10**300, -(2**64), float("inf"), 0.1 + 0.2, 1j, True, None, b"\xff")),
    honest("a huge number that is right", "def f(n): return 3 ** n\n", 3**9000, (9000,)),
    honest("a long list", "def f(n): return [i * i for i in range(n)]\n", [i * i for i in range(20000)], (20000,)),
    honest("a long dict in another order", "def f(n): return {str(i): i for i in reversed(range(n))}\n", {str(i): i for i in range(3000)}, (3000,)),
    honest("a set in another order", "def f(n): return set(reversed(range(n))) | {('a', 1)}\n", {*range(100), ("a", 1)}, (100,)),
    honest("sets in a list", "def f(): return [{3, 1, 2}, frozenset({'b', 'a'}), {1: {2, 1}}]\n", [{1, 2, 3}, frozenset({"a", "b"}), {1: {1, 2}}]),
    honest("True for 1", "def f(): return [True, 2.0]\n", [1, 2]),
    honest("a named tuple", "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return [P(1, 2)]\n", [(1, 2)]),
    honest("counters and ordered dicts", "from collections import Counter, OrderedDict, defaultdict\ndef f():\n    d = defaultdict(list)\n    d['a'].append(1)\n    return Counter('aab'), OrderedDict(b=1, a=2), d\n", ({"a": 2, "b": 1}, {"a": 2, "b": 1}, {"a": [1]})),
    honest("an IntEnum and a StrEnum", "import enum\nclass A(enum.IntEnum): X = 3\nclass B(str, enum.Enum): Y = 'y'\ndef f(): return [A.X, B.Y]\n", [3, "y"]),
    honest("subclasses of str and list", "class S(str): pass\nclass L(list): pass\ndef f(): return L([S('a')])\n", ["a"]),
    asks("a deque", "from collections import deque\ndef f(): return deque([1, 2], maxlen=2)\n", "from collections import deque", "assert f() == deque([1, 2])", "assert list(f()) == [1, 2]"),
    asks("a generator", "def f(n):\n    for i in range(n): yield i\n", "assert list(f(3)) == [0, 1, 2]", "assert sum(f(4)) == 6", "assert sorted(f(2), reverse=True) == [1, 0]", "assert [x for x in f(2)] == [0, 1]", "assert 2 in f(3)", "assert tuple(zip(f(2), 'ab')) == ((0, 'a'), (1, 'b'))"),
    asks("map, filter and dict views", "def f(n): return map(str, range(n))\ndef g(): return {1: 2}.items()\n", "assert list(f(2)) == ['0', '1']", "assert list(g()) == [(1, 2)]", "assert len(list(f(3))) == 3"),
    asks("a range", "def f(n): return range(n)\n", "assert list(f(3)) == [0, 1, 2]", "assert f(3) == range(3)", "assert len(f(3)) == 3 and f(3)[1] == 1"),
    Honest("the right exception", "", "def f(x):\n    if x < 0: raise ValueError('negative')\n    return x\n", Problem((), (), tests={"asserts": Form("try:\n    f(-1)\nexcept ValueError as e:\n    assert str(e) == 'negative'\nelse:\n    assert False\nassert f(1) == 1")}, data=False)),
]  # fmt: skip

TESTS = [
    Honest(
        "a class that the tests build",
        "Mbpp/601: the test builds objects and hands them back",
        """
class Pair(object):
    def __init__(self, a, b):
        self.a = a
        self.b = b
def max_chain_length(arr, n):
    mcl = [1] * n
    for i in range(1, n):
        for j in range(i):
            if arr[i].a > arr[j].b and mcl[i] < mcl[j] + 1: mcl[i] = mcl[j] + 1
    return max(mcl)
""",
        Problem((), (), entry_point="max_chain_length", data=False, tests={"asserts": Form(
            "assert max_chain_length([Pair(5, 24), Pair(15, 25), Pair(27, 40), Pair(50, 60)], 4) == 3\n"
            "assert max_chain_length([Pair(1, 2), Pair(3, 4), Pair(5, 6), Pair(7, 8)], 4) == 4")}),
    ),
    Honest(
        "a builtin's name for the entry point",
        "Mbpp/126 is called sum",
        "def sum(a, b):\n    return a + b\n",
        Problem(calls=((10, 15), (100, 150)), expected=(25, 250), entry_point="sum"),
    ),
    Honest(
        "helpers of the prompt",
        "HumanEval/32: the test uses poly, which only the prompt defines; a model's answer may leave it out",
        """
import math
def find_zero(xs):
    low, high = -1.0, 1.0
    def at(x): return sum([c * math.pow(x, i) for i, c in enumerate(xs)])
    while at(low) * at(high) > 0: low, high = low * 2, high * 2
    while high - low > 1e-10:
        middle = (low + high) / 2
        if at(middle) * at(low) > 0: low = middle
        else: high = middle
    return low
""",
        Problem((), (), entry_point="find_zero", data=False, tests={"check": Form(
            "def check(candidate):\n    import copy\n    for coeffs in ([1, 2], [-6, 11, -6, 1]):\n"
            "        solution = candidate(copy.deepcopy(coeffs))\n        assert math.fabs(poly(coeffs, solution)) < 1e-4\n",
            prompt="import math\ndef poly(xs: list, x: float):\n    return sum([c * math.pow(x, i) for i, c in enumerate(xs)])\n",
            check=True)}),
    ),
    Honest(
        "encoders of the prompt",
        "HumanEval/50: the test encodes with the prompt's function what the candidate must decode",
        "def decode_shift(s):\n    return ''.join([chr(((ord(ch) - 5 - ord('a')) % 26) + ord('a')) for ch in s])\n",
        Problem((), (), entry_point="decode_shift", data=False, tests={"check": Form(
            "def check(candidate):\n    from random import randint, choice\n    import string\n    for _ in range(20):\n"
            "        s = ''.join(choice(string.ascii_lowercase) for _ in range(randint(10, 20)))\n"
            "        assert candidate(encode_shift(s)) == s\n",
            prompt="def encode_shift(s: str):\n    return ''.join([chr(((ord(ch) + 5 - ord('a')) % 26) + ord('a')) for ch in s])\n",
            check=True)}),
    ),
    Honest(
        "modules that only the candidate imports",
        "a test that uses math because the program does",
        "import math\nimport re\nimport collections as c\ndef f(x): return math.sqrt(x)\n",
        asserted("assert math.isclose(f(2) ** 2, 2)", "assert re.match('a', 'ab')", "assert c.Counter('a') == {'a': 1}"),
    ),
    Honest(
        "state between calls",
        "a cache, a counter: legal",
        "_seen = []\ndef f(x):\n    _seen.append(x)\n    return len(_seen)\n",
        Problem(calls=((5,), (5,), (7,)), expected=(1, 2, 3)),
    ),
    Honest(
        "a callable object and a class for a function",
        "both can be called",
        "class f:\n    def __new__(cls, x): return x * 2\n",
        Problem(calls=((2,), ("a",)), expected=(4, "aa")),
    ),
    Honest(
        "a partial and a lambda",
        "neither has a def",
        "import functools, operator\nf = functools.partial(operator.add, 1)\ng = lambda x: f(x)\n",
        Problem(calls=((2,),), expected=(3,)),
    ),
    Honest(
        "inputs that it changes",
        "sorting in place is an honest way to sort",
        "def f(xs):\n    xs.sort()\n    return xs\n",
        Problem(calls=(([3, 1, 2],), ([3, 1, 2],)), expected=([1, 2, 3], [1, 2, 3])),
    ),
    Honest(
        "a test that loops and prints",
        "with messages, keywords, nested functions and a main guard",
        "def f(a, b=2, *rest, **named): return a * b + len(rest) + len(named)\n",
        asserted("def test_f():", "    for i in range(50):", "        assert f(i) == i * 2, f'at {i}'", "    assert f(1, b=5, c=1) == 6",
                 "    assert f(1, 1, 1, 1) == 3", "    print('ok')", "test_f()"),
    ),
    Honest(
        "its own helpers with builtins' names",
        "bad style, and right",
        "def abs(x): return x if x >= 0 else -x\ndef max(a, b): return a if a > b else b\nlist = [1]\ndef f(x): return max(abs(x), 1) + len(list)\n",
        Problem(calls=((-5,), (0,)), expected=(6, 2)),
    ),
    Honest(
        "fields of an object",
        "the test reads attributes and calls methods",
        "class Tree:\n    def __init__(self, v): self.v, self.kids = v, []\n    def add(self, v): self.kids.append(v); return self\ndef f(v): return Tree(v)\n",
        asserted("t = f(3)", "assert t.v == 3", "assert t.add(4).kids == [4]", "assert Tree(2).v == 2"),
    ),
    Honest(
        "a thousand calls",
        "quick ones",
        "def f(x): return x + 1\n",
        Problem(calls=tuple((i,) for i in range(1000)), expected=tuple(range(1, 1001))),
    ),
]  # fmt: skip

NUMPY = [
    asks("an array", "import numpy as np\ndef f(n): return np.arange(n) * 2.0\n", *_NUMPY, "assert (f(3) == np.array([0, 2, 4])).all()", "assert np.allclose(f(3), [0, 2, 4])", "assert isinstance(f(3), np.ndarray) and f(3).dtype == float and f(4).shape == (4,)", "assert f(3).tolist() == [0.0, 2.0, 4.0]", "assert list(f(2)) == [0, 2]", numpy=True),
    asks("arrays as arguments", "import numpy as np\ndef f(a): return a.sum(axis=0)\n", *_NUMPY, "assert f(np.ones((3, 2))).tolist() == [3, 3]", numpy=True),
    honest("scalars of numpy", "import numpy as np\ndef f(xs): return [np.int64(max(xs)), np.float64(0.5), np.bool_(True)]\n", [3, 0.5, True], ([1, 3],), numpy=True),
    honest("a list from an array", "import numpy as np\ndef f(xs): return np.sort(np.array(xs)).tolist(), int(np.linalg.det(np.eye(3)))\n", ([1, 2, 3], 1), ([3, 1, 2],), numpy=True),
    asks("numpy in the test alone", "def f(xs): return [x / 2 for x in xs]\n", *_NUMPY, "assert np.allclose(f([1, 2]), np.array([0.5, 1.0]))", numpy=True),
]  # fmt: skip

PROGRAMS = [*LIBRARY, *VALUES, *TESTS, *NUMPY]
