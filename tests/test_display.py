from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TOY

from mixmerge.display import Clock, PlainDisplay, seconds, size
from mixmerge.plan import build
from mixmerge.recipe import load
from mixmerge.registry import Registry
from mixmerge.types import Record, Step


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
    assert clock.left_over({}, False) == ""
    clock.started(steps[0])
    clock.took["evaluate"] = [10.0]
    assert clock.estimate({}) == (pytest.approx(40.0, abs=0.5), True)


def test_progress_refines_the_estimate() -> None:
    clock = Clock()
    step = Step("a", "train", "train a")
    clock.planned([step])
    clock.started(step)
    clock.began["a"] = (step, clock.began["a"][1] - 30)  # it began 30 s ago and is a quarter through
    assert clock.estimate({"a": {"done": 25, "total": 100}}) == (pytest.approx(90.0, abs=1), True)


def test_what_is_sure_to_be_left_is_said_while_the_rest_is_not_known() -> None:
    """From the first training on, and not only when the last kind of step has begun."""
    clock = Clock()
    train, score = Step("a", "train", "train a"), Step("b", "evaluate", "score a")
    clock.planned([train, score])
    clock.started(train)
    clock.began["a"] = (train, clock.began["a"][1] - 30)
    quarter = {"a": {"done": 25, "total": 100}}
    assert clock.left_over(quarter, False).startswith("at least 1 min ")
    clock.planned([train])
    assert clock.left_over(quarter, False).startswith("about 1 min ")
    assert clock.left_over(quarter, True).startswith("at least 1 min ")


def test_steps_are_counted_as_far_as_they_are_known(toy_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load(toy_recipe, Registry([str(TOY)]))
    plan = build(recipe)
    display = PlainDisplay()
    display.planned(plan, plan.runnable)
    step = plan.runnable[0]
    display.started(step)
    display.finished(step, None, "it is broken\n  a long table\n  hint: mend it")
    count = len(plan.runnable)
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith(f"toy: {count} steps to do, and then what the scores on choose_on ask for")
    assert said[-1].endswith(f"1 of {count} or more): it is broken")
    display.planned(replace(plan, later=()), plan.runnable[:2])
    assert "toy: 2 more steps to do" in capsys.readouterr().err


@pytest.mark.parametrize(("policy", "ending"), [("warn", "evaluation set"), ("drop", "and are left out")])
def test_rows_that_are_left_out_are_said_to_be(policy: str, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    step = Step("a", "contamination", "compare gen", content={"policy": policy})
    display = PlainDisplay()
    display.finished(step, Record(step, 0, 0, "", {}, {"acted_on": 3, "rows": 9}), "")
    assert capsys.readouterr().err.rstrip().endswith(ending)
