"""`mixmerge compare`: two recipes and two runs, through the command line, against the samples themselves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TOY
from scipy import stats

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_two_recipes_that_differ_in_one_training(toy_recipe: Path, mixmerge: Cli, tmp_path: Path) -> None:
    text = toy_recipe.read_text()
    mixed = "  mixed: {data: {gen: all, sum: all}, trainer: toy_train}"
    assert mixed in text
    other = tmp_path / "other.yaml"
    other.write_text(text.replace(mixed, mixed.replace("trainer: toy_train", "trainer: {toy_train: {step: 2.0}}")))
    for recipe in (toy_recipe, other):
        assert mixmerge("-p", TOY, "recipe", recipe).returncode == 0
    done = mixmerge("-p", TOY, "compare", toy_recipe, other, "--json")
    assert done.returncode == 0, done.stderr
    found = {(one["a"], one["task"]): one for one in json.loads(done.stdout)}
    assert found["base", "gen_test"]["why"] == "one and the same score"  # one record: it was not scored twice
    assert ("base", "") not in found

    samples = {}
    for name, recipe in (("a", toy_recipe), ("b", other)):
        rows = json.loads(mixmerge("-p", TOY, "report", recipe, "--json").stdout)
        row = next(row for row in rows if (row["model"], row["task"]) == ("mixed", "gen_test"))
        scores = json.loads((tmp_path / "runs/store/steps" / row["record"] / "out/scores.json").read_text())
        samples[name] = next(score["samples"] for score in scores if score["task"] == "gen_test")
    one = found["mixed", "gen_test"]
    apart = [(a, b) for a, b in zip(samples["a"], samples["b"], strict=True) if a != b]
    assert apart, "the second training moved nothing, so there is nothing to test"
    assert one["versus"]["difference"] == pytest.approx(sum(a - b for a, b in apart) / 30)
    exact = stats.binomtest(sum(a > b for a, b in apart), len(apart)).pvalue
    assert one["versus"]["exact_p"] == pytest.approx(exact)
    assert one["holm_p"] >= exact
    assert one["why"] == ""
    assert found["mixed", ""]["versus"]["metric"] == "relative change"

    told = mixmerge("-p", TOY, "compare", tmp_path / "runs/toy", tmp_path / "runs/other")
    assert "A: toy (seed 7); B: other (seed 7); positive: A is better" in told.stdout
    block = told.stdout[told.stdout.index("\nmixed\n") :]
    assert f"gen_test: {sum(samples['a']) / 30:.4g} and {sum(samples['b']) / 30:.4g}, " in block
    assert "n = 30, paired" in block
    assert "p after Holm's correction over" in told.stdout


@pytest.mark.parametrize(
    ("first", "what"),
    [("toy.yaml", "has no results yet"), (".", "is no finished run"), ("none.yaml", "none.yaml")],
)
def test_what_has_no_results_is_said(toy_recipe: Path, mixmerge: Cli, first: str, what: str) -> None:
    done = mixmerge("-p", TOY, "compare", first, toy_recipe)
    assert done.returncode == 1
    assert what in done.stderr
    assert "Traceback" not in done.stderr
