"""A recipe becomes a DAG of steps with content ids. Pure: it starts nothing and writes nothing.

A step's id is a hash of its component's name and version (and source, where a plugin lies at hand to be edited), its
validated parameters, its seed, the ids of its inputs and the pins of what comes from outside. Names are not in it:
neither renaming an expert nor moving a data file trains anything again (of the file its own name and its bytes count).
What can only be planned once merges have been scored (the next points of a search, the winners' scores on `report_on`)
appears when `build` is called again with the `Decision`s so far.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..recipe import Recipe
from .builder import Builder
from .recorded import RecordedBuilder
from .values import Decision, Plan, PlannedModel, is_virtual

__all__ = ["Decision", "Plan", "PlannedModel", "build", "is_virtual"]


def build(recipe: Recipe, decisions: Mapping[str, Decision] | None = None) -> Plan:
    """The plan as far as the decisions allow: everything that can be run now, and what follows in words."""
    return (RecordedBuilder if recipe.recorded else Builder)(recipe, decisions or {}).plan()
