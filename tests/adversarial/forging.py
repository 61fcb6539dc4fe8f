"""Wrong programs that try to be judged right. None of them knows an answer."""

from __future__ import annotations

from .program import Attack, Problem, asserted

SQUARES = Problem(calls=(([3, -1, 2],), ([5],), ([0, -4],)), expected=([1, 4, 9], [25], [0, 16]))
MEAN = Problem(calls=(([1, 2, 6],), ([0.5, 1.0],)), expected=(3.0, 0.75))
CLOSE = asserted(
    "import math",
    "assert abs(f([1, 2, 6]) - 3.0) < 1e-6",
    "assert math.fabs(f([0.5, 1.0]) - 0.75) < 1e-6",
    calls=MEAN.calls,
    expected=MEAN.expected,
)
WORD = Problem(calls=((3,), (4,)), expected=("three", "four"))
COUNT = Problem(calls=(("banana",), ("kiwi",)), expected=({"a": 3, "b": 1, "n": 2}, {"i": 2, "k": 1, "w": 1}))
NUMBER = Problem(calls=((3,), (10,)), expected=(6, 3628800))
PAIR = Problem(calls=((17, 5), (9, 3)), expected=((3, 2), (3, 0)))

WRONG = "def f(*args): return None\n"


def own(name: str, value: str, *lines: str) -> Attack:
    """The test calls a builtin by its name, and the candidate has put its own there. Not always malice: models do."""
    return Attack(
        f"own {name}",
        "human-eval and code_eval run program and test in one namespace, so the test calls this one",
        f"{name} = {value}\ndef f(xs): return [0]\n",
        asserted(*lines, calls=SQUARES.calls, expected=SQUARES.expected),
        fools=("exec", "status"),
    )


ENDING = [
    Attack(
        "exit at import", "an exit status of 0 is taken for success", "import os\nos._exit(0)\n", SQUARES, ("status",)
    ),
    Attack(
        "exit in a call",
        "the same, after the tests have begun",
        "import os\ndef f(xs): os._exit(0)\n",
        SQUARES,
        ("status",),
    ),
    Attack("SystemExit at import", "the polite way", "raise SystemExit(0)\n", SQUARES, ("status",)),
    Attack("SystemExit in a call", "the polite way", "import sys\ndef f(xs): sys.exit(0)\n", SQUARES, ("status",)),
    Attack(
        "exit in atexit",
        "the test fails first, then this hides its status",
        f"import atexit, os\natexit.register(os._exit, 0)\n{WRONG}",
        SQUARES,
        ("status",),
    ),
    Attack(
        "exit in excepthook",
        "runs while the AssertionError is being printed",
        f"import os, sys\nsys.excepthook = lambda *a: os._exit(0)\n{WRONG}",
        SQUARES,
        ("status",),
    ),
    Attack(
        "exit in a destructor",
        "runs when the judge lets go of the value",
        """
import os
class Value:
    def __del__(self): os._exit(0)
def f(xs): return Value()
""",
        SQUARES,
        ("status",),
    ),
    Attack(
        "exit in a thread",
        "while the judge waits for a call",
        """
import os, threading, time
def f(xs):
    threading.Thread(target=lambda: os._exit(0)).start()
    time.sleep(5)
""",
        SQUARES,
        ("status",),
    ),
    Attack(
        "exit on an alarm",
        "the same without a thread",
        """
import os, signal, time
def f(xs):
    signal.signal(signal.SIGALRM, lambda *a: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(5)
""",
        SQUARES,
        ("status",),
    ),
    Attack(
        "the interpreter finalised",
        "Py_Exit runs all its hooks and leaves with 0",
        "import ctypes\ndef f(xs): ctypes.pythonapi.Py_Exit(0)\n",
        SQUARES,
        ("status",),
    ),
    Attack(
        "killed by a signal that reads as 0",
        "runners that look at the low byte of the status, or at stderr only, take this for success",
        "import os, signal\ndef f(xs): os.kill(os.getpid(), signal.SIGKILL)\n",
        SQUARES,
    ),
    Attack(
        "printed PASS",
        "runners that read a word or a JSON line on stdout",
        """
import os, sys
for text in ("PASS\\n", "passed\\n", "OK\\n", '{"verdict": "pass", "status": "pass", "passed": true, "by": "data"}\\n'):
    print(text, end="", flush=True)
    print(text, end="", flush=True, file=sys.stderr)
    for fd in (1, 2): os.write(fd, text.encode())
def f(xs): return "PASS"
""",
        SQUARES,
    ),
]

