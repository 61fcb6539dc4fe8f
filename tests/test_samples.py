"""Samples side by side, out of logs as lm-eval writes them, kept in a real store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixmerge import Model, Results, Row, Step
from mixmerge.samples import LONGEST, _verdict, side_by_side
from mixmerge.store import Store

MODELS = {"base": "base", "gen": "expert", "mixed": "mixture", "ties 1": "merge"}
PASSED = {  # sample:   0  1  2  3  4  5
    "base": (0, 0, 0, 0, 0, 0),
    "gen": (1, 1, 1, 0, 1, 0),
    "mixed": (1, 1, 0, 1, 1, 0),
    "ties 1": (0, 1, 1, 1, 1, 0),
}


def log(model: str, index: int, name: str = "pass@1", kind: str = "executed") -> dict[str, object]:
    """One line as lm-eval logs it for a task of ours."""
    verdict = {"passed": bool(PASSED[model][index]), "status": "ok", "detail": ""}
    if not PASSED[model][index]:
        verdict |= {"status": "timeout", "detail": "3 s"}
    return {
        "doc_id": index,
        "doc": {"task_id": f"Test/{index}", "prompt": "p"},
        "target": f"target {index}",
        "arguments": [[f"prompt {index}", {"until": ["\n"]}]],
        "resps": [[f"{model} wrote {index}"]],
        "filtered_resps": [[verdict]],
        "filter": kind,
        name: float(PASSED[model][index]),
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def results(store: Store, lines: dict[str, list[dict[str, object]]]) -> Results:
    rows = []
    for model, logged in lines.items():
        step = Step(f"step-{model.replace(' ', '-')}", "evaluate", f"score {model}")
        out = store.begin(step)
        (out / "samples_code.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged))
        store.commit(step, 0.0, {})
        passed = tuple(map(float, PASSED[model]))
        mean = sum(passed) / 6
        rows.append(
            Row(model, MODELS[model], "code", "pass@1", mean, 0.1, 6, primary=True, samples=passed, record=step.id)  # type: ignore[arg-type]
        )
    models = [
        Model(name, kind, name, "merged" if kind == "merge" else "", experts=("gen",) if kind == "merge" else ())  # type: ignore[arg-type]
        for name, kind in MODELS.items()
    ]
    return Results("r", tuple(rows), models, report_on=("code",), winners={"merged": "ties 1"})


def test_where_the_two_differ_comes_first_then_what_all_miss_and_what_all_solve(store: Store) -> None:
    found = side_by_side(results(store, {name: [log(name, i) for i in range(6)] for name in MODELS}), store)
    assert [(one.name, one.why) for one in found] == [
        ("Test/2", "ties 1 does better than mixed"),
        ("Test/0", "mixed does better than ties 1"),
        ("Test/5", "no model does well"),
        ("Test/1", "all but the base do well"),
    ]
    first = found[0]
    assert (first.prompt, first.target, first.metric) == ("prompt 2", "target 2", "pass@1")
    assert [(one.model, one.text, one.value, one.verdict) for one in first.answers] == [
        ("base", "base wrote 2", 0.0, "timeout: 3 s"),
        ("gen", "gen wrote 2", 1.0, ""),
        ("mixed", "mixed wrote 2", 0.0, "timeout: 3 s"),
        ("ties 1", "ties 1 wrote 2", 1.0, ""),
    ]
    assert first.answers[0].record == "step-base"


def test_a_second_filter_does_not_shift_the_numbers(store: Store) -> None:
    """lm-eval logs a sample once for each filter, and scores are those of the first."""
    lines = {name: [log(name, i, kind=kind) for i in range(6) for kind in ("first", "second")] for name in MODELS}
    assert side_by_side(results(store, lines), store)[0].answers[0].text == "base wrote 2"


def test_long_texts_are_cut_and_say_by_how_much(store: Store) -> None:
    lines = {name: [{**log(name, i), "resps": [["x" * 5_000]]} for i in range(6)] for name in MODELS}
    text = side_by_side(results(store, lines), store)[0].answers[0].text
    assert text == "x" * LONGEST + " … (3,500 more characters)"


def test_tasks_without_texts_or_logs_show_none(store: Store) -> None:
    losses = {name: [{**log(name, i), "resps": [[[-1.5, False]]]} for i in range(6)] for name in MODELS}
    whole = results(store, losses)
    assert side_by_side(whole, store) == ()
    for file in store.root.rglob("samples_code.jsonl"):
        file.unlink()
    assert side_by_side(whole, store) == ()


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ({"status": "ok", "detail": ""}, ""),
        ({"status": "timeout", "detail": "3 s"}, "timeout: 3 s"),
        ({"base": "pass", "plus": "fail", "detail": "call 3 gives 4"}, "base pass, plus fail: call 3 gives 4"),
        ({"base": "pass", "plus": "pass", "detail": ""}, "base pass, plus pass"),
        ({"summary": "Add two numbers."}, ""),
    ],
)
def test_a_verdict_in_words(verdict: dict[str, object], said: str) -> None:
    """As list problems, HumanEval(+) and summaries leave theirs."""
    assert _verdict({"filtered_resps": [[verdict]]}) == said
