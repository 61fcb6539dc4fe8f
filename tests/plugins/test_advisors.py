"""What `mix_or_merge` answers on results with a known truth, and what it says when a piece is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from mixmerge import Advice, Measurement, Model, Results, Row
from mixmerge.plugins.advisors import mix_or_merge

TASKS = ("code", "text")
KINDS = {"base": "base", "gen": "expert", "sum": "expert", "mixed": "mixture"}


def experiment(merge: tuple[float, float], mixed: tuple[float, float], *, n: int = 200, merges: int = 4) -> Results:
    """Pass rates on (code, text) for the winning merge and the mixture; the experts reach 0.9, the base 0.1."""
    truth = {"base": (0.1, 0.1), "gen": (0.9, 0.1), "sum": (0.1, 0.9), "mixed": mixed}
    names = [f"ties {i}" for i in range(merges)]
    truth |= {name: (merge if i == 1 else (0.2, 0.2)) for i, name in enumerate(names)}
    generator = np.random.default_rng(11)
    rows = [
        score(name, f"{task}_{part}", (generator.random(n) < rate).astype(float))
        for name, rates in truth.items()
        for task, rate in zip(TASKS, rates, strict=True)
        for part in ("dev", "test")
    ]
    training = {"gen": 100.0, "sum": 120.0, "mixed": 200.0}
    models = [
        Model(name, KINDS[name], name, training={"tokens": training[name]} if name in training else {})
        for name in KINDS
    ]
    models += [Model(name, "merge", name, "merged", "ties", (0.5, 0.5), ("gen", "sum")) for name in names]
    return Results(
        "r", rows, models, choose_on=("code_dev", "text_dev"), report_on=("code_test", "text_test"),
        winners={"merged": "ties 1"} if merges else {},
    )  # fmt: skip


def score(model: str, task: str, samples: np.ndarray) -> Row:
    return Row(
        model, KINDS.get(model, "merge"), task, "pass@1", float(samples.mean()), None, len(samples), int(samples.sum()),
        primary=True, samples=tuple(samples),
    )  # fmt: skip


def advise(results: Results, **parameters: float) -> Advice:
    assert not mix_or_merge.problems(parameters)
    return mix_or_merge.function(results, **parameters)


def said(sentences: tuple[str, ...], *parts: str) -> str:
    """The one sentence that holds all `parts`."""
    found = [sentence for sentence in sentences if all(part in sentence for part in parts)]
    assert len(found) == 1, (parts, sentences)
    return found[0]


def test_a_merge_that_is_better_on_both_tasks_is_advised() -> None:
    advice = advise(experiment((0.85, 0.85), (0.6, 0.6)))
    assert advice.answer == "merge"
    assert advice.headline.startswith("merge: ties 1 beats the mixture mixed by ")
    assert "points of relative change (95 % interval " in advice.headline
    assert advice.evidence[0].startswith("ties 1 minus mixed, paired over 400 samples: ")
    assert "mean changes against each task's best expert over 2 tasks" in advice.evidence[0]
    assert said(advice.evidence, "code_test pass@1:")
    assert said(advice.evidence, "text_test pass@1:")
    assert said(advice.evidence, "of what the best expert gains over the base", "ties 1 keeps", "mixed keeps")
    assert said(advice.against, "ties 1 is the best of 4 merges on code_dev and text_dev", "the only mixture")
    assert said(advice.against, "training took 220 tokens for 2 experts, 200 for the mixture")
    assert said(advice.against, "not what another training seed would give")


def test_a_mixture_that_is_better_is_advised_and_the_task_it_loses_stands_against_it() -> None:
    advice = advise(experiment((0.85, 0.2), (0.6, 0.85)))
    assert advice.answer == "mix"
    assert advice.headline.startswith("mix: mixed beats the best merge ties 1 by ")
    assert said(advice.evidence, "text_test pass@1:")
    assert said(advice.against, "code_test pass@1:")
    assert said(advice.evidence, "more tries favour the merge")


def test_within_noise_it_stays_undecided_and_says_so() -> None:
    advice = advise(experiment((0.8, 0.8), (0.8, 0.8)))
    assert advice.answer == "undecided"
    assert "which includes zero" in advice.headline
    assert said(advice.evidence, "code_test pass@1:", "within noise")


def test_an_undecided_headline_says_which_task_is_decided() -> None:
    advice = advise(experiment((0.85, 0.55), (0.6, 0.85)))
    assert advice.answer == "undecided"
    assert advice.headline.endswith(
        "; task by task, ties 1 is ahead by more than noise on code_test and mixed is ahead by more than noise on "
        "text_test"
    )
    one = advise(experiment((0.84, 0.8), (0.7, 0.87), n=150))
    assert one.answer == "undecided"
    assert one.headline.endswith("ties 1 is ahead by more than noise on code_test and nobody on the other")


@pytest.mark.parametrize(
    ("own", "others", "word"),
    [((0.6, 0.4), [(1, 1), (0.4, 0.6)], "largest"), ((0.2, 0.8), [(0.5, 0.5), (0.4, 0.6)], "smallest"),
     ((0.5, 0.5), [(0.6, 0.4), (0.4, 0.6)], ""), ((0.6, 0.4), [(0.4, 0.6)], ""), ((1, 0), [(0.5, 0.5), (0, 1)], "")],
)  # fmt: skip
def test_a_winner_at_the_edge_of_its_sweep_is_told(
    own: tuple[float, float], others: list[tuple[float, float]], word: str
) -> None:
    results = experiment((0.8, 0.8), (0.8, 0.8), merges=len(others) + 1)
    weights = dict(zip(("ties 1", "ties 0", "ties 2"), (own, *others), strict=False))
    models = [replace(model, weights=weights.get(model.name, model.weights)) for model in results.models]
    advice = advise(replace(results, models=models))
    found = [text for text in (*advice.evidence, *advice.against) if "better weights may lie beyond" in text]
    assert len(found) == bool(word)
    if word:
        assert f"ties 1 has the {word}" in said(advice.against, "3 shares of gen that were tried with ties")


def test_the_headline_gives_the_numbers_of_the_comparison() -> None:
    """By hand: with the best experts' scores e, the difference is the mean over tasks of 100 (merge - mixture) / e."""
    results = experiment((0.85, 0.85), (0.6, 0.6))
    value = {(row.model, row.task): row.value for row in results.rows}
    changes = []
    for task in results.report_on:
        best = max(value["gen", task], value["sum", task])
        changes.append(100 * (value["ties 1", task] - value["mixed", task]) / best)
    assert f"by {np.mean(changes):.1f} points" in advise(results).headline


