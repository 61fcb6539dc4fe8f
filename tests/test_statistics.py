"""Holm, Pareto, methods, optimism and intervals without samples, against scipy, brute force and numbers by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mixmerge import Model, Record, Results, Row, Step
from mixmerge.results import (
    NORMAL_FROM_SAMPLES,
    across,
    best_mixture,
    compare,
    compare_average,
    compare_rows,
    compare_unpaired,
    holm,
    methods,
    optimism,
    pareto,
    task_changes,
)
from mixmerge.results.across import SAME

KINDS = {"base": "base", "gen": "expert", "sum": "expert", "mixed": "mixture"}


def sampled(model: str, task: str, samples: np.ndarray, **more: object) -> Row:
    error = float(samples.std(ddof=1) / math.sqrt(len(samples)))
    given: dict = {"metric": "score", "stderr": error, "n": len(samples), "primary": True, **more}
    values = tuple(map(float, samples))
    return Row(
        model=model, kind=KINDS.get(model, "merge"), task=task, value=float(samples.mean()), samples=values, **given
    )


def plain(model: str, task: str, value: float, n: int, stderr: float | None = None, **more: object) -> Row:
    given: dict = {"metric": "score", "primary": True, **more}
    return Row(model=model, kind=KINDS.get(model, "merge"), task=task, value=value, stderr=stderr, n=n, **given)


def merge(name: str, method: str) -> Model:
    return Model(name, "merge", name, "merged", method, (0.5, 0.5), ("gen", "sum"))


TRAINED = [Model(name, kind, name) for name, kind in KINDS.items()]


def experiment(
    rates: dict[str, float], *, n: int = 120, seed: int = 3, tasks: tuple[str, ...] = ("dev", "test")
) -> Results:
    """Pass or fail at the given rates; merges are called METHOD-NUMBER."""
    generator = np.random.default_rng(seed)
    all_rates = {"base": 0.1, "gen": 0.9, "sum": 0.85, **rates}
    rows = [
        sampled(name, task, (generator.random(n) < rate).astype(float))
        for name, rate in all_rates.items()
        for task in tasks
    ]
    merges = [merge(name, name.split("-")[0]) for name in rates if "-" in name]
    models = [model for model in TRAINED if model.name in all_rates]
    return Results("r", rows, [*models, *merges], choose_on=("dev",), report_on=("test",), seed=seed)


# ---- Holm -----------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # 0.005 x 4, 0.01 x 3, 0.03 x 2, then 0.04 x 1, which may not be less than the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.6, 0.7]) == (1.0, 1.0)
    assert holm([]) == ()
    assert holm([0.2]) == (0.2,)


def test_holm_holds_its_level_where_nothing_is_true() -> None:
    generator = np.random.default_rng(0)
    false = sum(min(holm(list(generator.random(5)))) < 0.05 for _ in range(4_000)) / 4_000
    assert false == pytest.approx(0.05, abs=0.011)  # 3 standard errors


# ---- methods --------------------------------------------------------------------------------------------------------


def test_each_method_is_told_with_what_it_was_given() -> None:
    results = experiment({"mixed": 0.8, "ties-1": 0.5, "ties-2": 0.6, "ties-3": 0.4, "linear-1": 0.75, "dare-1": 0.2})
    found = {one.method: one for one in methods(results)}
    assert {method: one.configurations for method, one in found.items()} == {"ties": 3, "linear": 1, "dare": 1}
    assert found["ties"].best == "ties-2"
    assert found["ties"].against == "mixed"
    p_values = [compare_average(results, one.best, "mixed", ("test",)).p for one in found.values()]
    assert [one.holm_p for one in found.values()] == pytest.approx(list(holm(p_values)))
    exact = [compare(results, one.best, "mixed", "test").exact_p for one in found.values()]
    assert [one.by_task[0][1] for one in found.values()] == pytest.approx(list(holm(exact)))


def test_without_a_mixture_methods_meet_the_experts() -> None:
    results = experiment({"ties-1": 0.5, "linear-1": 0.75})
    assert best_mixture(results) is None
    assert {one.against for one in methods(results)} == {"experts (each on its own task)"}
    assert all(one.versus and one.versus.high < 0 for one in methods(results))


def test_the_best_mixture_is_chosen_on_choose_on() -> None:
    results = experiment({"mixed": 0.3, "ties-1": 0.5})
    better = np.ones(120)
    rows = [*results.rows, sampled("more", "dev", better), sampled("more", "test", better * 0)]
    two = replace(results, rows=rows, models=[*results.models, Model("more", "mixture", "more")])
    assert best_mixture(two) == "more"


# ---- Pareto ---------------------------------------------------------------------------------------------------------


def test_the_front_by_hand_with_a_task_where_lower_is_better() -> None:
    values = {"a-1": (0.9, 3.0), "b-1": (0.5, 1.0), "c-1": (0.8, 3.0), "d-1": (0.7, 2.0), "e-1": (0.5, 1.0)}
    rows = [
        row
        for name, (code, loss) in values.items()
        for row in (plain(name, "code", code, 10), plain(name, "loss", loss, 10, higher_is_better=False))
    ]
    models = [merge(name, "m") for name in values]
    results = Results("r", rows, models)
    assert pareto(results, ("code", "loss")) == ("a-1", "b-1", "d-1", "e-1")  # c: a is better on code, equal on loss
    assert pareto(results, ("code",)) == ("a-1",)
    assert pareto(results, ()) == ()
    missing = replace(results, rows=[row for row in rows if (row.model, row.task) != ("a-1", "loss")])
    assert pareto(missing, ("code", "loss")) == ("b-1", "c-1", "d-1", "e-1")


def test_changes_are_against_each_tasks_best_expert() -> None:
    rows = [plain("gen", "code", 0.8, 10), plain("sum", "code", 0.4, 10), plain("mixed", "code", 0.6, 10)]
    results = Results("r", rows, [*TRAINED[1:]])
    assert task_changes(results, ("code",)) == {"gen": (0.0,), "sum": (-50.0,), "mixed": (pytest.approx(-25.0),)}


# ---- optimism -------------------------------------------------------------------------------------------------------


def test_expected_optimism_agrees_with_a_bootstrap_by_hand() -> None:
    rates = {f"ties-{i}": 0.6 for i in range(8)}
    results = experiment(rates, n=60)
    found = optimism(results)[0]
    assert found.candidates == 8
    reference = next(row.value for row in results.rows if (row.model, row.task) == ("gen", "dev"))
    scores = np.array([row.samples for row in results.rows if row.task == "dev" and row.model in rates])
    generator, flattery = np.random.default_rng(1), []
    for _ in range(4_000):
        drawn = scores[:, generator.integers(0, 60, 60)].mean(1)
        flattery.append(drawn.max() - scores[drawn.argmax()].mean())
    assert found.expected == pytest.approx(100 * np.mean(flattery) / reference, rel=0.05)


def test_one_candidate_is_not_flattered_and_more_are_flattered_more() -> None:
    one = optimism(experiment({"ties-0": 0.6}))[0].expected
    few = optimism(experiment({f"ties-{i}": 0.6 for i in range(3)}))[0].expected
    many = optimism(experiment({f"ties-{i}": 0.6 for i in range(20)}))[0].expected
    assert abs(one) < 0.3
    assert one < few < many


def test_optimism_is_unbiased_where_all_candidates_are_equal() -> None:
    """The truth is known: the winner's score on choose_on, minus the rate that all of them have."""
    truth, expected = [], []
    for seed in range(60):
        results = experiment({f"ties-{i}": 0.6 for i in range(10)}, n=80, seed=seed)
        one = optimism(results, resamples=300)[0]
        reference = next(row.value for row in results.rows if (row.model, row.task) == ("gen", "dev"))
        won = next(row.value for row in results.rows if (row.model, row.task) == (one.winner, "dev"))
        truth.append(100 * (won - 0.6) / reference)
        expected.append(one.expected)
    # the bootstrap knows the candidates only by their samples, which already differ: it falls short of the truth
    assert 0.4 * np.mean(truth) < np.mean(expected) < 1.1 * np.mean(truth)


