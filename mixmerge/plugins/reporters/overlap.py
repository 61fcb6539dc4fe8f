"""What training data shares with evaluation sets, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixmerge import Overlap, Results

from . import words

RULES = {
    "id": "the same id of the same benchmark",
    "solution": "the same solution, once names, layout, comments and docstrings are normalised",
    "13-gram": "13 words in a row are the same (GPT-3's rule)",
    "10-gram": "10 words in a row are the same (stricter, and met by phrases that many problems share)",
}


@dataclass(frozen=True)
class Line:
    """One dataset with one evaluation set. A cell is "108 · 374": documents of the set, rows of the data; or "–"."""

    data: str
    rows: str
    task: str
    documents: str
    cells: tuple[str, ...]
    record: str


def heads(results: Results) -> tuple[str, ...]:
    """The rules, in their order."""
    return tuple(dict.fromkeys(rule for overlap in results.overlaps for rule in overlap.found))


def lines(results: Results) -> Sequence[Line]:
    return [_line(overlap, heads(results)) for overlap in results.overlaps]


def legend(results: Results) -> str:
    """What the table says, and what each rule is."""
    told = "; ".join(f"{rule}: {RULES[rule]}" for rule in heads(results) if rule in RULES)
    return f"Documents of the evaluation set · rows of the training data. {told[:1].upper()}{told[1:]}."


def policy(results: Results) -> str:
    """What became of those rows."""
    text = results.provenance.get("contamination", "")
    if not any(rows for overlap in results.overlaps for rows, _ in overlap.found.values()):
        return "No rule found anything."
    return {
        "warn": "These rows were trained on.",
        "drop": "Rows found by the recipe's rules were left out before mixing.",
        "fail": "Had the recipe's rules found any, nothing would have been trained.",
    }.get(str(text), "")


def _line(overlap: Overlap, rules: Sequence[str]) -> Line:
    found = [overlap.found.get(rule, (0, 0)) for rule in rules]
    cells = tuple(f"{documents:,} · {rows:,}" if rows else "–" for rows, documents in found)
    documents = words.plural(overlap.documents, "document")
    return Line(overlap.data, words.plural(overlap.rows, "row"), overlap.task, documents, cells, overlap.record)
