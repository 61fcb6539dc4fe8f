"""What training data shares with evaluation sets: by id, by solution, by n-grams of words. A leaf, and pure.

Four rules, each counted on its own:

    id        the same id of the same benchmark: row `mbpp/601` and document `Mbpp/601`. An id is `FAMILY/KEY`; without
              a family it takes the name of its source. A bare number is a row number, and is never compared
    solution  the same program, or the same text, once both are normalised (`normal_form`)
    13-gram   13 words in a row of a document's prompt or solution stand in a row of the training data (GPT-3,
              arXiv:2005.14165, appendix C)
    10-gram   the same with 10 words (Qwen2.5-Coder, arXiv:2409.12186: rows that share one were removed)

A word is a run of letters, digits and underscores in lower case (GPT-3 splits at white space and deletes punctuation;
code is written with and without blanks around it, so punctuation separates here). A prompt of fewer than n words is
compared whole; a solution that short says too little. What the documents of a set share among themselves is its
template and not compared: n-grams in more than `COMMON` documents (or half of a smaller set), and those with 5 words in
them that stand in more than a quarter of the documents. GPT-3 ignores what is common in the training data; there, a
problem that was copied often would go unseen.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .types import Document

RULES = ("id", "solution", "13-gram", "10-gram")
ACTING = ("id", "solution", "13-gram")
"""What `drop` and `fail` go by unless told otherwise: ten shared words are often only a phrase, so they are counted."""
SIZES = {"13-gram": 13, "10-gram": 10}
COMMON = 10
TEMPLATE_WORDS, TEMPLATE_SHARE = 5, 0.25
BLOCK, STRIDE = 8, 3
"""Any 10 words hold 8 that begin at a multiple of 3: those of a row are looked up first, in C, and seldom found."""
MIN_NODES = 24
"""A program with fewer nodes (`return sum(range(n + 1))`) is written alike by people who never saw each other's."""
MIN_WORDS = 10

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Hit:
    """Row number `row` shares something with documents (by their place) of the set `task`."""

    row: int
    task: str
    rule: str
    documents: tuple[int, ...]


def compare(rows: Iterable[Row], family: str, sets: Mapping[str, Sequence[Document]]) -> Iterator[Hit]:
    """Every hit of `rows` (`{"id", "prompt", "completion"}`) in the evaluation sets. `family` is that of bare ids.

    One pass over the rows; the sets are held in memory, some 300 bytes for each of their words.
    """
    indices = {task: _Index(documents) for task, documents in sets.items()}
    blocks = set().union(*(index.blocks for index in indices.values()))
    shapes = set().union(*(index.shapes for index in indices.values()))
    known = set().union(*(index.solutions for index in indices.values()))
    for number, row in enumerate(rows):
        prompt, completion = prompt_text(row["prompt"]), row["completion"]
        grams = _grams_near([words(prompt), words(completion)], blocks)
        forms = {_known_form(code, known, shapes) for code in programs(prompt, completion)}
        for task, index in indices.items():
            for rule, found in index.find(row["id"], family, forms, grams):
                yield Hit(number, task, rule, tuple(sorted(found)))