def test_large_tests_take_the_normal_limit() -> None:
    n = NORMAL_FROM_SAMPLES
    small, large = (
        optimism(experiment({f"ties-{i}": 0.6 for i in range(6)}, n=size))[0].expected for size in (n // 20, n)
    )
    assert large == pytest.approx(small / math.sqrt(20), rel=0.7)


def test_a_winner_without_scores_to_choose_by_has_no_optimism() -> None:
    results = experiment({"mixed": 0.7, "ties-0": 0.6})
    named = replace(results, winners={"merged": "ties-0"})
    assert optimism(replace(named, choose_on=())) == ()
    assert optimism(replace(named, rows=[row for row in results.rows if row.task != "dev"])) == ()
    assert methods(replace(named, choose_on=())) == ()


def test_the_mixture_shows_what_the_tasks_alone_make_of_it() -> None:
    results = experiment({"mixed": 0.7, "ties-0": 0.6, "ties-1": 0.5})
    found = optimism(results)[0]
    assert found.winner == "ties-0"
    assert found.mixture is not None
    values = {(row.model, row.task): row.value for row in results.rows}
    for part, task in zip(found.mixture[1:], ("dev", "test"), strict=True):
        best = max(values["gen", task], values["sum", task])
        assert part == pytest.approx(100 * (values["mixed", task] / best - 1))
    assert optimism(experiment({"mixed": 0.7})) == ()


# ---- without samples ------------------------------------------------------------------------------------------------


def test_unpaired_interval_by_hand() -> None:
    """Two tasks of 164 samples add up as one, a third in squares; a fourth has no standard error."""
    tasks = {"he": (0.80, 0.75, 164), "he+": (0.70, 0.68, 164), "mbpp": (0.60, 0.65, 378), "bleu": (20.0, 22.0, 900)}
    rows = []
    for task, (a, b, n) in tasks.items():
        for name, value in (("mixed", a), ("ties-1", b), ("gen", 0.5 if task != "bleu" else 25.0)):
            error = math.sqrt(value * (1 - value) / n) if task != "bleu" else None
            rows.append(plain(name, task, value, n, error))
    results = Results("r", rows, [*TRAINED[1:], merge("ties-1", "ties")])
    found = compare_unpaired(results, "mixed", "ties-1", tuple(tasks))
    assert found is not None

    def noise(a: float, b: float, n: int) -> float:
        return math.sqrt((a * (1 - a) + b * (1 - b)) / n) * 100 / 0.5 / 4

    error = math.hypot(noise(0.80, 0.75, 164) + noise(0.70, 0.68, 164), noise(0.60, 0.65, 378))
    difference = (100 * (0.05 + 0.02 - 0.05) / 0.5 - 100 * 2 / 25) / 4
    assert found.difference == pytest.approx(difference)
    assert found.high - found.difference == pytest.approx(stats.norm.ppf(0.975) * error)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(difference) / error))
    assert (found.paired, found.unknown) == (False, ("bleu",))
    assert compare_unpaired(results, "mixed", "ties-1", ("bleu",)) is None
    assert compare_unpaired(results, "mixed", "nobody", tuple(tasks)) is None