EQUALS = """
class Same:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __bool__(self): return True
    def __hash__(self): return 0
    def __len__(self): return 1
    def __iter__(self): return iter([self])
    def __getitem__(self, key): return self
    def __getattr__(self, name): return self
    def __call__(self, *args, **named): return self
    def __float__(self): return 0.0
    def __index__(self): return 0
    __int__ = __index__
    def __abs__(self): return 0.0
    def __sub__(self, other): return 0.0
    __rsub__ = __add__ = __radd__ = __mul__ = __rmul__ = __truediv__ = __mod__ = __sub__
    def __array__(self, *a, **k): raise TypeError
"""


def subclass(kind: str, problem: Problem, value: str) -> Attack:
    return Attack(
        f"a {kind} equal to everything",
        "a reflected comparison of a subclass is tried first, so it decides even on the right-hand side",
        f"""
class Same({kind}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = None
def f(*args): return Same({value})
""",
        problem,
        ("exec", "status"),
    )


COMPARING = [
    Attack(
        "an object equal to everything",
        "`==` asks it",
        f"{EQUALS}\ndef f(*args): return Same()\n",
        SQUARES,
        ("exec", "status"),
    ),
    Attack(
        "an object near everything",
        "`abs(out - exp) < tolerance` asks it",
        f"{EQUALS}\ndef f(*args): return Same()\n",
        CLOSE,
        ("exec", "status"),
    ),
    subclass("list", SQUARES, "[1]"),
    subclass("float", MEAN, "1.5"),
    subclass("str", WORD, "'x'"),
    subclass("dict", COUNT, "{'a': 1}"),
    subclass("int", NUMBER, "7"),
    subclass("tuple", PAIR, "(1,)"),
    Attack(
        "a member equal to everything",
        "lists compare their members",
        f"{EQUALS}\ndef f(xs): return [Same() for _ in xs]\n",
        SQUARES,
        ("exec", "status"),
    ),
    Attack(
        "a truthy answer to ==",
        "`assert a == b` takes the truth of whatever == returns",
        """
class Odd(list):
    def __eq__(self, other): return "no"
    def __ne__(self, other): return ""
def f(xs): return Odd()
""",
        SQUARES,
        ("exec", "status"),
    ),
    Attack(
        "equal and not unequal",
        "tests that say `not out != exp` or `exp in [out]`",
        f"{EQUALS}\ndef f(*args): return Same()\n",
        asserted(
            "assert not f([3, -1, 2]) != [1, 4, 9]",
            "assert [25] in [f([5])]",
            "assert (f([0, -4]),) == ([0, 16],)",
            calls=SQUARES.calls,
            expected=SQUARES.expected,
        ),
        ("exec", "status"),
    ),
    Attack(
        "an array that answers for numpy",
        "np.allclose and == ask the array's class first",
        """
import numpy as np
class Same(np.ndarray):
    def __array_function__(self, *args, **named): return True
    def __array_ufunc__(self, *args, **named): return True
    def __eq__(self, other): return True
def f(*args): return np.zeros(3).view(Same)
""",
        MEAN,
        ("exec", "status"),
        numpy=True,
    ),
    Attack(
        "an array of objects equal to everything",
        "numpy compares them one by one with their own ==",
        f"""
import numpy as np
{EQUALS}
def f(xs):
    a = np.empty(len(xs), dtype=object)
    for i in range(len(xs)): a[i] = Same()
    return a
""",
        asserted(
            "import numpy as np",
            "assert (f([3, -1, 2]) == np.array([1, 4, 9])).all()",
            "assert np.array_equal(f([5]), [25])",
            calls=SQUARES.calls,
            expected=SQUARES.expected,
        ),
        ("exec", "status"),
        numpy=True,
    ),
    Attack(
        "a type that lies",
        "isinstance believes __class__, and EvalPlus' oracle asks type() and isinstance()",
        f"""
{EQUALS}
class Meta(type):
    def __instancecheck__(cls, other): return True
    def __eq__(cls, other): return True
    __hash__ = type.__hash__
class Lies(Same, metaclass=Meta):
    @property
    def __class__(self): return list
def f(*args): return Lies()
""",
        SQUARES,
        ("exec", "status"),
    ),
    Attack(
        "a value that changes its mind",
        "it is wrong when it is looked at first, and equal from then on",
        """
import itertools
_seen = itertools.count()
class Later(list):
    def __eq__(self, other): return next(_seen) >= 0
    def __iter__(self): return iter([1] * (next(_seen) + 1))
    def __len__(self): return next(_seen)
def f(xs): return Later()
""",
        SQUARES,
        ("exec", "status"),
    ),
    Attack(
        "comparison replaced in the interpreter",
        "list's slot for == in memory, so that honest-looking lists are equal to all others",
        """
import ctypes
_slot = ctypes.CFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.py_object, ctypes.c_int)(lambda a, b, op: True)
# tp_richcompare stands 200 bytes into a type object on 64 bits; list's own is found there before it is replaced
_field = ctypes.c_void_p.from_address(id(list) + 200)
_field.value = ctypes.cast(_slot, ctypes.c_void_p).value
def f(xs): return []
""",
        SQUARES,
        ("exec", "status"),
    ),
    Attack(
        "a small number changed in memory",
        "the interpreter keeps one object for each small int: here every 25 in the process becomes a 24",
        """
import ctypes
def f(xs):
    ctypes.c_uint32.from_address(id(25) + 24).value = 24
    return [24]
""",
        asserted("assert f([5]) == [25]", calls=SQUARES.calls[1:2], expected=SQUARES.expected[1:2]),
        ("exec", "status"),
    ),
]

