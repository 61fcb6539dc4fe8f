"""The program in a model's answer."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_ANSI = re.compile(r"\x1B(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")
_ENDS = re.compile(r"<\|endoftext\|>|<\|endofmask\|>|</s>|<\|im_end\|>|<\|eot_id\|>|<\|end\|>")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n`]*$", re.MULTILINE)
_STATEMENT = re.compile(r"(?:async )?def |class |import |from |@|[A-Za-z_][\w, ]*(?::|=|\[|\.)|try:|if |with |for ")
_TRIES = 100  # of anything for one answer, so that nonsense costs little


@dataclass(frozen=True)
class _Wanted:
    """`entry_point`, the function that is asked for, and other names that the tests use."""

    entry_point: str
    names: frozenset[str]


def extract_program(answer: str, prompt: str, entry_point: str, names: Iterable[str] = ()) -> str:
    """The program that `answer` gives for `prompt`: what of it defines `entry_point`, as the model wrote it.

    In this order, the first that defines `entry_point` with more than a docstring is taken:

    1. if the answer begins inside a function (its first line is indented): prompt + answer;
    2. each part between fences, and the parts around them, that parses as it stands; a fence inside a docstring ends
       nothing, and a part may be indented as a whole;
    3. of each part, and then of the whole answer, the longest run of lines that parses: so prose before and after,
       and what was cut off at the token limit, fall away;
    4. prompt + each part, and prompt + the answer, likewise: a body without its signature.

    Where nothing defines it, the longest run of lines that parses is returned, which will fail, and shows why.

    Before that, escape codes of a terminal, a model's end tokens with all that follows, its "thinking", and Windows'
    ends of lines are taken out; tabs become four spaces where some lines begin with tabs and others with blanks, and
    where the program does not parse with them.

    Kept of the program are imports (first), and the definitions and assignments that `entry_point` and `names` reach,
    the first of each function that is more than a stub. Left out is all that only acts: examples, asserts, prints,
    `if __name__ == "__main__"`. This is what EvalPlus' `sanitize` keeps, and in addition functions with a decorator or
    without `return`, imports inside `try`, and conditional definitions.
    """
    text = _ANSI.sub("", answer).replace("\r\n", "\n").replace("\r", "\n")
    text = _ENDS.split(text)[0]
    text = text.rpartition("</think>")[2]
    if re.search(r"^ +\S", text, re.MULTILINE) and re.search(r"^ *\t", text, re.MULTILINE):
        text = re.sub(r"^[ \t]+", lambda match: match[0].replace("\t", "    "), text, flags=re.MULTILINE)
    prompt, wanted = prompt.replace("\r\n", "\n"), _Wanted(entry_point, frozenset(names))
    for tabs in (None, "    "):
        if tabs and "\t" not in text:
            break
        given = text if tabs is None else text.replace("\t", tabs)
        for found in _candidates(given, prompt, wanted):
            if found.defines(entry_point):
                return found.kept(wanted)
    return _longest(text.split("\n"), None).source


def is_python(source: str) -> bool:
    """Whether a text parses as it stands."""
    return _parse(source) is not None


@dataclass(frozen=True)
class _Program:
    source: str
    tree: ast.Module

    def defines(self, name: str) -> bool:
        """More than a stub: a function with a body, or an assignment such as `f = lambda x: x`."""
        return any(name in _defined(node) and not _is_stub(node) for node in self.tree.body)

    def kept(self, wanted: _Wanted) -> str:
        nodes = list(_definitions(self.tree.body, wanted))
        reached = _reached(nodes, {wanted.entry_point, *wanted.names})
        lines = self.source.encode().split(b"\n")
        imports = [node for node in self.tree.body if _is_import(node)]
        others = [node for node in nodes if reached & set(_defined(node)) and node not in imports]
        return "\n".join(_text(lines, node) for node in [*imports, *others])


def _candidates(text: str, prompt: str, wanted: _Wanted) -> Iterator[_Program]:
    spans = _spans(text)
    parts = [text[start:end] for start, end in spans]
    first = next((line for line in text.split("\n") if line.strip()), "")
    if first[:1] in (" ", "\t"):
        yield from _completions(text, prompt)
    yield from _whole(text, spans)
    for part in [*parts, text]:
        yield _longest(part.split("\n"), wanted.entry_point)
    for part in [*parts, text]:
        yield from _completions(part, prompt)


def _spans(text: str) -> list[tuple[int, int]]:
    """Where the parts between lines that are fences begin and end; the whole when there are none."""
    fences = [(match.start(), min(match.end() + 1, len(text))) for match in _FENCE.finditer(text)]
    begins, ends = [0, *(end for _, end in fences)], [*(start for start, _ in fences), len(text)]
    return list(zip(begins, ends, strict=True))


def _whole(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[_Program]:
    """Parts that parse as they stand, also several in a row: the fences between are then inside a string."""
    for number, (start, _) in enumerate(spans):
        for _, end in spans[number : number + 8]:
            source = textwrap.dedent(text[start:end]).strip("\n")
            if (tree := _parse(source)) is not None:
                yield _Program(source, tree)


def _completions(text: str, prompt: str) -> Iterator[_Program]:
    """The prompt and a body after it, whose first indentation may be lost, cut to what parses."""
    body = text.lstrip("\n") if text[:1] == "\n" else text
    for whole in (f"{prompt.rstrip()}\n{body}", f"{prompt.rstrip()}\n    {body.lstrip()}"):
        lines = whole.split("\n")
        cut = _cut(lines)
        if len(cut) > len(prompt.rstrip().split("\n")):
            source = "\n".join(cut)
            tree = _parse(source)
            if tree is not None:
                yield _Program(source, tree)


def _longest(lines: Sequence[str], entry_point: str | None) -> _Program:
    """The run of lines that parses with the most lines in it; of those that define `entry_point`, where one does."""
    best, rank = _Program("", ast.Module([], [])), (False, 0)
    start, tries = 0, 0
    while start < len(lines) and tries < _TRIES:
        end = start + 1
        if _STATEMENT.match(lines[start]):
            tries += 1
            run = _cut(lines[start:])
            source = "\n".join(run)
            tree = _parse(source) if run else None
            if tree is not None:
                found = _Program(source, tree)
                this = (entry_point is not None and found.defines(entry_point), sum(bool(line.strip()) for line in run))
                if this > rank:
                    best, rank = found, this
                end = start + len(run)
        start = max(end, start + 1)
    return best


def _cut(lines: Sequence[str]) -> Sequence[str]:
    """The longest beginning that parses: without the line of the error and what follows, again and again."""
    end = len(lines)
    for _ in range(_TRIES):
        if end <= 0:
            break
        try:
            ast.parse("\n".join(lines[:end]))
            return lines[:end]
        except SyntaxError as error:
            end = min(end - 1, (error.lineno or end) - 1)
        except (ValueError, RecursionError, MemoryError):
            end -= 1
    return []


def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


# What is kept of a program


def _definitions(body: Sequence[ast.stmt], wanted: _Wanted) -> Iterator[ast.stmt]:
    """Statements that define something; of several functions of one name, the first that is more than a stub."""
    seen: set[str] = set()
    for node in body:
        names = set(_defined(node))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            later = any(node.name in _defined(other) and not _is_stub(other) for other in body if other is not node)
            if node.name in seen or (_is_stub(node) and later):
                continue
            seen.add(node.name)
        if names and not _is_main(node):
            yield node


def _defined(node: ast.AST) -> Iterator[str]:
    """The names that a statement binds at the top of a program."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from (inner.id for inner in ast.walk(target) if isinstance(inner, ast.Name))
    elif isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While) and not _is_main(node):
        for inner in ast.iter_child_nodes(node):
            yield from _defined(inner)
    elif isinstance(node, ast.ExceptHandler):
        for inner in node.body:
            yield from _defined(inner)


def _is_stub(node: ast.AST) -> bool:
    """A function of which there is nothing but its docstring, `pass` or `...`."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return all(
        isinstance(inner, ast.Pass) or (isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant))
        for inner in node.body
    )


def _is_import(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    return isinstance(node, ast.Try) and any(isinstance(inner, ast.Import | ast.ImportFrom) for inner in node.body)


def _is_main(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and any(
        isinstance(inner, ast.Name) and inner.id == "__name__" for inner in ast.walk(node.test)
    )


def _reached(nodes: Sequence[ast.stmt], wanted: set[str]) -> set[str]:
    uses: dict[str, set[str]] = {}
    for node in nodes:
        names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        for name in _defined(node):
            uses.setdefault(name, set()).update(names)
    found: set[str] = set()
    new = set(wanted)
    while new:
        found |= new
        new = {used for name in new for used in uses.get(name, ())} - found
    return found


def _text(lines: Sequence[bytes], node: ast.stmt) -> str:
    """A statement as it was written, with its decorators."""
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
    begin = node.col_offset if first == node.lineno else 0
    part = list(lines[first - 1 : node.end_lineno])
    part[-1] = part[-1][: node.end_col_offset]
    part[0] = part[0][begin:]
    return b"\n".join(part).decode()