def test_two_scores_of_different_experiments() -> None:
    a, b = (
        plain("a", "loss", 1.0, 50, 0.3, higher_is_better=False),
        plain("b", "loss", 2.0, 70, 0.4, higher_is_better=False),
    )
    found = compare_rows(a, b)
    assert found is not None
    assert (found.difference, found.n) == (1.0, 50)
    assert found.low == pytest.approx(1.0 - stats.norm.ppf(0.975) * 0.5)
    assert compare_rows(a, replace(b, stderr=None)) is None


# ---- across two experiments -----------------------------------------------------------------------------------------


def with_records(results: Results, pin: str, prefix: str) -> Results:
    rows = [replace(row, record=f"{prefix}-{row.model}-{row.task}") for row in results.rows]
    records = [
        Record(Step(row.record, "evaluate", "score", pins={row.task: pin}), 0.0, 1.0, "h", {}, {}) for row in rows
    ]
    return replace(results, rows=rows, records=records)


def test_models_of_one_name_are_paired_and_corrected_together() -> None:
    a = with_records(experiment({"mixed": 0.8, "ties-1": 0.7, "ties-2": 0.5}, seed=1), "v1", "a")
    b = with_records(experiment({"mixed": 0.4, "ties-1": 0.2, "ties-2": 0.6}, seed=2), "v1", "b")
    found = {(one.a, one.b): one for one in across(a, b)}
    assert found["ties-1", "ties-2"].why == ""  # the winners, which differ in name
    mixed = found["mixed", "mixed"]
    x, y = (np.array(next(r.samples for r in one.rows if (r.model, r.task) == ("mixed", "test"))) for one in (a, b))
    assert mixed.versus.difference == pytest.approx((x - y).mean())
    assert mixed.versus.exact_p == pytest.approx(stats.binomtest(int((x > y).sum()), int((x != y).sum()), 0.5).pvalue)
    everything = [one for one in found.values() if one.versus]
    assert [one.holm_p for one in everything] == pytest.approx(holm([one.versus.decisive_p for one in everything]))


def test_what_differs_in_content_or_number_is_not_paired_and_says_so() -> None:
    a = with_records(experiment({"mixed": 0.8}, seed=1), "v1", "a")
    for b, why in (
        (with_records(experiment({"mixed": 0.4}, seed=2), "v2", "b"), "the task's content differs"),
        (with_records(experiment({"mixed": 0.4}, seed=2, n=60), "v1", "b"), "120 samples and 60"),
        (replace(a, rows=[replace(row, samples=(), record="") for row in a.rows]), "no scores per sample"),
    ):
        one = next(one for one in across(a, b) if one.a == "mixed")
        assert one.why == why
        assert one.versus is not None
        assert not one.versus.paired


def test_one_score_of_one_record_is_not_compared_with_itself() -> None:
    a = with_records(experiment({"mixed": 0.8}), "v1", "a")
    assert {one.why for one in across(a, a)} == {SAME}
    other = replace(a, report_on=("elsewhere",), rows=[replace(row, task="elsewhere") for row in a.rows])
    assert across(a, other) == ()
