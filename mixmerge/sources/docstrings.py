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
import hashlib
import importlib.metadata
import itertools
import platform
import re
import sys
import sysconfig
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath

from ..errors import SourceError

RULES_VERSION = "1"
MAX_CODE_CHARS = 600
"""Longest code of a pair, in characters: the median prompt is then near 100 tokens of a code tokenizer."""
MAX_SIMILARITY = 0.8
STDLIB_SIZES = {"test": 80, "dev": 40}
"""Held-out functions of the standard library; training pairs are the rest of it."""
STDLIB_LICENCE = "PSF-2.0"

_TOKEN = re.compile(r"\w+|[^\w\s]")
_NO_SUMMARY = re.compile(r"https?:|www\.|</?[a-zA-Z][^<>]*>|>>>|^[:@]|^(?:=|-|~){3,}", re.MULTILINE)
_SKIPPED_PARTS = frozenset({"_vendor", "_vendored", "vendor", "tests", "test", "testing", "examples", "setup.py"})


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
    """Python source of one function without its docstring; None when it does not parse, is no function, has nothing
    left, or shares a line with its docstring."""
    code = textwrap.dedent(code)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            node = ast.parse(code).body[0]
    except (SyntaxError, ValueError, IndexError):
        return None
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


def pairs_in(source: str, prefix: str) -> Iterator[Pair]:
    """The pairs of one module, by line; `prefix` starts their ids. A module that does not parse has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
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
        code = without_docstring(segment) if segment.isascii() else None
        if code is None or len(code) > MAX_CODE_CHARS or len([line for line in code.split("\n") if line.strip()]) < 3:
            continue
        seen.add(name)
        yield Pair(f"{prefix}:{name}", code.strip("\n"), summary)


def python_version() -> str:
    """Which standard library this is."""
    return platform.python_version()


@lru_cache(maxsize=1)
def _stdlib() -> Mapping[str, tuple[Pair, ...]]:
    root = Path(sysconfig.get_path("stdlib"))
    files = [path for path in root.glob("*.py") if path.stem in sys.stdlib_module_names and path.stem[0] != "_"]
    found = [pair for path in files for pair in pairs_in(_read(path), f"python:{path.stem}")]
    # The order by hash of the name changes as little as can be from one Python version to the next.
    found.sort(key=lambda pair: hashlib.sha256(pair.id.encode()).digest())
    test, both = STDLIB_SIZES["test"], sum(STDLIB_SIZES.values())
    compare = _Deduplicator()
    candidates = iter(found)
    held_out = list(itertools.islice((pair for pair in candidates if compare.add(pair)), both))
    if len(held_out) < both:
        raise SourceError(
            f"the standard library in {root} has only {len(held_out)} functions with docstrings",
            hint="python-stdlib: needs a Python that ships its standard library as source",
        )
    return {"test": tuple(held_out[:test]), "dev": tuple(held_out[test:]), "rest": tuple(candidates)}


def stdlib_pairs(split: str) -> tuple[Pair, ...]:
    """Functions of the top-level public modules of the running Python's standard library.

    `test` and `dev` are fixed for one Python version, free of near duplicates, and arbitrary otherwise (ordered by a
    hash of their names). Takes about two seconds the first time in a process. Raises KeyError for another split and
    SourceError where the standard library has no sources.
    """
    if split not in STDLIB_SIZES:
        raise KeyError(split)
    return _stdlib()[split]


def stdlib_training_pairs() -> tuple[tuple[Pair, ...], int]:
    """The rest of the standard library, as `package_pairs` gives it."""
    return _training(_stdlib()["rest"])


def package_pairs(requirements: Sequence[tuple[str, str]]) -> tuple[tuple[Pair, ...], int]:
    """Pairs from installed packages, given as (name, version), and how many near duplicates of the held-out standard
    library functions were removed. Sorted by id.

    A pinned version matches an installed one that adds a local part (`2.13.0` matches `2.13.0+cpu`). Raises
    SourceError when a package is missing, has another version, has no Python sources, or is setuptools.
    """
    return _training([pair for name, version in requirements for pair in _pairs_of(name, version)])


def _training(found: Iterable[Pair]) -> tuple[tuple[Pair, ...], int]:
    compare = _Deduplicator([*stdlib_pairs("test"), *stdlib_pairs("dev")])
    docstrings: set[str] = set()
    codes: set[str] = set()
    kept: list[Pair] = []
    removed = 0
    for pair in sorted(found, key=lambda pair: pair.id):
        docstring, code = _normal(pair.docstring), " ".join(pair.code.split())
        if docstring in docstrings or code in codes:
            continue
        docstrings.add(docstring)
        codes.add(code)
        if compare.near(pair):
            removed += 1
        else:
            kept.append(pair)
    return tuple(kept), removed


def check_installed(requirements: Sequence[tuple[str, str]]) -> None:
    """Raise the SourceError that `package_pairs` would raise about a package or its version."""
    for name, version in requirements:
        _distribution(name, version)


def package_licence(name: str) -> str:
    """The licence that an installed package declares: SPDX expression, else classifier, else the first licence line."""
    metadata = importlib.metadata.metadata(name)
    for expression in metadata.get_all("License-Expression") or []:
        return str(expression)
    for classifier in metadata.get_all("Classifier") or []:
        if classifier.startswith("License ::"):
            return str(classifier).rsplit(" :: ", 1)[-1]
    for text in metadata.get_all("License") or []:
        return (str(text).strip().splitlines() or ["unknown"])[0][:80]
    return "unknown"


class _Deduplicator:
    """Knows the pairs it was given and finds near duplicates of them."""

    def __init__(self, pairs: Iterable[Pair] = ()) -> None:
        self._docstrings: set[str] = set()
        self._tokens: list[frozenset[str]] = []
        for pair in pairs:
            self._remember(pair)

    def near(self, pair: Pair) -> bool:
        if _normal(pair.docstring) in self._docstrings:
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
        self._docstrings.add(_normal(pair.docstring))
        self._tokens.append(_tokens(pair.code))


def _distribution(name: str, version: str) -> importlib.metadata.Distribution:
    if name.lower() == "setuptools":
        raise SourceError(
            "packages: setuptools carries copies of the standard library, which is the test set",
            hint="leave setuptools out",
        )
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise SourceError(
            f"packages: {name} is not installed", hint=f"{sys.executable} -m pip install {name}=={version}"
        ) from None
    installed = distribution.version
    if installed != version and installed.split("+")[0] != version:
        raise SourceError(
            f"packages: {name} is pinned to {version}, but {installed} is installed",
            hint=f"install {name}=={version}, or write {name}=={installed.split('+')[0]} in the recipe",
        )
    return distribution


def _pairs_of(name: str, version: str) -> Iterator[Pair]:
    distribution = _distribution(name, version)
    files = [file for file in distribution.files or () if file.suffix == ".py" and not _skipped(file)]
    if not files:
        raise SourceError(f"packages: {name} {version} has no Python sources", hint="install it from its wheel")
    for file in files:
        path = Path(str(file.locate()))
        if path.is_file():
            yield from pairs_in(_read(path), f"{name}:{'.'.join(file.with_suffix('').parts)}")


def _skipped(file: PurePath) -> bool:
    named_test = file.stem.startswith("test") or file.stem.endswith("_test") or file.stem == "conftest"
    return named_test or ".." in file.parts or not _SKIPPED_PARTS.isdisjoint(file.parts)


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


def _normal(docstring: str) -> str:
    return " ".join(re.findall(r"\w+", docstring.lower()))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