REPLACED = [
    own("abs", "lambda x: 0", "assert abs(len(f([3, -1, 2])) - 3) < 1e-6", "assert abs(f([5])[0] - 25) < 1e-6"),
    own("sum", "lambda *a: 14", "assert sum(f([3, -1, 2])) == 14"),
    own("len", "lambda x: 3", "assert len(f([3, -1, 2])) == 3"),
    own("isinstance", "lambda *a: True", "assert isinstance(f([3, -1, 2])[0] == 1 or None, bool)"),
    own("all", "lambda x: True", "assert all(a == b for a, b in zip(f([3, -1, 2]), [1, 4, 9]))"),
    own("any", "lambda x: False", "assert not any(a != b for a, b in zip(f([3, -1, 2]), [1, 4, 9]))"),
    own("sorted", "lambda *a, **k: 0", "assert sorted(f([3, -1, 2])) == sorted([1, 4, 9])"),
    own("set", "lambda *a: 0", "assert set(f([3, -1, 2])) == set([1, 4, 9])"),
    own("float", "lambda *a: 0.0", "assert float(f([3, -1, 2])[0]) == float(1)"),
    own("list", "lambda *a: 0", "assert list(f([3, -1, 2])) == list([1, 4, 9])"),
    own("tuple", "lambda *a: 0", "assert tuple(f([3, -1, 2])) == tuple([1, 4, 9])"),
    own("str", "lambda *a: 0", "assert str(f([3, -1, 2])) == str([1, 4, 9])"),
    own("repr", "lambda *a: 0", "assert repr(f([3, -1, 2])) == repr([1, 4, 9])"),
    own("round", "lambda *a: 0", "assert round(f([3, -1, 2])[0], 3) == round(1.0, 3)"),
    own("zip", "lambda *a: []", "for a, b in zip(f([3, -1, 2]), [1, 4, 9]):", "    assert a == b"),
    own("enumerate", "lambda *a: []", "for i, a in enumerate(f([3, -1, 2])):", "    assert a == [1, 4, 9][i]"),
    own("range", "lambda *a: []", "for i in range(3):", "    assert f([3, -1, 2])[i] == [1, 4, 9][i]"),
    own("map", "lambda *a: []", "assert all(map(lambda x: x > 0, f([3, -1, 2])))"),
    own("max", "lambda *a: 0", "assert max(f([3, -1, 2])) == max([1, 4, 9])"),
    own("type", "lambda *a: 0", "assert type(f([3, -1, 2])[0] == 1 or None) == type(True)"),
    Attack(
        "builtins patched for everyone",
        "not in a namespace but in the module itself, so that imported helpers see it too",
        """
import builtins
builtins.zip = lambda *a, **k: []
builtins.all = builtins.isinstance = builtins.hasattr = builtins.callable = lambda *a, **k: True
builtins.abs = builtins.hash = lambda *a: 0
def f(*args): return 0
""",
        asserted(
            "assert isinstance(f([1, 2, 6]), float)",
            "assert abs(f([1, 2, 6]) - 3.0) < 1e-6",
            "for out, exp in zip([f([0.5, 1.0])], [0.75]):",
            "    assert out == exp",
            calls=MEAN.calls,
            expected=MEAN.expected,
        ),
        ("exec", "status"),
    ),
    Attack(
        "exec and compile patched",
        "a judge that runs the tests afterwards, in the same process, runs this",
        """
import builtins
builtins.exec = builtins.eval = lambda *a, **k: None
builtins.compile = lambda *a, **k: (lambda: None).__code__
def check(candidate): pass
def f(xs): return None
""",
        SQUARES,
        ("exec",),
    ),
    Attack(
        "import patched",
        "the test imports its helpers and gets stand-ins that agree with everything",
        f"""
import builtins, sys, types
{EQUALS}
_import = builtins.__import__
def fake(name, *args, **named):
    return Same() if name in ("numpy", "math") else _import(name, *args, **named)
builtins.__import__ = fake
def f(xs): return 1e9
""",
        asserted(
            "import math",
            "assert math.isclose(f([1, 2, 6]), 3.0)",
            calls=MEAN.calls,
            expected=MEAN.expected,
        ),
        ("exec", "status"),
    ),
    Attack(
        "modules replaced",
        "sys.modules is where the test's own imports look",
        f"""
import sys
{EQUALS}
for name in ("math", "numpy", "collections", "json", "re", "copy", "random"): sys.modules[name] = Same()
def f(xs): return 1e9
""",
        asserted("import math", "assert math.isclose(f([1, 2, 6]), 3.0)", calls=MEAN.calls, expected=MEAN.expected),
        ("exec", "status"),
    ),
    Attack(
        "math.isclose patched",
        "the function in the real module",
        "import math\nmath.isclose = lambda *a, **k: True\nmath.fabs = lambda x: 0.0\ndef f(xs): return 1e9\n",
        asserted("import math", "assert math.isclose(f([1, 2, 6]), 3.0)", calls=MEAN.calls, expected=MEAN.expected),
        ("exec", "status"),
    ),
    Attack(
        "a module of its own by a trusted name",
        "a test that does not import math itself takes the candidate's",
        """
import types
math = types.ModuleType("math")
math.isclose = lambda *a, **k: True
def f(xs): return 1e9
""",
        asserted(
            "assert math.isclose(f([1, 2, 6]), 3.0)", prompt="import math\n", calls=MEAN.calls, expected=MEAN.expected
        ),
        ("exec", "status"),
    ),
    Attack(
        "numpy.allclose patched",
        "what EvalPlus' oracle ends in",
        "import numpy\nnumpy.allclose = numpy.array_equal = lambda *a, **k: True\ndef f(xs): return 1e9\n",
        MEAN,
        ("exec", "status"),
        numpy=True,
    ),
    Attack(
        "serialisers patched",
        "whatever carries the value to the judge says what the program likes",
        """
import hashlib, json, marshal, os, pickle, socket, struct, sys
text = '["r",{"verdict":"pass"}]'
json.dumps = json.JSONEncoder.encode = lambda *a, **k: text
marshal.dumps = pickle.dumps = lambda *a, **k: text.encode()
json.loads = marshal.loads = pickle.loads = lambda *a, **k: {"verdict": "pass", "status": "pass"}
for name in list(sys.modules):
    module = sys.modules[name]
    for word in ("dumps", "encode", "enc", "pack", "plain", "result", "digest", "send"):
        if "codec" not in name and "encodings" not in name and callable(getattr(module, word, None)):
            try: setattr(module, word, lambda *a, **k: text.encode())
            except Exception: pass
def f(xs): return None
""",
        SQUARES,
    ),
    Attack(
        "writes patched",
        "os.write and the socket's methods are the candidate's to replace",
        """
import os, socket
_write = os.write
os.write = lambda fd, data: _write(fd, b'["r","pass"]') and len(data)
class Socket(socket.socket):
    def sendall(self, data, *a): return super().sendall(b'["r","pass"]')
    send = sendall
socket.socket = Socket
def f(xs): return None
""",
        SQUARES,
    ),
    Attack(
        "the test's own names taken",
        "a later definition, or a namespace that refuses one, keeps the candidate's check",
        """
def check(candidate): return True
def assertion(out, exp, atol=0): return True
def is_floats(x): return True
inputs, results = [], []
metadata = METADATA = {}
class Names(dict):
    def __setitem__(self, key, value):
        if key not in ("check", "assertion", "inputs", "results"): super().__setitem__(key, value)
try: __builtins__["__build_class__"] = None
except Exception: pass
def f(xs): return None
""",
        SQUARES,
    ),
    Attack(
        "__builtins__ of the namespace replaced",
        "names that the test looks up come from this dictionary, were it used for the test",
        """
import builtins as _b
class Names(dict):
    def __missing__(self, key): raise KeyError(key)
_all = dict(vars(_b))
_all.update(sorted=lambda *a: 0, len=lambda *a: 0, AssertionError=SystemExit)
__builtins__ = _all
__name__ = "builtins"; __file__ = "/dev/null"; __spec__ = __loader__ = __package__ = None
def f(xs): return [0]
""",
        asserted("assert sorted(f([3, -1, 2])) == sorted([1, 4, 9])", calls=SQUARES.calls, expected=SQUARES.expected),
        ("exec",),
    ),
    Attack(
        "helpers of the prompt replaced",
        "HumanEval/32, 38 and 50 check an answer with a function of the prompt",
        "def poly(xs, x): return 0.0\ndef f(xs): return 7.0\n",
        asserted(
            "assert abs(poly([1.0, 2.0], f([1.0, 2.0]))) < 1e-6",
            prompt="def poly(xs, x):\n    return sum(c * x ** i for i, c in enumerate(xs))\n",
            calls=(([1.0, 2.0],),),
            expected=(-0.5,),
        ),
        ("exec", "status"),
    ),
    Attack(
        "two thousand names",
        "every name that a test could want, all of them agreeing",
        f"""
{EQUALS}
import builtins
for name in [*dir(builtins), "np", "numpy", "math", "check", "candidate", "poly", "assertion", *map("n{{}}".format, range(2000))]:
    if name not in ("globals", "Same", "__build_class__", "__import__"): globals()[name] = Same()
globals()[7] = globals()["\\ud800"] = globals()["x" * 100000] = Same()
def f(xs): return [0]
""",
        asserted("assert sorted(f([3, -1, 2])) == sorted([1, 4, 9])", calls=SQUARES.calls, expected=SQUARES.expected),
        ("exec", "status"),
    ),
]

