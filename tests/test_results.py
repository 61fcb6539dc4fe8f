"""Winners and statistics, against scipy and against numbers worked out by hand."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mixmerge import MixmergeError, Model, Results, Row
from mixmerge.results import (
    EXPERTS,
    NORMAL_FROM_SAMPLES,
    best_by_method,
    best_expert,
    choose,
    compare,
    compare_average,
    experts_of,
    find_row,
    gain_kept,
    mcnemar,
    objective,
    share,
    sweep_series,
    sweeps,
    table,
)


def row(model: str, task: str, value: float, samples: Sequence[float] = (), **more: object) -> Row:
    kinds = {"base": "base", "gen": "expert", "sum": "expert", "mixed": "mixture", "always the same": "reference"}
    settings: dict = {"metric": "score", "stderr": None, "n": len(samples) or 10, "primary": True, **more}
    samples = tuple(map(float, samples))
    return Row(model=model, kind=kinds.get(model, "merge"), task=task, value=value, samples=samples, **settings)


def sampled(model: str, task: str, samples: Sequence[float], **more: object) -> Row:
    return row(model, task, float(np.mean(samples)), samples, **more)


def merge(name: str, method: str, weights: tuple[float, ...] = (0.5, 0.5), group: str = "merged", **settings) -> Model:
    settings = {"weights": list(weights), "method": {method: {}}, **settings}
    return Model(name, "merge", name, group, method, weights, ("gen", "sum"), settings)


BASE, GEN, SUM, MIXED = (
    Model("base", "base", "b"),
    Model("gen", "expert", "g"),
    Model("sum", "expert", "s"),
    Model("mixed", "mixture", "m"),
)


def pair(a: Sequence[float], b: Sequence[float], seed: int = 0, **more: object) -> Results:
    return Results("t", [sampled("a", "task", a, **more), sampled("b", "task", b, **more)], [], seed=seed)


# ---- relative change and winners ---------------------------------------------------------------------------------


def test_objective_is_the_mean_relative_change_against_each_tasks_best_expert() -> None:
    rows = [
        row("gen", "code", 0.8), row("sum", "code", 0.1), row("m", "code", 0.6),
        row("gen", "loss", 4.0, higher_is_better=False), row("sum", "loss", 2.0, higher_is_better=False),
        row("m", "loss", 2.5, higher_is_better=False),
    ]  # fmt: skip
    # code: (0.6 - 0.8) / 0.8 = -25 %; loss: (2.5 - 2.0) / 2.0 = +25 %, worse because lower is better, so -25 %
    assert objective(rows, "m", ["code"]) == pytest.approx(-25.0)
    assert objective(rows, "m", ["code", "loss"]) == pytest.approx(-25.0)
    assert objective(rows, "gen", ["code", "loss"]) == pytest.approx((0.0 - 100.0) / 2)


def test_objective_against_zero_is_the_absolute_change_and_without_experts_the_base_counts() -> None:
    zero = [row("gen", "code", 0.0), row("m", "code", 0.25)]
    assert objective(zero, "m", ["code"]) == pytest.approx(25.0)
    smoothed = [row("gen", "code", 1e-77), row("m", "code", 0.25)]  # sacrebleu's BLEU of texts that share no word
    assert objective(smoothed, "m", ["code"]) == pytest.approx(25.0)
    scored = [sampled("gen", "code", [1e-77] * 4), sampled("mixed", "code", [0.2, 0.3, 0.2, 0.3])]
    found = compare_average(Results("t", scored, [GEN, MIXED]), "mixed", "gen", ["code"])
    assert found is not None
    assert found.difference == pytest.approx(25.0)
    no_experts = [row("base", "code", 0.5), row("m", "code", 0.6)]
    assert objective(no_experts, "m", ["code"]) == pytest.approx(20.0)


def test_objective_uses_the_primary_metric_alone() -> None:
    rows = [
        row("gen", "code", 1.0, metric="chrf", primary=False), row("gen", "code", 0.5, metric="bleu"),
        row("m", "code", 9.9, metric="chrf", primary=False), row("m", "code", 0.6, metric="bleu"),
    ]  # fmt: skip
    assert objective(rows, "m", ["code"]) == pytest.approx(20.0)


def test_objective_of_a_model_without_a_score_is_an_error_that_names_both() -> None:
    with pytest.raises(MixmergeError, match="'m' has no score on task 'code'"):
        objective([row("gen", "code", 1.0)], "m", ["code"])
    with pytest.raises(MixmergeError, match="no task"):
        objective([], "m", [])


def test_models_that_merges_name_are_experts_too() -> None:
    given = Model("given", "model", "x")
    other = Model("other", "model", "y")
    assert experts_of([given, other, replace(merge("m", "ties"), experts=("given",))]) == ("given",)


MODELS = [
    BASE,
    GEN,
    SUM,
    merge("l1", "linear"),
    merge("l2", "linear"),
    merge("t1", "ties"),
    merge("o", "ties", group="o"),
]


def test_winners_are_chosen_on_choose_on_alone_and_the_first_of_equals_wins() -> None:
    dev = {"gen": 0.8, "l1": 0.5, "l2": 0.6, "t1": 0.6, "o": 0.1}
    test = {"gen": 0.8, "l1": 0.9, "l2": 0.1, "t1": 0.2, "o": 0.1}
    rows = [row(name, "dev", value) for name, value in dev.items()]
    rows += [row(name, "test", value) for name, value in test.items()]
    assert choose(rows, MODELS, ["dev"]) == {"merged": "l2", "o": "o"}
    assert choose(rows, MODELS, ["test"]) == {"merged": "l1", "o": "o"}
    best = {("merged", "linear"): "l2", ("merged", "ties"): "t1", ("o", "ties"): "o"}
    assert best_by_method(rows, MODELS, ["dev"]) == best


def test_a_merge_without_a_score_or_with_nan_cannot_win() -> None:
    rows = [row("gen", "dev", 0.8), row("l1", "dev", math.nan), row("t1", "dev", 0.1)]
    assert choose(rows, MODELS, ["dev"]) == {"merged": "t1"}
    assert choose(rows, MODELS, []) == {}


def test_gain_kept_is_the_share_of_the_experts_gain_whichever_way_is_better() -> None:
    rows = [row("base", "t", 0.2), row("gen", "t", 0.7), row("sum", "t", 0.1), row("m", "t", 0.65)]
    results = Results("r", rows, [BASE, GEN, SUM])
    assert gain_kept(results, "m", "t") == pytest.approx(0.45 / 0.5)
    loss = [replace(one, value=-one.value, higher_is_better=False) for one in rows]
    assert gain_kept(replace(results, rows=loss), "m", "t") == pytest.approx(0.9)
    assert best_expert(replace(results, rows=loss), "t") == "gen"


def test_no_gain_to_keep_when_the_expert_does_not_beat_the_base_or_a_score_is_missing() -> None:
    rows = [row("base", "t", 0.7), row("gen", "t", 0.7), row("m", "t", 0.9)]
    assert gain_kept(Results("r", rows, [BASE, GEN]), "m", "t") is None
    assert gain_kept(Results("r", rows[1:], [BASE, GEN]), "m", "t") is None
    assert gain_kept(Results("r", rows[:2], [BASE, GEN]), "m", "t") is None


# ---- paired statistics -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [80, NORMAL_FROM_SAMPLES])
def test_interval_agrees_with_scipys_percentile_bootstrap(n: int) -> None:
    """Of Student's tails instead of the normal's, and widened by n - 1 in the place of n."""
    generator = np.random.default_rng(1)
    a, b = generator.beta(2, 5, n) + 0.05, generator.beta(2, 5, n)
    mine = compare(pair(a, b), "a", "b", "task")
    draws = 10_000 if n < 1000 else 1_000  # scipy draws n x draws samples where ours takes the normal limit
    theirs = stats.bootstrap(
        (a - b,),
        np.mean,
        n_resamples=draws,
        confidence_level=1 - 2 * stats.norm.cdf(stats.t.ppf(0.025, n - 1)),
        method="percentile",
        rng=np.random.default_rng(2),
        batch=100,
    ).confidence_interval
    width, middle = theirs.high - theirs.low, np.mean(a - b)
    expected = tuple(middle + math.sqrt(n / (n - 1)) * (end - middle) for end in (theirs.low, theirs.high))
    assert mine is not None
    assert mine.difference == pytest.approx(float(np.mean(a - b)))
    assert (mine.low, mine.high) == pytest.approx(expected, abs=0.05 * width)
    assert mine.n == n


def test_pass_or_fail_draws_have_the_distribution_of_plain_resampling() -> None:
    generator = np.random.default_rng(3)
    a, b = (generator.random(164) < 0.6).astype(float), (generator.random(164) < 0.5).astype(float)
    mine = compare(pair(a, b), "a", "b", "task", resamples=20_000)
    plain = (a - b)[generator.integers(0, 164, (20_000, 164))].mean(1)
    assert mine is not None
    tail = stats.norm.cdf(stats.t.ppf(0.025, 163))
    middle = (a - b).mean()
    expected = middle + math.sqrt(164 / 163) * (np.quantile(plain, [tail, 1 - tail]) - middle)
    assert (mine.low, mine.high) == pytest.approx(tuple(expected), abs=1.01 / 164)
    assert mine.exact_p == mcnemar(a, b)


def test_the_same_numbers_every_time_and_the_sign_turns_when_the_models_swap() -> None:
    generator = np.random.default_rng(4)
    for n in (50, NORMAL_FROM_SAMPLES + 1):
        results = pair(generator.random(n), generator.random(n))
        one, again, swapped = (compare(results, *names, "task") for names in (("a", "b"), ("a", "b"), ("b", "a")))
        assert one is not None
        assert swapped is not None
        assert one == again
        assert (one.difference, one.low, one.high, one.p) == pytest.approx(
            (-swapped.difference, -swapped.high, -swapped.low, swapped.p)
        )
        other = compare(replace(results, seed=1), "a", "b", "task")
        assert other is not None
        assert other.low != one.low


def test_positive_is_better_where_lower_is_better() -> None:
    low, high = [1.0, 1.1, 0.9, 1.2], [2.0, 2.1, 1.7, 2.2]
    found = compare(pair(low, high, higher_is_better=False), "a", "b", "task")
    assert found is not None
    assert found.difference == pytest.approx(0.95)
    assert found.low > 0
    assert found.decided
    assert found.p == pytest.approx(2 * stats.t.cdf(stats.norm.ppf(1 / 10_001), 3))  # no draw on the far side


def test_models_that_cannot_be_paired_are_not_compared() -> None:
    assert compare(pair([1, 2, 3], [1, 2]), "a", "b", "task") is None
    assert compare(pair([1], [2]), "a", "b", "task") is None
    no_samples = Results("t", [row("a", "task", 1.0), row("b", "task", 2.0)], [])
    assert compare(no_samples, "a", "b", "task") is None
    assert compare(pair([1, 2], [1, 2]), "a", "nobody", "task") is None


def test_equal_models_differ_by_nothing() -> None:
    found = compare(pair([0, 1, 1], [0, 1, 1]), "a", "b", "task")
    assert found is not None
    assert (found.difference, found.low, found.high, found.p, found.exact_p) == (0, 0, 0, 1, 1)
    assert not found.decided


def test_under_the_null_the_interval_covers_zero_and_p_is_uniform() -> None:
    """600 experiments of 80 paired samples without a difference; seeded, so this cannot flicker.

    One standard error of a 95 % coverage in 600 experiments is 0.9 points.
    """
    generator = np.random.default_rng(2025)
    found = []
    for seed in range(600):
        common = generator.normal(size=80)
        a, b = common + generator.normal(size=80), common + generator.normal(size=80)
        found.append(compare(pair(a, b, seed), "a", "b", "task", resamples=1_000))
    covered = np.mean([one is not None and one.low <= 0 <= one.high for one in found])
    p = np.array([one.p for one in found if one])
    assert 0.92 < covered < 0.975
    for level in (0.1, 0.25, 0.5, 0.75):
        assert abs((p <= level).mean() - level) < 0.06  # three standard errors at a half
    assert abs((p <= 0.05).mean() - (1 - covered)) < 0.01  # p and the interval decide alike


@pytest.mark.parametrize(("n", "least"), [(6, 0.92), (12, 0.93)])
def test_few_samples_do_not_look_like_many(n: int, least: float) -> None:
    """A plain percentile interval covers 87 % at n = 6, and 91 % at 12 (in these experiments)."""
    generator = np.random.default_rng(6)
    found = [compare(pair(generator.normal(size=n), [0.0] * n), "a", "b", "task", resamples=1_000) for _ in range(800)]
    assert least < np.mean([one is not None and one.low <= 0 <= one.high for one in found]) < 0.975
    assert (
        np.mean([one is not None and (one.p < 0.05) != one.decided for one in found]) < 0.01
    )  # but for draws on the edge


def test_six_differences_are_decided_as_by_a_t_test() -> None:
    a = [2.2, 0.0, 1.4, 3.1, 2.8, 0.9]
    found = compare(pair(a, [0.0] * 6), "a", "b", "task")
    assert found is not None
    assert found.p == pytest.approx(stats.ttest_1samp(a, 0).pvalue, rel=0.5)


def test_mcnemar_is_the_exact_binomial_test_on_discordant_pairs() -> None:
    for only_a, only_b in [(0, 0), (1, 0), (5, 5), (9, 2), (40, 17), (1100, 1000)]:
        a = [1.0] * only_a + [0.0] * only_b + [1.0, 0.0]
        b = [0.0] * only_a + [1.0] * only_b + [1.0, 0.0]
        n = only_a + only_b
        expected = stats.binomtest(only_a, n, 0.5).pvalue if n else 1.0
        assert mcnemar(a, b) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        mcnemar([1.0], [1.0, 0.0])


def average_results(n: tuple[int, int] = (60, 90)) -> Results:
    generator = np.random.default_rng(5)
    means = {"base": (0.1, 5.0), "gen": (0.8, 4.0), "sum": (0.2, 2.0), "mixed": (0.7, 2.2), "m": (0.75, 2.1)}
    rows = []
    for name, (passed, loss) in means.items():
        rows.append(sampled(name, "code", (generator.random(n[0]) < passed).astype(float)))
        rows.append(sampled(name, "text", generator.normal(loss, 0.5, n[1]), higher_is_better=False))
    return Results(
        "r", rows, [BASE, GEN, SUM, MIXED, merge("m", "ties")], choose_on=("code",), report_on=("code", "text")
    )


def test_average_comparison_agrees_with_a_stratified_bootstrap_by_hand() -> None:
    results = average_results()
    found = compare_average(results, "m", "mixed", results.report_on)
    rows = {(one.model, one.task): np.array(one.samples) for one in results.rows}
    experts = {"code": rows["gen", "code"].mean(), "text": rows["sum", "text"].mean()}
    code = 100 * (rows["m", "code"] - rows["mixed", "code"]) / experts["code"]
    text = 100 * (rows["mixed", "text"] - rows["m", "text"]) / experts["text"]
    generator = np.random.default_rng(6)
    draws = (
        code[generator.integers(0, 60, (10_000, 60))].mean(1) + text[generator.integers(0, 90, (10_000, 90))].mean(1)
    ) / 2
    assert found is not None
    assert found.difference == pytest.approx((code.mean() + text.mean()) / 2)
    assert found.difference == pytest.approx(
        objective(results.rows, "m", results.report_on) - objective(results.rows, "mixed", results.report_on)
    )
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.04 * (high - low))
    assert found.n == 150


def test_each_expert_on_its_own_task_can_be_compared_as_one() -> None:
    results = average_results()
    found = compare_average(results, "m", EXPERTS, results.report_on)
    assert found is not None
    assert found.difference == pytest.approx(objective(results.rows, "m", results.report_on))
    one, other = compare(results, "m", EXPERTS, "text"), compare(results, "m", "sum", "text")
    assert one is not None
    assert other is not None
    assert one.difference == other.difference


def test_average_needs_every_task() -> None:
    assert compare_average(average_results(), "m", "mixed", ["code", "nowhere"]) is None
    assert compare_average(average_results(), "m", "mixed", []) is None


# ---- table and sweep ---------------------------------------------------------------------------------------------


def test_table_has_the_papers_layout() -> None:
    results = average_results()
    extra = [
        row("m", "text", 7.0, metric="bleu", primary=False),
        row("always the same", "text", 3.0, higher_is_better=False),
    ]
    results = replace(results, rows=[*results.rows, *extra], winners={"merged": "m"})
    found = table(results, results.report_on)
    lines = {line.model: line for line in found.lines}
    assert list(lines) == ["base", EXPERTS, "gen", "sum", "mixed", "m", "always the same"]
    columns = [(one.task, one.metric, one.primary, one.against) for one in found.columns]
    assert columns == [("code", "score", True, "gen"), ("text", "score", True, "sum"), ("text", "bleu", False, "")]
    experts = lines[EXPERTS]
    assert experts.kind == "experts"
    assert experts.average == 0.0
    assert experts.cells[0] == lines["gen"].cells[0]
    assert experts.cells[1] == lines["sum"].cells[1]
    assert lines["m"].winner
    assert not lines["mixed"].winner
    assert lines["m"].average == pytest.approx(objective(results.rows, "m", results.report_on))
    assert lines["m"].versus == compare_average(results, "m", EXPERTS, results.report_on)
    assert lines["always the same"].cells[0] is None
    assert lines["always the same"].average is None


def test_table_marks_the_best_and_what_is_within_noise_of_it() -> None:
    a = [1.0] * 40 + [0.0] * 40
    near = [1.0] * 39 + [0.0] * 41
    far = [1.0] * 10 + [0.0] * 70
    rows = [sampled("gen", "t", a), sampled("mixed", "t", near), sampled("base", "t", far)]
    rows += [sampled("always the same", "t", [1.0] * 80)]  # a reference competes with nobody
    found = table(Results("r", rows, [BASE, GEN, MIXED]), ["t"])
    cells = {line.model: line.cells[0] for line in found.lines}
    marks = {name: (cell.best, cell.near_best) for name, cell in cells.items() if cell}
    assert marks == {
        "base": (False, False), EXPERTS: (True, True), "gen": (True, True), "mixed": (False, True),
        "always the same": (False, False),
    }  # fmt: skip
    averages = {line.model: (line.best, line.near_best) for line in found.lines}
    assert averages["gen"] == (True, True)
    assert averages["mixed"] == (False, True)
    assert averages["base"] == (False, False)


def test_table_shows_the_best_merge_of_each_method_and_no_other() -> None:
    names = ["l1", "l2", "t1"]
    rows = [row("gen", "dev", 1.0), row("gen", "test", 1.0)]
    rows += [
        row(name, task, value) for name, value in zip(names, (0.1, 0.2, 0.3), strict=True) for task in ("dev", "test")
    ]
    results = Results("r", rows, [GEN, *(one for one in MODELS if one.name in names)], choose_on=("dev",))
    assert [line.model for line in table(results, ["test"]).lines] == [EXPERTS, "gen", "l2", "t1"]


def test_without_anything_to_compare_with_there_are_scores_and_no_changes() -> None:
    found = table(Results("r", [row("mixed", "t", 0.5)], [MIXED]), ["t"])
    (line,) = found.lines
    assert line.cells[0] is not None
    assert (line.cells[0].value, line.cells[0].change, line.average, line.versus) == (0.5, None, None, None)


def test_table_survives_nan_and_missing_scores() -> None:
    rows = [row("base", "t", math.nan), row("gen", "t", 0.5), row("gen", "u", 0.5)]
    found = table(Results("r", rows, [BASE, GEN, MIXED]), ["t", "u", "never scored"])
    lines = {line.model: line for line in found.lines}
    assert "mixed" not in lines
    assert lines["gen"].average is None  # one task was never scored, so there is no mean over the tasks
    assert lines["gen"].cells[0] is not None
    assert lines["gen"].cells[0].best


def test_a_share_of_the_weights() -> None:
    assert share((1.0, 1.0)) == share((0.5, 0.5)) == 0.5
    assert share((0.3, 0.7)) == pytest.approx(0.3)
    assert share((1.0, 2.0, 1.0)) == 0.25
    assert share((0.4,)) == 0.4
    assert share((0.7, -0.1)) == 0.7
    assert share((0.0, 0.0)) == 0.0


def test_sweep_series_follow_the_first_weight_and_split_by_other_settings() -> None:
    models = [
        merge("c", "ties", (0.9, 0.1), seed=1),
        merge("a", "ties", (0.1, 0.9), seed=1),
        merge("b", "ties", (0.5, 0.5), seed=2),
        merge("l", "linear", (0.5, 0.5), seed=1),
    ]
    rows = [row(name, "t", value) for name, value in (("a", 0.3), ("b", 0.4), ("c", 0.5), ("l", 0.6))]
    results = Results("r", rows, models)
    series = sweep_series(results, "merged", "ties", "t")
    assert {one.label: [(point.x, point.value) for point in one.points] for one in series} == {
        "ties(seed=1)": [(0.1, 0.3), (0.9, 0.5)],
        "ties(seed=2)": [(0.5, 0.4)],
    }
    assert [one.label for one in sweep_series(results, "merged", "linear", "t")] == ["linear"]
    assert sweep_series(results, "merged", "ties", "elsewhere") == ()
    assert sweeps(results) == (("merged", "ties"), ("merged", "linear"))


def test_series_are_told_apart_by_the_parameters_of_a_swept_method() -> None:
    models = [
        replace(merge("a", "ties"), settings={"method": {"ties": {"density": 0.2, "normalize": True}}}),
        replace(merge("b", "ties"), settings={"method": {"ties": {"density": 0.5, "normalize": True}}}),
    ]
    results = Results("r", [row("a", "t", 0.3), row("b", "t", 0.4)], models)
    assert [one.label for one in sweep_series(results, "merged", "ties", "t")] == [
        "ties(density=0.2)",
        "ties(density=0.5)",
    ]


def test_find_row_takes_the_primary_metric() -> None:
    rows = [row("m", "t", 1.0, metric="other", primary=False), row("m", "t", 2.0, metric="main")]
    assert find_row(rows, "m", "t") == rows[1]
    assert find_row(rows, "m", "t", "other") == rows[0]
    assert find_row(rows, "m", "elsewhere") is None


# ---- cost --------------------------------------------------------------------------------------------------------


def test_importing_it_loads_no_numpy() -> None:
    code = "import sys; import mixmerge.results; sys.exit('numpy' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_test_set_of_25834_summaries_takes_no_time() -> None:
    generator = np.random.default_rng(7)
    results = pair(generator.random(25_834), generator.random(25_834))
    started = time.process_time()
    assert compare(results, "a", "b", "task") is not None
    assert time.process_time() - started < 1.0  # 258 million draws would take several seconds
