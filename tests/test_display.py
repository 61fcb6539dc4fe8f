from __future__ import annotations

import pytest

from mixmerge.display import Clock, seconds, size
from mixmerge.types import Step


@pytest.mark.parametrize(
    ("value", "text"), [(0.4, "0 s"), (59, "59 s"), (185, "3 min 05 s"), (3600, "1 h 00 min"), (7825, "2 h 10 min")]
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(12, "12 B"), (1500, "1.5 kB"), (538e6, "538 MB"), (1.6e9, "1.6 GB")])
def test_size(value: float, text: str) -> None:
    assert size(value) == text


def test_an_estimate_needs_to_have_seen_each_kind_of_step() -> None:
    clock = Clock()
    steps = [Step(str(i), "evaluate", f"score {i}") for i in range(4)]
    clock.planned(steps)
    assert clock.estimate({}) is None
    clock.started(steps[0])
    clock.took["evaluate"] = [10.0]
    assert clock.estimate({}) == pytest.approx(40.0, abs=0.5)


def test_progress_refines_the_estimate() -> None:
    clock = Clock()
    step = Step("a", "train", "train a")
    clock.planned([step])
    clock.started(step)
    clock.began["a"] = (step, clock.began["a"][1] - 30)  # it began 30 s ago and is a quarter through
    assert clock.estimate({"a": {"done": 25, "total": 100}}) == pytest.approx(90.0, abs=1)