class _Index:
    """One evaluation set, ready to be looked up. Values are places of documents; words are kept as hashes."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.ids: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self.solutions: dict[str, set[int]] = defaultdict(set)
        self.shapes: set[tuple[str, ...]] = set()
        self.grams: dict[str, dict[int, tuple[int, ...]]] = {rule: {} for rule in SIZES}
        self.blocks: set[int] = set()
        self.limit = min(COMMON, max(1, len(documents) // 2))
        self.template = _template([_texts(document) for document in documents])
        for place, document in enumerate(documents):
            family, _, key = document.id.rpartition("/")
            if family and key:
                self.ids[key.casefold()].append((family, place))
            for solution in document.solutions:
                self._add_solution(document.prompt, solution, place)
            for rule in SIZES:
                self._add_words(rule, _texts(document), (place,))
        for rule, grams in self.grams.items():
            self.grams[rule] = {gram: found for gram, found in grams.items() if len(found) <= self.limit}
        for document in documents:
            self._add_blocks(_texts(document))

    def _add_solution(self, prompt: str, solution: str, place: int) -> None:
        for code in programs(prompt, solution):
            if form := normal_form(code):
                self.solutions[form].add(place)
                if form.startswith("Module("):  # what ast.dump gives
                    self.shapes.add(shape(code))

    def _add_words(self, rule: str, texts: list[list[str]], place: tuple[int, ...]) -> None:
        """A gram of one document costs no tuple of its own: they all share `place`."""
        grams, size = self.grams[rule], SIZES[rule]
        found = {gram for text in texts for _, gram in self._own_grams(text, size)}
        for gram in found | _whole(texts[0], size):
            known = grams.get(gram, ())
            if len(known) <= self.limit:
                grams[gram] = known + place if known else place

    def _own_grams(self, text: list[str], size: int) -> Iterator[tuple[int, int]]:
        """(start, gram) of the n-grams without a part of the template."""
        known = [short in self.template for short in _grams(text, TEMPLATE_WORDS)]
        for start, gram in enumerate(_grams(text, size)):
            if not any(known[start : start + size - TEMPLATE_WORDS + 1]):
                yield start, gram

    def _add_blocks(self, texts: list[list[str]]) -> None:
        for text in texts:
            blocks = list(_grams(text, BLOCK))
            for rule, size in SIZES.items():
                for start, gram in self._own_grams(text, size):
                    if gram in self.grams[rule]:
                        self.blocks.update(blocks[start : start + size - BLOCK + 1])

    def find(
        self, id: str, family: str, forms: set[str], grams: Mapping[str, set[int]]
    ) -> Iterator[tuple[str, set[int]]]:
        """(rule, places of documents) for every rule by which a row matches."""
        if found := self._by_id(id, family):
            yield "id", found
        if found := {place for form in forms for place in self.solutions.get(form, ())}:
            yield "solution", found
        for rule, of_row in grams.items():
            if found := {place for gram in of_row for place in self.grams[rule].get(gram, ())}:
                yield rule, found

    def _by_id(self, id: str, family: str) -> set[int]:
        own, _, key = id.rpartition("/")
        if not own and key.isdigit():
            return set()
        known = self.ids.get(key.casefold(), ())
        return {place for other, place in known if same_family(own or family, other)}


def _template(documents: Sequence[list[list[str]]]) -> set[int]:
    counts: Counter[int] = Counter()
    for texts in documents:
        counts.update({short for text in texts for short in _grams(text, TEMPLATE_WORDS)})
    most = max(1.0, TEMPLATE_SHARE * len(documents))
    return {short for short, count in counts.items() if count > most}


def _grams(text: Sequence[str], size: int) -> Iterator[int]:
    return map(hash, zip(*(text[start:] for start in range(size)), strict=False))


def _grams_near(texts: Sequence[list[str]], blocks: set[int]) -> dict[str, set[int]]:
    """The grams of a row around its blocks that an evaluation set knows, and its prompt where it is short."""
    found = {rule: _whole(texts[0], size) for rule, size in SIZES.items()}
    for text in texts:
        if blocks.isdisjoint(_strided(text)):
            continue
        for place in (number * STRIDE for number, block in enumerate(_strided(text)) if block in blocks):
            for rule, size in SIZES.items():
                found[rule].update(_grams(text[max(0, place - size + BLOCK) : place + size], size))
    return found


def _strided(text: Sequence[str]) -> Iterator[int]:
    return map(hash, zip(*(text[start::STRIDE] for start in range(BLOCK)), strict=False))


def _whole(prompt: list[str], size: int) -> set[int]:
    return {hash(tuple(prompt))} if 0 < len(prompt) < size else set()


def _texts(document: Document) -> list[list[str]]:
    return [words(document.prompt), *map(words, document.solutions)]


_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text, as the n-gram rules take them."""
    return _WORD.findall(text.lower())


