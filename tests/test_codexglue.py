"""Training rows of CodeXGLUE's code-to-text: what is asked, what is taken out, and what is left out."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mixmerge import SourceError
from mixmerge.sources import code2text, docstrings

PYTHON_2 = [10, 90, 317, 448, 553, 610, 655, 899, 902, 924]
"""The test rows, of the first 1,000, that no parser of Python 3 reads."""


def rows_of(data_dir: Path, language: str) -> list[dict[str, Any]]:
    path = data_dir / "code2text" / language / "test.jsonl.gz"
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def made(language: str, **row: str) -> code2text.Example | str:
    return code2text.example(row, language)


def test_prompts_name_the_language() -> None:
    assert code2text.prompt("php").endswith(
        "{code}\n\nSummarise what this PHP function does, in the words of its docstring:"
    )
    assert [*code2text.PROMPTS] == ["python", "java", "javascript", "php", "ruby", "go"]
    assert "JavaScript function" in code2text.prompt("javascript")
    with pytest.raises(SourceError, match="no language 'C#'"):
        code2text.prompt("C#")


def test_an_example() -> None:
    code = 'def add(a, b):\n    """Add {a} to\n    b.\n\n    More."""\n    return a + b\n'
    found = made("python", code=code, docstring="Add {a} to\n    b.\n\n    More.")
    assert isinstance(found, code2text.Example)
    assert (found.code, found.completion) == ("def add(a, b):\n    return a + b", "Add {a} to b.")
    assert found.prompt == (
        "def add(a, b):\n    return a + b\n\nSummarise what this Python function does, in the words of its docstring:"
    )


@pytest.mark.parametrize(
    ("language", "docstring", "summary"),
    [
        ("go", "// NewSized makes a Map\n// of the given size.", "NewSized makes a Map of the given size."),
        ("java", "Sort it,\nsee {@link X}.\n@param lo start\n@return it", "Sort it, see {@link X}."),
        ("ruby", "Sort it\n @param lo start", "Sort it"),
        ("python", "Parse a zonefile.\n    @text must be flat.\n\n    More.", "Parse a zonefile. @text must be flat."),
        ("php", "@return bool", ""),
    ],
)
def test_summaries(language: str, docstring: str, summary: str) -> None:
    assert code2text.summary(docstring, language) == summary


def test_rows_that_are_left_out_are_counted_by_reason() -> None:
    rows = [
        {"code": "func F() {\n}", "docstring": "// F does nothing."},
        {"code": "func F() {\n}", "docstring": "//"},
        {"code": "func F() {\n  // It does nothing\n  // at all, really\n}", "docstring": "// it does nothing at all"},
        {"code": "func F() {\n}", "docstring": "// F is empty."},
    ]
    found, dropped = code2text.examples(rows, "go")
    assert [(example.id, example.completion) for example in found] == [("0", "F does nothing."), ("3", "F is empty.")]
    assert dropped == {"has no summary": 1, "answer is visible in the prompt": 1}
    assert made("python", code="def f(): 'Doc.'", docstring="Doc.") == "docstring cannot be taken out of the code"
    assert made("python", code="class A: pass", docstring="Doc.") == "docstring cannot be taken out of the code"


def test_two_words_are_no_answer_that_is_visible() -> None:
    code = "function f() {\n  // View files\n}"
    assert isinstance(made("php", code=code, docstring="View files."), code2text.Example)
    assert made("php", code=code.replace("View", "view the"), docstring="View the\nfiles.") == (
        "answer is visible in the prompt"
    )


@pytest.mark.parametrize(
    ("language", "visible"),
    # found by reading every row whose summary a case-blind search of its code finds
    [("python", [434, 528, 843]), ("java", []), ("javascript", [87, 221, 400, 935, 957]), ("php", [247, 987])],
)
def test_real_rows_whose_answer_is_visible(data_dir: Path, language: str, visible: list[int]) -> None:
    rows = rows_of(data_dir, language)
    found, dropped = code2text.examples(rows, language)
    assert sorted({*range(1000)} - {int(example.id) for example in found}) == visible
    assert sum(dropped.values()) == len(visible)


@pytest.mark.parametrize("language", [*code2text.LANGUAGES])
def test_answers_are_the_references_of_codexglue(data_dir: Path, language: str) -> None:
    """CodeXGLUE's own tokens are the independent reading; they differ where CodeSearchNet cut inside a sentence."""

    def same(row: Mapping[str, Any]) -> bool:
        summary = code2text.summary(row["docstring"], language)
        return docstrings.normal(summary) == docstrings.normal(" ".join(row["docstring_tokens"]))

    differ = [number for number, row in enumerate(rows_of(data_dir, language)) if not same(row)]
    assert len(differ) <= 6


def test_no_python_row_is_lost_or_keeps_its_docstring(data_dir: Path) -> None:
    rows = rows_of(data_dir, "python")
    for number, row in enumerate(rows):
        code = docstrings.without_docstring(row["code"])
        assert code is not None
        assert code.count(row["docstring"]) == row["code"].count(row["docstring"]) - 1
        if number not in PYTHON_2:
            assert ast.get_docstring(ast.parse(code).body[0]) is None  # type: ignore[arg-type]
    for number in PYTHON_2:
        with pytest.raises(SyntaxError):
            ast.parse(rows[number]["code"])
    assert docstrings.without_docstring(rows[448]["code"]) == (
        "def _disable_autopx(self):\n        if self._autopx:\n"
        "            self.shell.run_cell = self._original_run_cell\n"
        '            self._autopx = False\n            print "%autopx disabled"'
    )


@pytest.mark.parametrize(
    ("code", "left"),
    [
        ("def f(a, (b, c)):\n    'Doc.'\n    print b", "def f(a, (b, c)):\n    print b"),
        (
            "@x(a=1)\ndef f(x={1: 2}):\n    u'''Doc:\n    more'''  # why\n    print x",
            "@x(a=1)\ndef f(x={1: 2}):\n    print x",
        ),
        ("def f():\n    # why\n    'Doc' \\\n    'more'\n    exec 'x' in y", "def f():\n    # why\n    exec 'x' in y"),
        ("async def f():\n    'Doc.'\n    print 1", "async def f():\n    print 1"),
        ("def f():\n    print 'no docstring'", "def f():\n    print 'no docstring'"),
        ("def f():\n    ur'Doc.'\n    print 1", None),
        ("def f():\n    'Doc.'; print 1", None),
        ("def f(): 'Doc.'; print 1", None),
        ("def f(x):\n    '%d' % x; print 1", None),
        ("class A:\n    def f():\n        'Doc.'\n        print 1", None),
        ("x = 1\nprint x", None),
        ("def f(", None),
        ("", None),
    ],
)
def test_python_2(code: str, left: str | None) -> None:
    assert docstrings.without_docstring(code) == left
