"""The page over several experiments of recorded results: their answers, and what the figures do not support."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mixmerge import Doubt, Results
from mixmerge.results import DOUBTS, tally

from . import cite, content, origin, pages, standing, words
from .standing import Standing

ANSWERS = {"mix": "Mix", "merge": "Merge", "undecided": "Undecided"}


@dataclass(frozen=True)
class Answer:
    """One experiment: its answers by advisor, and where its winner stands; `link` leads to its page."""

    name: str
    link: str
    answers: tuple[tuple[str, str], ...]
    standing: Standing | None
    merges: int


def folder(part: Results) -> str:
    """The folder of an experiment's page: lower case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", part.name.lower()).strip("-") or "experiment"


def answers(results: Results) -> tuple[Answer, ...]:
    return tuple(
        Answer(
            part.name,
            f"{folder(part)}/index.html",
            tuple(
                (ANSWERS.get(one.answer, one.answer), content.sentence(part, one.headline, one.answer))
                for one in part.advice
            ),
            next(iter(standing.standings(part)), None),
            sum(model.kind == "merge" for model in part.models),
        )
        for part in results.parts
    )


def doubts(results: Results) -> tuple[tuple[str, tuple[Doubt, ...]], ...]:
    """By kind, in the order of their weight: (what they are, the doubts)."""
    found = ((what, tuple(one for one in results.doubts if one.kind == kind)) for kind, what in DOUBTS.items())
    return tuple((what, of_kind) for what, of_kind in found if of_kind)


def render(results: Results, title: str) -> str:
    """The page as text."""
    return (
        pages.environment()
        .get_template("overview.html.j2")
        .render(
            title=title,
            results=results,
            answers=answers(results),
            tally=tally(results),
            doubts=doubts(results),
            facts=origin.facts(results),
            pins=origin.pins(results),
            recipe_name=origin.recipe_name(results),
            recipe_text=origin.recipe_text(results),
            bibtex=cite.bibtex(results),
            words=words,
        )
    )
