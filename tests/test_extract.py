"""The program in a model's answer: a table of what models write, and what is taken of it."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parent.parent / "tasks" / "mm_code" / "extract.py"
PROMPT = 'import math\n\ndef f(x):\n    """Add one.\n    >>> f(1)\n    2\n    """\n'
PLAIN = "def f(x):\n    return x + 1"


def extract() -> Any:
    spec = importlib.util.spec_from_file_location("mm_code_extract_alone", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXTRACT = extract()

# name: (answer, must stand in the program, must not)
CASES: dict[str, tuple[str, list[str], list[str]]] = {
    "a whole program": (PLAIN, [PLAIN], []),
    "a completion": ("    return x + 1\n", ["import math", "    return x + 1"], []),
    "a completion on the prompt's line": ("\n    return x + 1", ["    return x + 1"], []),
    "a completion without its first indentation": ("y = x + 1\n    return y", ["    y = x + 1\n    return y"], []),
    "a completion with a second function": ("    return g(x)\n\ndef g(x):\n    return x + 1\n", ["def g"], []),
    "an answer that begins inside a fence": (f"\n{PLAIN}\n```\nDone.", [PLAIN], ["Done", "`"]),
    "a fence": (f"```python\n{PLAIN}\n```", [PLAIN], ["`"]),
    "a fence without a language": (f"```\n{PLAIN}\n```", [PLAIN], []),
    "a fence of tildes": (f"~~~py\n{PLAIN}\n~~~", [PLAIN], []),
    "a fence that is never closed": (f"Here:\n```python\n{PLAIN}\n", [PLAIN], ["Here"]),
    "an indented fence": ("1. Do:\n   ```python\n   def f(x):\n       return x + 1\n   ```\n", [PLAIN], ["Do"]),
    "prose around a fence": (f"Sure, here it is.\n\n```python\n{PLAIN}\n```\nIt adds.", [PLAIN], ["Sure", "It"]),
    "prose around, no fence": (f"Sure, here it is:\n{PLAIN}\n\nIt adds one to x.", [PLAIN], ["Sure", "It"]),
    "several fences": (f"```sh\npip install x\n```\nthen\n```python\n{PLAIN}\n```", [PLAIN], ["pip"]),
    "the first of two solutions": (
        f"```python\n{PLAIN}\n```\nFaster:\n```python\ndef f(x):\n    return -~x\n```",
        [PLAIN],
        ["-~x"],
    ),
    "a stub first": (f"```python\ndef f(x):\n    pass\n```\nFilled in:\n```python\n{PLAIN}\n```", [PLAIN], ["pass"]),
    "a fence inside a docstring": (
        '```python\ndef f(x):\n    """Such as\n    ```\n    f(1)\n    ```\n    """\n    return x + 1\n```\nDone.',
        ["    ```\n    f(1)\n    ```", "return x + 1"],
        ["Done"],
    ),
    "a repeated prompt": (PROMPT + "    return x + 1\n", ["import math", "Add one.", "return x + 1"], []),
    "a repeated prompt, after the prompt's stub": (PROMPT + "    pass\n\n" + PLAIN, [PLAIN], ["Add one"]),
    "a second function that is used": (
        "def g(x):\n    return x + 1\n\ndef f(x):\n    return g(x)\n\ndef h(x):\n    return 3\n",
        ["def g", "def f"],
        ["def h"],
    ),
    "the same function twice": (f"{PLAIN}\n\ndef f(x):\n    return 5\n", [PLAIN], ["5"]),
    "a script's end": (f'{PLAIN}\n\nif __name__ == "__main__":\n    print(f(1))\n', [PLAIN], ["__name__", "print"]),
    "examples and asserts": (f"{PLAIN}\n\nprint(f(1))\nassert f(1) == 3\n", [PLAIN], ["print", "assert"]),
    "constants": ("ONE = 1\nTWO = 2\ndef f(x):\n    return x + ONE\n", ["ONE = 1"], ["TWO"]),
    "imports that come late": (
        "from math import floor\ndef f(x):\n    return os.x\nimport os\n",
        ["from math import floor\nimport os\ndef f"],
        [],
    ),
    "an import that is tried": (
        "try:\n    import numpy as np\nexcept ImportError:\n    np = None\n" + PLAIN,
        ["import numpy", "np = None", PLAIN],
        [],
    ),
    "a decorator": (
        "from functools import cache\n@cache\ndef g(x):\n    return x\n@cache\ndef f(x):\n    return g(x)\n",
        ["@cache\ndef g", "@cache\ndef f"],
        [],
    ),
    "a function without return": ("def g(a):\n    a[0] = 1\ndef f(a):\n    g(a)\n", ["def g", "def f"], []),
    "a helper class": (f"class G:\n    pass\n\nclass H:\n    pass\n\n{PLAIN} + len([G()])\n", ["class G"], ["class H"]),
    "a lambda": ("f = lambda x: x + 1\nprint(f(2))", ["f = lambda x: x + 1"], ["print"]),
    "an async helper": ("async def g():\n    return 1\ndef f(x):\n    return g()\n", ["async def g"], []),
    "cut off at the token limit": (f"{PLAIN}\n\ndef test():\n    assert f(1) == (2, [3", [PLAIN], ["test"]),
    "cut off in a string": (f'{PLAIN}\n\ndef g():\n    """Now', [PLAIN], ["Now"]),
    "ends of lines of Windows": (f"```python\r\n{PLAIN}\r\n```\r\n".replace("x + 1", "x + 1"), [PLAIN], ["\r"]),
    "tabs": ("def f(x):\n\treturn x + 1\n", ["def f(x):\n\treturn x + 1"], []),
    "tabs after a prompt with blanks": ("    y = x\n\treturn y + 1\n", ["    return y + 1"], ["\t"]),
    "escape codes of a terminal": (f"\x1b[32m{PLAIN}\x1b[0m", [PLAIN], ["\x1b"]),
    "a model's end and what follows": (f"{PLAIN}\n<|im_end|>\nuser: more", [PLAIN], ["user"]),
    "thinking": (f"<think>\ndef f(x):\n    return 9\n</think>\n{PLAIN}", [PLAIN], ["9"]),
    "letters that are no ASCII": ('def f(x):\n    return "é" * x  # ×\nZ = "ü"; print(Z)\n', ['"é" * x'], ["print"]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_program_is_taken_out(name: str) -> None:
    answer, kept, dropped = CASES[name]
    found = EXTRACT.extract_program(answer, PROMPT, "f")
    compile(found, "found", "exec")
    for text in kept:
        assert text in found
    for text in dropped:
        assert text not in found


@pytest.mark.parametrize(
    "answer", ["", "no program", "class Solution:\n    def f(self, x):\n        return x\n", "def g(x):\n"]
)
def test_without_the_function_there_is_nothing_to_pass(answer: str) -> None:
    """Such as a class in the place of the function: EvalPlus has none called so either."""
    scope: dict[str, Any] = {}
    exec(EXTRACT.extract_program(answer, '"""Write f."""\n', "f"), scope)
    assert "f" not in scope


def test_names_that_tests_use_are_kept() -> None:
    answer = "class Pair:\n    pass\n\nclass Other:\n    pass\n\ndef f(x):\n    return x\n"
    found = EXTRACT.extract_program(answer, "", "f", ["Pair"])
    assert "class Pair" in found
    assert "Other" not in found


def test_long_nonsense_costs_little() -> None:
    answer = "x = (\n" * 60 + "if a:\n" * 60 + PLAIN + "\n(" * 60
    start = time.process_time()
    EXTRACT.extract_program(answer, "", "f")
    assert time.process_time() - start < 5