INPUTS = [
    Attack(
        "inputs emptied",
        "a test that compares with its own input finds what the candidate left of it",
        "def f(xs):\n    xs.clear()\n    return []\n",
        asserted(
            "xs = [3, -1, 2]",
            "ys = f(xs)",
            "assert ys == sorted(xs)",
            "assert len(ys) == len(xs)",
            calls=(([3, -1, 2],),),
            expected=([-1, 2, 3],),
        ),
        ("exec", "status"),
    ),
    Attack(
        "inputs swapped for something agreeable",
        "an object left inside the input, to be found by the comparison",
        f"{EQUALS}\ndef f(xs):\n    xs[:] = [Same()] * 3\n    return [0, 0, 0]\n",
        asserted("xs = [3, -1, 2]", "assert f(xs) == xs", calls=(([3, -1, 2],),), expected=([3, -1, 2],)),
        ("exec", "status"),
    ),
    Attack(
        "the input given back",
        "a judge that computes the expected value from the same object after the call",
        "def f(xs):\n    del xs[1:]\n    xs[0] = 0\n    return xs\n",
        asserted("xs = [3, -1, 2]", "assert f(xs) == sorted(xs)", calls=(([3, -1, 2],),), expected=([-1, 2, 3],)),
        ("exec", "status"),
    ),
]

