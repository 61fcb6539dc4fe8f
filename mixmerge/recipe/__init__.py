"""A recipe file becomes a Recipe, or one RecipeError with every problem in it.

Five rules: sections are written in the order data flows (no other is refused); wherever a component goes, write `name`
or `name: {parameter: value}`; everything under `sweep:` is crossed; `defaults` fills in what an entry leaves out; no
templating, no environment variables, no code.
"""

from __future__ import annotations

from pathlib import Path

from .. import yamlfile
from ..errors import RecipeError
from ..registry import Registry
from .entries import EvalEntry, GateEntry, MergeEntry, ModelEntry, Recipe, RecordedEntry, TrainEntry
from .sections import Sections

__all__ = [
    "EvalEntry",
    "GateEntry",
    "MergeEntry",
    "ModelEntry",
    "Recipe",
    "RecordedEntry",
    "TrainEntry",
    "is_one",
    "load",
]


def is_one(path: Path) -> bool:
    """Whether a file is a recipe rather than a mergekit configuration."""
    return yamlfile.has_key(path, "base", "results")


def load(path: Path, registry: Registry) -> Recipe:
    """Read and validate a recipe. Raises RecipeError with every problem found, in the order of the file."""
    reader = Sections(yamlfile.read(path), registry)
    recipe = reader.recipe()
    if reader.problems:
        raise RecipeError([problem for _, problem in sorted(reader.problems, key=lambda pair: pair[0])])
    return recipe