def test_a_lead_inside_the_margin_is_undecided() -> None:
    results = experiment((0.85, 0.85), (0.6, 0.6))
    advice = advise(results, margin=60.0)
    assert advice.answer == "undecided"
    assert "not clear of the margin of 60" in advice.headline


def test_a_wider_level_asks_for_more() -> None:
    results = experiment((0.80, 0.80), (0.75, 0.75), n=300)
    answers = {level: advise(results, level=level).answer for level in (0.5, 0.999999)}
    assert answers[0.999999] == "undecided"
    assert answers[0.5] == "merge"


def test_the_weights_are_told_and_change_nothing() -> None:
    results = experiment((0.85, 0.85), (0.6, 0.6))
    plain = advise(results)
    for correlation in (-0.9, 0.9):
        measured = [
            Measurement("correlation", "pearson", f"layer {i}", ("gen", "sum"), correlation + i / 100)
            for i in (-1, 0, 1)
        ]
        measured += [Measurement("correlation", "pearson", "layer 0", ("gen", "gen"), 1.0)]
        measured += [Measurement("correlation", "pearson", "embeddings", ("gen", "sum"), 0.3)]
        advice = advise(replace(results, measurements=measured))
        sentence = said(advice.evidence, "weights, which do not enter the answer")
        assert sentence.endswith(f"correlation of the changes, mean of 3 layers: gen and sum {correlation:.3g}")
        assert (advice.answer, advice.headline, advice.against) == (plain.answer, plain.headline, plain.against)