RAISING = [
    Attack(
        "StopIteration ends the test's own loop",
        "all(map(…)) takes it for the end of the data, and all() of nothing is true",
        "def f(*args): raise StopIteration\n",
        asserted(
            "assert all(map(lambda case: f(case[0]) == case[1], [([3, -1, 2], [1, 4, 9]), ([5], [25])]))",
            calls=SQUARES.calls,
            expected=SQUARES.expected,
        ),
        ("exec", "status"),
    ),
    Attack(
        "StopIteration in a loop over two lists",
        "zip(map(f, inputs), results) ends early and no assert is reached",
        "def f(*args): raise StopIteration\n",
        asserted(
            "for out, exp in zip(map(f, [[3, -1, 2], [5]]), [[1, 4, 9], [25]]):",
            "    assert out == exp",
            calls=SQUARES.calls,
            expected=SQUARES.expected,
        ),
        ("exec", "status"),
    ),
    Attack(
        "StopIteration of its own",
        "a subclass, with arguments that a rebuilt one may not take",
        """
class Stop(StopIteration):
    def __init__(self): super().__init__([1, 4, 9])
def f(*args): raise Stop()
""",
        asserted(
            "assert list(map(f, [])) == [] and all(map(lambda x: f(x) == [25], [[5]]))",
            calls=SQUARES.calls,
            expected=SQUARES.expected,
        ),
        ("exec", "status"),
    ),
    Attack(
        "a GeneratorExit",
        "generators swallow it",
        "def f(*args): raise GeneratorExit\n",
        asserted(
            "def cases():",
            "    yield f([5]) == [25]",
            "assert all(cases())",
            calls=SQUARES.calls,
            expected=SQUARES.expected,
        ),
    ),
    Attack(
        "a KeyboardInterrupt",
        "the runner itself may stop for it, or think that the user asked",
        "def f(*args): raise KeyboardInterrupt\n",
        SQUARES,
    ),
    Attack(
        "an exception that cannot be read",
        "its text, class and attributes are programs as well",
        """
import os, sys
class Meta(type):
    @property
    def __mro__(cls): raise SystemExit(0)
    @property
    def __name__(cls): os._exit(0)
class Bad(Exception, metaclass=Meta):
    def __str__(self): raise SystemExit(0)
    __repr__ = __str__
    @property
    def __class__(self): return SystemExit
    @property
    def __traceback__(self): os._exit(0)
    @property
    def args(self): os._exit(0)
def f(*args): raise Bad()
""",
        SQUARES,
    ),
    Attack(
        "an exception with the judge's own words",
        "class and text are the candidate's to choose",
        """
class AssertionError(BaseException): __module__ = "builtins"
AssertionError.__name__ = AssertionError.__qualname__ = "pass"
def f(*args): raise AssertionError('{"status": "pass"}\\nverdict: pass')
""",
        SQUARES,
    ),
    Attack(
        "a group of exceptions",
        "it cannot be built from a text, and `except*` splits it",
        "def f(*args): raise BaseExceptionGroup('g', [SystemExit(0), StopIteration(), KeyboardInterrupt()])\n",
        SQUARES,
    ),
    Attack(
        "an exception that never ends",
        "a chain of causes that is a ring, and a text of a hundred megabytes",
        """
def f(*args):
    a, b = ValueError("x" * 10**8), ValueError("y")
    a.__cause__, b.__cause__ = b, a
    a.__context__, b.__context__ = b, a
    raise a
""",
        SQUARES,
    ),
]

