"""`mix_or_merge`: what the scores say, with what speaks for it and what against it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from mixmerge import Advice, Component, Model, Results, advisor, hookimpl
from mixmerge.results import (
    Comparison,
    best_expert,
    choose,
    compare,
    compare_average,
    experts_of,
    find_row,
    gain_kept,
    objective,
)

Answer = Literal["mix", "merge", "undecided"]

FIGURES = {
    "relative_norm": "size of the change relative to the base",
    "pearson": "correlation of the changes",
    "sign_agreement": "share of changes in the same direction",
    "changed": "share of weights that changed at all",
}
"""The figure that stands for a diagnostic, in words; of one that is not here the first figure is told, by its name."""


@dataclass(frozen=True)
class Contest:
    """The winning merge against the best mixture on `tasks`; `average` is merge minus mixture."""

    merge: Model
    mixture: Model
    tasks: tuple[str, ...]
    average: Comparison
    answer: Answer


@dataclass(frozen=True)
class Finding:
    """A sentence and the answer that it speaks for: "" for whichever was given, "caution" against any but undecided."""

    text: str
    speaks_for: Answer | Literal["", "caution"]


@advisor(name="mix_or_merge", version="1")
def mix_or_merge(
    results: Results,
    /,
    *,
    margin: Annotated[float, Field(ge=0)] = 0.0,
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95,
) -> Advice:
    """Mix or merge: the paired interval between the winning merge and the best mixture on `report_on` decides.

    Compared is the mean over the tasks of the relative change of the primary metric against each task's best expert, in
    percent points. The whole interval (at `level`) above `margin` means merge, below -`margin` mix, anything else
    undecided. Both contenders are chosen on `choose_on`. What the weights look like, what training cost and how many
    merges were tried is told beside it and decides nothing; neither does the size of the model.
    """
    found = _contest(results, margin, level)
    if isinstance(found, str):
        return Advice("undecided", f"undecided: {found}", against=tuple(_loose_ends(results)))
    supporting = ("", found.answer, *(["caution"] if found.answer == "undecided" else []))
    findings = list(_findings(results, found))
    evidence = tuple(finding.text for finding in findings if finding.speaks_for in supporting)
    against = tuple(finding.text for finding in findings if finding.speaks_for not in supporting)
    return Advice(found.answer, _headline(found, margin), evidence, against)


# ---- who meets whom -------------------------------------------------------------------------------------------------


def _contest(results: Results, margin: float, level: float) -> Contest | str:
    """The contest, or why there is none."""
    by_name = {model.name: model for model in results.models}
    winners = results.winners or choose(results.rows, results.models, results.choose_on)
    merges = [by_name[name] for name in winners.values() if name in by_name]
    mixtures = [model for model in results.models if model.kind == "mixture"]
    if not merges:
        return "no merge was chosen, so there is nothing to set against a mixture"
    if not mixtures:
        return "the recipe trains no mixture, so there is nothing to set against the merges"
    if not results.report_on:
        return "no task under report_on, and the scores that chose the merge cannot judge it too"
    merge, mixture = _best(results, merges), _best(results, mixtures)
    for model in (merge, mixture):
        for task in results.report_on:
            row = find_row(results.rows, model.name, task)
            if row is None or not math.isfinite(row.value):
                return f"{model.name} has no score on {task}"
    average = compare_average(results, merge.name, mixture.name, results.report_on, level=level)
    if average is None:
        return f"{merge.name} and {mixture.name} cannot be paired: the evaluator kept no scores per sample"
    answer: Answer = "merge" if average.low > margin else "mix" if average.high < -margin else "undecided"
    return Contest(merge, mixture, results.report_on, average, answer)


def _best(results: Results, models: Sequence[Model]) -> Model:
    """The best on `choose_on`; the first where they were not all scored there."""
    tasks = results.choose_on
    if any(find_row(results.rows, model.name, task) is None for model in models for task in tasks) or not tasks:
        return models[0]
    experts = experts_of(results.models)
    return max(models, key=lambda model: objective(results.rows, model.name, tasks, experts=experts))


def _headline(contest: Contest, margin: float) -> str:
    merge, mixture, average = contest.merge.name, contest.mixture.name, contest.average
    if contest.answer == "merge":
        return f"merge: {merge} beats the mixture {mixture} by {_points(average)}"
    if contest.answer == "mix":
        return f"mix: {mixture} beats the best merge {merge} by {_points(_swapped(average))}"
    reason = f"which is not clear of the margin of {margin:g}" if margin else "which includes zero"
    if average.difference >= 0:
        return f"undecided: {merge} is ahead of the mixture {mixture} by {_points(average)}, {reason}"
    return f"undecided: the mixture {mixture} is ahead of {merge} by {_points(_swapped(average))}, {reason}"


# ---- what speaks for what -------------------------------------------------------------------------------------------


def _findings(results: Results, contest: Contest) -> Iterator[Finding]:
    yield _on_average(results, contest)
    for task in contest.tasks:
        if pair := compare(results, contest.merge.name, contest.mixture.name, task, level=contest.average.level):
            yield _on_task(results, pair)
    yield from _gains(results, contest)
    yield from _experts(results, contest.tasks, contest.average.level)
    yield from _tries(results, contest)
    yield from _cost(results, contest)
    yield from (Finding(text, "") for text in _weights(results, contest))
    yield Finding(
        "the interval covers the choice of test samples, not what another training seed would give", "caution"
    )


def _on_average(results: Results, contest: Contest) -> Finding:
    experts = experts_of(results.models)
    merge, mixture = (
        objective(results.rows, model.name, contest.tasks, experts=experts)
        for model in (contest.merge, contest.mixture)
    )
    against = "each task's best expert" if experts else "the base"
    over = _count(len(contest.tasks), "task")
    text = (
        f"mean change against {against} over {over}: {contest.merge.name} {merge:+.1f} %, {contest.mixture.name} "
        f"{mixture:+.1f} %, a difference of {_points(contest.average, signed=True)}, n = {contest.average.n} samples, "
        f"{_p(contest.average.p)}"
    )
    return Finding(text, "")


def _on_task(results: Results, pair: Comparison) -> Finding:
    """Speaks for whoever is better there by more than noise, and else for undecided."""
    rows = [find_row(results.rows, name, pair.task) for name in (pair.a, pair.b)]
    scores = ", ".join(f"{row.model} {_number(row.value)}" for row in rows if row)
    low, high = (f"{bound:+.3g}" for bound in (pair.low, pair.high))
    better = "" if all(row.higher_is_better for row in rows if row) else "; lower is better, differences are turned"
    text = (
        f"{pair.task} {pair.metric}: {scores}, a difference of {pair.difference:+.3g} ({100 * pair.level:g} % interval "
        f"{low} to {high}, n = {pair.n}, {_p(pair.p if pair.exact_p is None else pair.exact_p)}{better})"
    )
    if not pair.decided:
        return Finding(f"{text}: within noise", "undecided")
    return Finding(text, "merge" if pair.difference > 0 else "mix")


def _gains(results: Results, contest: Contest) -> Iterator[Finding]:
    kept = {}
    for model in (contest.merge, contest.mixture):
        shares = {task: gain_kept(results, model.name, task) for task in contest.tasks}
        kept[model.name] = {task: share for task, share in shares.items() if share is not None}
    merge, mixture = kept[contest.merge.name], kept[contest.mixture.name]
    if not merge or merge.keys() != mixture.keys():
        return
    words = "; ".join(
        f"{name} keeps {_listed(f'{100 * share:.0f} % on {task}' for task, share in shares.items())}"
        for name, shares in kept.items()
    )
    ahead: Answer = "merge" if min(merge.values()) > min(mixture.values()) else "mix"
    yield Finding(f"of what the best expert gains over the base, {words}", ahead)


def _experts(results: Results, tasks: Sequence[str], level: float = 0.95) -> Iterator[Finding]:
    base = next((model.name for model in results.models if model.kind == "base"), "")
    for task in tasks:
        expert = best_expert(results, task)
        if expert is None or not base:
            continue
        pair = compare(results, expert, base, task, level=level)
        row, below = find_row(results.rows, expert, task), find_row(results.rows, base, task)
        if pair is None or row is None or below is None:
            continue
        levels = f"{_number(row.value)} on {task} {pair.metric}, the base {_number(below.value)} (n = {pair.n})"
        if pair.low > 0:
            yield Finding(f"the expert {expert} reaches {levels}", "")
        else:
            yield Finding(f"no expert clearly beats the base: {expert} has {levels}", "undecided")


def _tries(results: Results, contest: Contest) -> Iterator[Finding]:
    merges = sum(model.kind == "merge" and model.group == contest.merge.group for model in results.models)
    mixtures = sum(model.kind == "mixture" for model in results.models)
    where = _listed(results.choose_on) or "no scores"
    alone = "the only mixture" if mixtures == 1 else f"the best of {mixtures} mixtures"
    text = (
        f"{contest.merge.name} is the best of {_count(merges, 'merge')} on {where}, {contest.mixture.name} is {alone}"
    )
    if merges > mixtures:  # weakens a lead of the merge and strengthens one of the mixture
        yield Finding(f"{text}: more tries favour the merge", "" if contest.answer == "mix" else "caution")
    else:
        yield Finding(text, "")
    if both := [task for task in contest.tasks if task in results.choose_on]:
        yield Finding(f"the merge was chosen on {_listed(both)} too, which flatters it", "caution")


def _cost(results: Results, contest: Contest) -> Iterator[Finding]:
    experts = [model for model in results.models if {model.name, model.id} & set(contest.merge.experts)]
    for key, unit in (("tokens", "tokens"), ("seconds", "s")):
        costs = [model.training.get(key) for model in (contest.mixture, *experts)]
        known = [cost for cost in costs if cost is not None]
        if not experts or len(known) < len(costs):
            continue
        mixture, several = known[0], sum(known[1:])
        text = (
            f"training took {several:,.0f} {unit} for {_count(len(experts), 'expert')}, {mixture:,.0f} for the mixture"
        )
        yield Finding(text, "merge" if several < mixture else "mix" if several > mixture else "")


def _weights(results: Results, contest: Contest) -> Iterator[str]:
    """One figure of every diagnostic as its mean over the layers: for each expert or each pair, and the mixture."""
    names = {contest.mixture.name, *contest.merge.experts}
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for one in results.measurements:
        distinct = sorted(set(one.models))
        if one.group.startswith("layer ") and set(distinct) <= names and len(distinct) == len(one.models):
            of_metric = values.setdefault(one.diagnostic, {}).setdefault(one.metric, {})
            of_metric.setdefault(" and ".join(distinct), []).append(one.value)
    for diagnostic, of_metrics in values.items():
        metric = next((metric for metric in of_metrics if metric in FIGURES), next(iter(of_metrics)))
        what = FIGURES.get(metric, f"{diagnostic} {metric}")
        means = ", ".join(f"{who} {sum(found) / len(found):.3g}" for who, found in of_metrics[metric].items())
        layers = max(map(len, of_metrics[metric].values()))
        yield f"weights, which do not enter the answer: {what}, mean of {_count(layers, 'layer')}: {means}"


def _loose_ends(results: Results) -> Iterator[str]:
    """What is known although the question cannot be answered."""
    counts = {kind: sum(model.kind == kind for model in results.models) for kind in ("expert", "mixture", "merge")}
    yield "the experiment has " + _listed(_count(count, kind) for kind, count in counts.items())
    for finding in _experts(results, results.report_on or results.choose_on):
        yield finding.text


# ---- words ----------------------------------------------------------------------------------------------------------


def _points(pair: Comparison, *, signed: bool = False) -> str:
    difference = f"{pair.difference:+.1f}" if signed else f"{pair.difference:.1f}"
    interval = f"{100 * pair.level:g} % interval {pair.low:.1f} to {pair.high:.1f}"
    return f"{difference} points of relative change ({interval})"


def _swapped(pair: Comparison) -> Comparison:
    return Comparison(
        pair.b, pair.a, pair.task, pair.metric, pair.n, -pair.difference, -pair.high, -pair.low, pair.p, pair.level
    )


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _number(value: float) -> str:
    """Shares with three decimals, percentages and losses with what a reader can tell apart."""
    return f"{value:.3f}" if abs(value) <= 1 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _listed(words: Iterable[str]) -> str:
    words = list(words)
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


@hookimpl
def register_advisors() -> Sequence[Component]:
    return [mix_or_merge]
