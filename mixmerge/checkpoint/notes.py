"""What a reader of measurements must know before believing them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..types import Measurement

_MOST = 0.5  # of the changed weights: from here on one step of the dtype is the rule


def notes(measurements: Iterable[Measurement]) -> list[str]:
    """A sentence for every model whose change is mostly rounding, and one for tensors whose place is unknown."""
    found = list(measurements)
    return _rounded(found) + unplaced(found)


def _rounded(found: Sequence[Measurement]) -> list[str]:
    whole = {(one.metric, one.models): one.value for one in found if (one.diagnostic, one.group) == ("changed", "all")}
    said = []
    for (metric, models), value in whole.items():
        if metric == "one_ulp" and value > _MOST:
            changed = whole.get(("changed", models), 0.0)
            said.append(
                f"{models[0]}: {100 * changed:.3g} % of its weights differ from the base, {100 * value:.3g} % of those"
                " by no more than one unit in the last place: the other figures about it measure rounding"
            )
    return said


def unplaced(found: Sequence[Measurement]) -> list[str]:
    """A sentence for tensors whose place in the model is unknown; none where there are no such."""
    said = []
    unknown = sorted({one.group.removeprefix("tensor ") for one in found if one.group.startswith("tensor ")})
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        layers = any(one.group.startswith("layer ") for one in found)
        what = "" if layers else ", and none of any other tensor is known: an unknown architecture"
        said.append(
            f"no place in the model is known for {', '.join(unknown[:3])}{more}{what}; figures stand for each such"
            " tensor alone, and a plugin's place_tensor can say where it belongs"
        )
    return said
