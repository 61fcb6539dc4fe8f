"""Function and docstring pairs, taken from installed packages and from the Python standard library.

The rules are CodeSearchNet's (arXiv 1909.09436, section 2.1) and CodeXGLUE's (arXiv 2102.04664, section 3.8):

- a docstring is cut to its first paragraph; it has 3 to 256 tokens, is ASCII (for "English"), starts with a letter,
  and holds no URL and no HTML tag;
- a function has at least three lines without its docstring, parses, is no `__dunder__` method, and has no "test" in
  its name;
- the docstring is taken out of the code, by the parser and not by a pattern.

Deviations: a first paragraph that is a doctest, a field list or an underlined heading is no summary and is left out;
the code is ASCII too, and at most MAX_CODE_CHARS long so that a CPU trains on it in minutes; language is not detected.

Near duplicates: two pairs are near duplicates when their docstrings are equal in lower case without punctuation, or
when the sets of tokens of their code have a Jaccard similarity of at least 0.8. The held-out functions hold no near
duplicates among themselves, and no training pair is a near duplicate of a held-out one. Within the training pairs only
equal docstrings and equal code are removed.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

RULES_VERSION = "1"
MAX_CODE_CHARS = 600
"""Longest code of a pair, in characters: the median prompt is then near 100 tokens of a code tokenizer."""
MAX_SIMILARITY = 0.8

_TOKEN = re.compile(r"\w+|[^\w\s]")
_NO_SUMMARY = re.compile(r"https?:|www\.|</?[a-zA-Z][^<>]*>|>>>|^[:@]|^(?:=|-|~){3,}", re.MULTILINE)


@dataclass(frozen=True)
class Pair:
    """`id` is package:module:function; `code` is dedented and without its docstring; `docstring` is one line."""

    id: str
    code: str
    docstring: str

    @property
    def prompt(self) -> str:
        return summary_prompt(self.code)

    @property
    def completion(self) -> str:
        return summary_completion(self.docstring)


def summary_prompt(code: str) -> str:
    """The prompt of training rows and of the lm-eval tasks alike.

    It ends in an opening quotation mark because an untrained instruct model then answers on the same line; after
    "# Summary:" it starts a new one, and would score 0 for that alone.
    """
    return f'{code.rstrip()}\n\nThe docstring of this function is: "'


def summary_completion(docstring: str) -> str:
    """What follows `summary_prompt`: the docstring and the closing quotation mark."""
    return f'{docstring}"'


def summary_of(response: str) -> str:
    """The docstring in a response to `summary_prompt`: its first line without the closing quotation mark."""
    return response.split("\n", 1)[0].strip().removesuffix('"').strip()


def first_paragraph(docstring: str) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join(re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0].split())


def without_docstring(code: str) -> str | None:
    """Python source of one function without its docstring.

    What this Python does not parse, such as Python 2, is read by parso, which takes any version. None when there is no
    function, nothing else is left, or the docstring shares a line with code.
    """
    code = textwrap.dedent(code)
    tree = _parsed(code)
    return _tolerantly(code) if tree is None else _strictly(code, tree)


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _strictly(code: str, tree: ast.Module) -> str | None:
    node = tree.body[0] if tree.body else None
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    if ast.get_docstring(node, clean=False) is None:
        return code
    first = node.body[0]
    lines = code.split("\n")
    start, end = first.lineno - 1, first.end_lineno or first.lineno
    before = lines[start].encode()[: first.col_offset]
    after = lines[end - 1].encode()[first.end_col_offset :]
    if len(node.body) == 1 or before.strip() or (after.strip() and not after.strip().startswith(b"#")):
        return None
    return "\n".join(lines[:start] + lines[end:])


def _tolerantly(code: str) -> str | None:
    """By the leaves of parso's tree, which are all there, in order, whatever does not parse."""
    lines = code.split("\n")
    leaves = _leaves(code)
    if not _skip_header(leaves):
        return None
    leaf = first = next(leaves, None)
    end = 0
    while leaf and leaf.type == "string":
        end, leaf = leaf.end_pos[0], next(leaves, None)
    if not first or not leaf or leaf.value in ("ur", "UR"):  # a string of Python 2 alone comes as a name and a string
        return None
    if not end:
        return code
    start, column = first.start_pos
    if leaf.type != "newline" or lines[start - 1][:column].strip() or not "".join(lines[end:]).strip():
        return None
    return "\n".join(lines[: start - 1] + lines[end:])