@pytest.mark.parametrize(
    ("correlation", "merge", "mixed", "said_to", "verdict"),
    [
        (0.4, 0.60, 0.85, "mix", "that was right"),
        (0.4, 0.85, 0.60, "mix", "that was wrong"),
        (0.02, 0.85, 0.60, "merge", "that was right"),
        (0.02, 0.60, 0.85, "merge", "that was wrong"),
        (0.02, 0.75, 0.75, "merge", "whether that is right, these scores do not say"),
    ],
)
def test_what_the_weights_said_beforehand_comes_second_and_is_judged(
    correlation: float, merge: float, mixed: float, said_to: str, verdict: str
) -> None:
    measured = [Measurement("correlation", "pearson", f"layer {i}", ("sum", "gen"), correlation) for i in range(2)]
    measured += [Measurement("correlation", "pearson", "layer 0", ("gen", "mixed"), 0.9)]  # not between experts
    results = replace(experiment((merge, merge), (mixed, mixed)), measurements=measured)
    text = advise(results).evidence[1]
    assert text.startswith(f"beforehand the weights said {said_to}, as the paper reads them")
    assert f"correlate at {correlation:.2g} (Pearson, mean of the layers)" in text
    assert text.endswith(verdict)
    other = advise(results, correlated=0.01 if said_to == "merge" else 0.5).evidence[1]
    assert f"the weights said {'mix' if said_to == 'merge' else 'merge'}," in other


def test_other_seeds_give_the_correlation_something_to_be_compared_with() -> None:
    measured = [
        Measurement("correlation", "pearson", "layer 0", ("gen", "sum"), 0.02),
        Measurement("null", "pearson", "layer 0", ("gen", "gen again"), 0.6),
        Measurement("null", "pearson", "layer 1", ("gen", "gen again"), 0.4),
    ]
    text = advise(replace(experiment((0.8, 0.8), (0.6, 0.6)), measurements=measured)).evidence[1]
    assert "correlate at 0.02" in text
    assert "trainings of one task that differ in their seed alone, at 0.5;" in text


def test_nothing_is_read_into_weights_that_were_not_measured() -> None:
    assert advise(experiment((0.8, 0.8), (0.6, 0.6))).evidence[1].startswith("beforehand the weights said nothing")


def test_without_samples_the_interval_comes_from_standard_errors_and_that_is_said() -> None:
    results = experiment((0.85, 0.85), (0.6, 0.6))
    rows = [
        replace(row, samples=(), stderr=(row.value * (1 - row.value) / row.n) ** 0.5 if "code" in row.task else None)
        for row in results.rows
    ]
    advice = advise(replace(results, rows=rows))
    assert advice.answer == "merge"
    assert advice.evidence[0].startswith("ties 1 minus mixed, over 400 samples: ")
    assert said(advice.against, "nothing could be paired")
    assert said(advice.against, "the noise of text_test is not known and not in the interval")


def test_methods_are_told_with_their_configurations_and_corrected_p_values() -> None:
    results = experiment((0.85, 0.85), (0.6, 0.6))
    models = [replace(model, method="linear") if model.name == "ties 0" else model for model in results.models]
    advice = advise(replace(results, models=models))
    text = said(advice.evidence, "p after Holm's correction over 2 methods")
    assert "3 configurations" in text
    assert "1 configuration)" in text


def test_what_choosing_flatters_is_told_with_the_mixture_beside_it() -> None:
    text = said(advise(experiment((0.8, 0.8), (0.6, 0.6))).evidence, "on the tasks that chose it")
    assert "choosing the best of 4 flatters it there by" in text
    assert "mixed, not chosen by the sweep" in text