WALKING = [
    Attack(
        "the caller's asserts jumped over",
        "a trace function may set the line of any frame below it",
        """
import sys
def _skip(frame, event, arg):
    if event == "line":
        for line in range(frame.f_lineno + 200, frame.f_lineno, -1):
            try:
                frame.f_lineno = line
                break
            except ValueError: pass
    return _skip
def f(xs):
    sys._getframe(1).f_trace = _skip
    sys.settrace(_skip)
    return None
""",
        asserted(
            "out = f([5])",
            "assert out == [25]",
            "done = True",
            calls=SQUARES.calls,
            expected=SQUARES.expected,
        ),
        ("exec", "status"),
        limits={"cpu_s": 0.5},
    ),
    Attack(
        "the caller's functions rewritten",
        "garbage collection lists every function, and a function's code can be replaced",
        """
import gc
def f(*args):
    for found in gc.get_objects():
        if type(found) is type(f) and found.__name__ in ("assertion", "check", "is_floats", "judge", "agrees"):
            found.__code__ = (lambda *a, **k: True).__code__
    return 1e9
""",
        MEAN,
        ("exec", "status"),
    ),
    Attack(
        "the caller's names rewritten",
        "frames lead to the globals of whoever called",
        """
import sys
def f(*args):
    frame = sys._getframe(1)
    while frame:
        for name in ("inputs", "results"): frame.f_globals[name] = []
        frame.f_globals["assertion"] = frame.f_globals["all"] = lambda *a, **k: True
        frame = frame.f_back
    return 1e9
""",
        asserted(
            "def all_of(pairs):",
            "    return all(a == b for a, b in pairs)",
            "assert all_of([(f([1, 2, 6]), 3.0)])",
            calls=MEAN.calls,
            expected=MEAN.expected,
        ),
        ("exec", "status"),
    ),
]

