"""What a report carries beside its numbers."""

from __future__ import annotations

from mixmerge import Row
from mixmerge.collect import _below_baselines


def row(
    model: str, kind: str, value: float, *, metric: str = "rouge_l", higher: bool = True, primary: bool = True
) -> Row:
    return Row(model, kind, "task", metric, value, None, 10, higher_is_better=higher, primary=primary)  # type: ignore[arg-type]


def test_models_below_a_trivial_baseline_are_named() -> None:
    rows = [
        row("base", "base", 9.0),
        row("expert", "expert", 30.0),
        row("expert", "expert", 1.0, metric="other", primary=False),
        row("constant sentence", "reference", 10.25),
        row("constant sentence", "reference", 50.0, metric="other", primary=False),
        row("function name", "reference", 8.0),
    ]
    assert _below_baselines(rows) == [
        "task: worse than the trivial baseline 'constant sentence' (rouge_l 10.25): base (9.00)"
    ]


def test_lower_is_better_is_read_as_such() -> None:
    rows = [row("base", "base", 2.0, higher=False), row("expert", "expert", 1.0, higher=False)]
    rows.append(row("constant", "reference", 1.5, higher=False))
    assert _below_baselines(rows) == ["task: worse than the trivial baseline 'constant' (rouge_l 1.50): base (2.00)"]


def test_long_lists_are_cut() -> None:
    rows = [row(f"merge {i}", "merge", 1.0) for i in range(8)] + [row("constant", "reference", 2.0)]
    (note,) = _below_baselines(rows)
    assert note.endswith("merge 4 (1.00) and 3 more")