def test_each_diagnostic_is_told_once_and_an_unknown_one_by_its_name() -> None:
    measured = [
        Measurement("l2", metric, "layer 0", (name,), value)
        for metric, value in (("l2_mean", 9.0), ("relative_norm", 0.25))
        for name in ("gen", "sum", "mixed", "ties 1")
    ]
    measured += [Measurement("mine", "entropy", "layer 0", ("gen",), 0.5)]
    advice = advise(replace(experiment((0.85, 0.85), (0.6, 0.6)), measurements=measured))
    told = [sentence for sentence in advice.evidence if sentence.startswith("weights")]
    assert [sentence.split("answer: ")[1] for sentence in told] == [
        "size of the change relative to the base, mean of 1 layer: gen 0.25, sum 0.25, mixed 0.25",
        "mine entropy, mean of 1 layer: gen 0.5",
    ]


def test_an_expert_that_learnt_nothing_is_named() -> None:
    results = experiment((0.15, 0.85), (0.12, 0.6))
    rows = [
        replace(row, samples=(0.0, 1.0) * 100, value=0.5)
        if row.model in ("base", "gen") and row.task == "code_test"
        else row
        for row in results.rows
    ]
    advice = advise(replace(results, rows=rows))
    assert said((*advice.evidence, *advice.against), "no expert clearly beats the base: gen has 0.500 on code_test")


def test_the_best_of_two_mixtures_on_choose_on_stands_for_mixing() -> None:
    results = experiment((0.85, 0.85), (0.6, 0.6))
    generator = np.random.default_rng(12)
    rates = {"code_dev": 0.95, "text_dev": 0.95, "code_test": 0.95, "text_test": 0.95}
    rows = [
        replace(score("mixed", task, (generator.random(200) < rate).astype(float)), model="more")
        for task, rate in rates.items()
    ]
    advice = advise(
        replace(results, rows=[*results.rows, *rows], models=[*results.models, Model("more", "mixture", "x")])
    )
    assert advice.headline.startswith("mix: more beats the best merge ties 1")
    assert said(advice.evidence, "more is the best of 2 mixtures")


def test_tasks_that_chose_and_judge_are_called_out() -> None:
    results = experiment((0.85, 0.85), (0.6, 0.6))
    advice = advise(replace(results, report_on=("code_dev", "text_dev")))
    assert said(advice.against, "the merge was chosen on code_dev and text_dev too, which flatters it")


def missing(results: Results) -> Mapping[str, Results]:
    no_samples = [replace(row, samples=()) for row in results.rows]
    return {
        "the recipe trains no mixture": replace(results, models=[m for m in results.models if m.kind != "mixture"]),
        "no merge was chosen": experiment((0.5, 0.5), (0.5, 0.5), merges=0),
        "no task under report_on": replace(results, report_on=()),
        "mixed has no score on code_test": replace(
            results, rows=[row for row in results.rows if (row.model, row.task) != ("mixed", "code_test")]
        ),
        "neither scores per sample nor standard errors": replace(results, rows=no_samples),
    }


@pytest.mark.parametrize("reason", list(missing(experiment((0.8, 0.8), (0.6, 0.6)))))
def test_a_missing_piece_leaves_it_undecided_and_is_named(reason: str) -> None:
    advice = advise(missing(experiment((0.8, 0.8), (0.6, 0.6)))[reason])
    assert advice.answer == "undecided"
    assert advice.headline.startswith("undecided: ")
    assert reason in advice.headline
    assert said(advice.against, "the experiment has 2 experts")


def test_experts_alone_and_nothing_at_all_give_an_answer_too() -> None:
    results = experiment((0.8, 0.8), (0.6, 0.6))
    alone = replace(results, models=[m for m in results.models if m.kind == "expert"], winners={})
    assert advise(alone).answer == "undecided"
    assert advise(Results("empty", [], [])).answer == "undecided"


def test_parameters_are_bounded() -> None:
    assert mix_or_merge.problems({"margin": -1.0})
    assert mix_or_merge.problems({"level": 1.0})