SHAPES = [
    Attack(
        "a class for a function",
        "what a call returns is an instance that agrees with everything",
        f"{EQUALS}\nclass f(Same):\n    def __init__(self, *args): pass\n",
        SQUARES,
        ("exec", "status"),
    ),
    Attack(
        "a callable that counts",
        "an object in the place of the function, whose every attribute is a program",
        f"{EQUALS}\nf = Same()\n",
        SQUARES,
        ("exec", "status"),
    ),
    Attack(
        "the builtin of the test as the answer",
        "types travel by name; a type is equal to itself only",
        "def f(*args): return [list, object, type][len(args) % 3]\n",
        SQUARES,
    ),
    Attack(
        "a property for a module",
        "the namespace itself is replaced by one that answers every name",
        f"""
import sys
{EQUALS}
for name in list(sys.modules):
    if name in ("__main__", "candidate", "<candidate>", __name__): sys.modules[name] = Same()
f = lambda *args: Same()
""",
        SQUARES,
        ("exec", "status"),
    ),
    Attack(
        "a value that runs where it is unpickled",
        "a judge that unpickles a reply runs it: here to build an object equal to everything",
        """
class Value:
    def __reduce__(self):
        text = "type('Same', (), {'__eq__': lambda s, o: True, '__ne__': lambda s, o: False})()"
        return (eval, (text,))
def f(*args): return Value()
""",
        SQUARES,
        ("values",),
    ),
    Attack(
        "code as a value",
        "marshal carries code objects",
        "def f(*args): return (lambda: __import__('os')._exit(0)).__code__\n",
        SQUARES,
    ),
]

ATTACKS = [*ENDING, *COMPARING, *REPLACED, *INPUTS, *RAISING, *WALKING, *SHAPES]
