"""The built-in diagnostics.

Each sees one tensor at a time, base and every model, and gives float64 sums that add up over the tensors of a group;
`finish` turns the sums of a group into figures. Weights are subtracted, and everything is summed, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixmerge import Component, hookimpl

from .conflict import conflict
from .correlation import correlation, null
from .distance import l2
from .rounding import changed
from .spectrum import spectrum

__all__ = ["changed", "conflict", "correlation", "l2", "null", "spectrum"]


@hookimpl
def register_diagnostics() -> Sequence[Component]:
    return [l2, correlation, changed, conflict, spectrum, null]
