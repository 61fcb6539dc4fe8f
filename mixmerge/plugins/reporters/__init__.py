"""Reports: `html` for people, `markdown`, `csv` and `latex` for wherever the numbers go next."""

from __future__ import annotations

from collections.abc import Sequence

from mixmerge import Component, hookimpl

from .html import html
from .tables import csv, markdown
from .tex import latex

__all__ = ["csv", "html", "latex", "markdown", "register_reporters"]


@hookimpl
def register_reporters() -> Sequence[Component]:
    return [html, markdown, csv, latex]