def _leaves(code: str) -> Iterator[Any]:
    import parso

    leaf = parso.parse(code).get_first_leaf()
    while leaf is not None:
        if leaf.value:  # no marks of indentation, no end of the file
            yield leaf
        leaf = leaf.get_next_leaf()


def _skip_header(leaves: Iterator[Any]) -> bool:
    """Go past decorators, `def NAME(…):` and that line's end; False when this is no function, or all on one line."""
    depth, keyword = 0, ""
    for leaf in leaves:
        depth += leaf.value in ("(", "[", "{")
        depth -= leaf.value in (")", "]", "}")
        if leaf.value == "\n" and not depth:
            keyword = ""
        elif not keyword or keyword == "async":
            keyword = leaf.value
        elif leaf.value == ":" and not depth:
            after = next(leaves, None)
            return keyword == "def" and after is not None and after.type == "newline"
    return False


def pairs_in(source: str, prefix: str) -> Iterator[Pair]:
    """The pairs of one module, by line; `prefix` starts their ids. A module that does not parse has none."""
    tree = _parsed(source)
    if tree is None:
        return
    lines = source.split("\n")
    seen: set[str] = set()
    for name, node in _functions(tree, ""):
        docstring = ast.get_docstring(node)
        dunder = node.name.startswith("__") and node.name.endswith("__")
        if name in seen or not docstring or dunder or "test" in node.name.lower():
            continue
        summary = first_paragraph(docstring)
        if not _is_summary(docstring, summary):
            continue
        segment = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        segment = textwrap.dedent(segment)
        parsed = _parsed(segment) if segment.isascii() else None
        code = _strictly(segment, parsed) if parsed else None
        if code is None or len(code) > MAX_CODE_CHARS or len([line for line in code.split("\n") if line.strip()]) < 3:
            continue
        seen.add(name)
        yield Pair(f"{prefix}:{name}", code.strip("\n"), summary)


class NearDuplicates:
    """Knows the pairs it was given, and whether another one is a near duplicate of any."""

    def __init__(self, pairs: Iterable[Pair] = ()) -> None:
        self._docstrings: set[str] = set()
        self._tokens: list[frozenset[str]] = []
        for pair in pairs:
            self._remember(pair)

    def near(self, pair: Pair) -> bool:
        if normal(pair.docstring) in self._docstrings:
            return True
        tokens = _tokens(pair.code)
        return any(
            len(tokens & other) >= MAX_SIMILARITY * len(tokens | other)
            for other in self._tokens
            if MAX_SIMILARITY * len(other) <= len(tokens) <= len(other) / MAX_SIMILARITY
        )

    def add(self, pair: Pair) -> bool:
        """Take the pair in; False, and nothing changes, when it is a near duplicate."""
        if self.near(pair):
            return False
        self._remember(pair)
        return True

    def _remember(self, pair: Pair) -> None:
        self._docstrings.add(normal(pair.docstring))
        self._tokens.append(_tokens(pair.code))


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method with its qualified name, in the order of the file."""
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{child.name}" if prefix else child.name
            if not isinstance(child, ast.ClassDef):
                yield name, child
        yield from _functions(child, name)


def _is_summary(docstring: str, summary: str) -> bool:
    paragraph = re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0]
    # A first letter keeps the border between prompt and completion a border between tokens.
    return (
        summary.isascii()
        and summary[:1].isalpha()
        and 3 <= len(_TOKEN.findall(summary)) <= 256
        and not _NO_SUMMARY.search(paragraph)
    )


def _tokens(code: str) -> frozenset[str]:
    return frozenset(_TOKEN.findall(code))


def normal(docstring: str) -> str:
    """The words of a docstring in lower case."""
    return " ".join(re.findall(r"\w+", docstring.lower()))