def prompt_text(prompt: str | Sequence[Mapping[str, str]]) -> str:
    """A prompt as one text, chat messages or not."""
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


# -- ids --------------------------------------------------------------------------------------------------------


def same_family(one: str, other: str) -> bool:
    """Whether two names mean one benchmark: one of them is a word of the other, ignoring case and an ending `plus`.

    `mbpp` is `Mbpp`, `MbppPlus` and `sanitized-mbpp`; `code_contests` is not `code_x_glue`.
    """
    return _plain_name(one) in _name_words(other) or _plain_name(other) in _name_words(one)


def _plain_name(name: str) -> str:
    plain = re.sub(r"[\W_]+", "", name.casefold())
    return plain.removesuffix("plus") or plain


def _name_words(name: str) -> set[str]:
    return {_plain_name(name), *map(_plain_name, re.findall(r"[^\W_]+", name))} - {""}


# -- solutions --------------------------------------------------------------------------------------------------

_FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)


def programs(prompt: str, answer: str) -> list[str]:
    """What of an answer may be a program: its fenced blocks (a prompt may have opened the first), else all of it, and
    the prompt with it where the answer alone is only a body."""
    joined = prompt + answer
    fenced = [match[1] for match in _FENCED.finditer(joined) if match.end() > len(prompt)] if "```" in answer else []
    if fenced:
        return fenced
    return [answer, joined] if answer[:1] in (" ", "\t") or answer[:2] in ("\n ", "\n\t") else [answer]


def normal_form(text: str) -> str:
    """A program without what does not change what it does; "" for one that says too little.

    Parsed; comments, layout, docstrings and other bare strings, and annotations are gone; names that the program
    itself binds (functions, classes, arguments, variables) are numbered in the order in which they appear. What does
    not parse is text: white space folded, lower case.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(text.strip("\n"))
        if any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assign | ast.For) for node in tree.body):
            tree = _Plain(_bound(tree)).visit(tree)
            return ast.dump(tree) if sum(1 for _ in ast.walk(tree)) >= MIN_NODES else ""
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    return _folded(text) if len(words(text)) >= MIN_WORDS else ""


def _known_form(code: str, known: set[str], shapes: set[tuple[str, ...]]) -> str:
    """The normal form if it can be a known one: parsing every row would take a thousand times as long."""
    folded = _folded(code)
    return folded if folded in known else normal_form(code) if shape(code) in shapes else ""


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


_LEXED = re.compile(
    r"\"\"\".*?\"\"\"|'''.*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|\#[^\n]*|(?<![\w.])"
    r"(def|class|for|while|if|elif|else|return|lambda|and|or|not|in|is|try|except|with|import|from|yield|break|continue"
    r"|raise|assert|del|global)(?!\w)",
    re.DOTALL,
)


def shape(text: str) -> tuple[str, ...]:
    """The keywords of a program in their order: equal for equal `normal_form`s, and found without parsing."""
    return tuple(" ".join(filter(None, _LEXED.findall(text))).replace("elif", "else if").split())


def _bound(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


@dataclass
class _Plain(ast.NodeTransformer):
    """Takes out bare strings and annotations, and numbers the names in `bound`."""

    bound: set[str]
    numbers: dict[str, str] = field(default_factory=dict)

    def name(self, name: str | None) -> str | None:
        return self.numbers.setdefault(name, f"v{len(self.numbers)}") if name in self.bound else name

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for attribute in ("name", "id", "arg"):
            if isinstance(getattr(node, attribute, None), str) and not isinstance(node, ast.alias):
                setattr(node, attribute, self.name(getattr(node, attribute)))
        for attribute in ("annotation", "returns", "type_comment"):
            if getattr(node, attribute, None) is not None and not isinstance(node, ast.AnnAssign):
                setattr(node, attribute, None)
        super().generic_visit(node)
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        bare = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if bare else self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return None if node.value is None else self.generic_visit(ast.Assign([node.target], node.value, lineno=0))
