"""What speaks for and against an advisor's answer, a sentence each with its numbers in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mixmerge import Measurement, Model, Results
from mixmerge.results import (
    Comparison,
    best_expert,
    compare,
    experts_of,
    find_row,
    gain_kept,
    methods,
    objective,
    optimism,
    share,
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


# ---- what speaks for what -------------------------------------------------------------------------------------------


def findings(results: Results, contest: Contest, correlated: float) -> Iterator[Finding]:
    yield _on_average(results, contest)
    yield Finding(_beforehand(results, contest, correlated), "")
    yield from _unpaired(contest)
    for task in contest.tasks:
        if pair := compare(results, contest.merge.name, contest.mixture.name, task, level=contest.average.level):
            yield _on_task(results, pair)
    yield from _methods(results, contest)
    yield from _gains(results, contest)
    yield from _experts(results, contest.tasks, contest.average.level)
    yield from _tries(results, contest)
    yield from _edge(results, contest)
    yield from _optimism(results, contest)
    yield from _cost(results, contest)
    yield from (Finding(text, "") for text in _weights(results, contest))
    yield Finding(
        "the interval covers the choice of test samples, not what another training seed would give", "caution"
    )


def _beforehand(results: Results, contest: Contest, correlated: float) -> str:
    """What the weights of the experts said before anything was merged or scored, and whether they were right."""
    experts = set(contest.merge.experts)
    mean = _correlation(one for one in results.measurements if one.diagnostic != "null" and {*one.models} <= experts)
    if mean is None:
        return "beforehand the weights said nothing: the correlation of the experts' changes was not measured"
    forecast: Answer = "mix" if mean >= correlated else "merge"
    side = "at or above" if forecast == "mix" else "under"
    same = _correlation(one for one in results.measurements if one.diagnostic == "null")
    beside = f"; trainings of one task that differ in their seed alone, at {same:.2g}" if same is not None else ""
    said = (
        f"beforehand the weights said {forecast}, as the paper reads them: the experts' changes correlate at "
        f"{mean:.2g} (Pearson, mean of the layers), {side} the {correlated:g} from which they count as correlated"
        f"{beside}"
    )
    if contest.answer == "undecided":
        return f"{said}; whether that is right, these scores do not say"
    return f"{said}; that was {'right' if forecast == contest.answer else 'wrong'}"


def _correlation(measurements: Iterable[Measurement]) -> float | None:
    """The mean over pairs of models of the mean over layers; None where none was measured."""
    between: dict[tuple[str, ...], list[float]] = {}
    for one in measurements:
        if one.metric == "pearson" and one.group.startswith("layer ") and len(set(one.models)) == 2:
            between.setdefault(tuple(sorted(one.models)), []).append(one.value)
    values = [sum(found) / len(found) for found in between.values()]
    return sum(values) / len(values) if values and math.isfinite(sum(values)) else None


def _unpaired(contest: Contest) -> Iterator[Finding]:
    if contest.average.paired:
        return
    yield Finding(
        "no scores per sample are known, so nothing could be paired: the interval takes the two models as independent, "
        "which makes it too wide where they fail on the same samples",
        "caution",
    )
    if contest.average.unknown:
        yield Finding(
            f"the noise of {_listed(contest.average.unknown)} is not known and not in the interval", "caution"
        )


def _methods(results: Results, contest: Contest) -> Iterator[Finding]:
    """Every method's best merge against the mixture, corrected for how many methods were compared."""
    found = [one for one in methods(results, level=contest.average.level) if one.versus and one.holm_p is not None]
    if len(found) < 2:
        return
    told = ", ".join(
        f"{one.method} {one.versus.difference:+.1f} ({_p(one.holm_p)}, {_count(one.configurations, 'configuration')})"
        for one in found
        if one.versus and one.holm_p is not None
    )
    yield Finding(
        f"each method's best merge against {contest.mixture.name}, in points, p after Holm's correction over "
        f"{_count(len(found), 'method')}: {told}",
        "",
    )


def _optimism(results: Results, contest: Contest) -> Iterator[Finding]:
    """What choosing the best of many is worth on the tasks that it was chosen on."""
    one = next((found for found in optimism(results) if found.winner == contest.merge.name), None)
    if one is None or one.reported is None or set(results.choose_on) & set(contest.tasks):
        return
    text = f"{one.winner} has {one.chosen:+.1f} % on the tasks that chose it and {one.reported:+.1f} % here"
    if one.expected is not None and one.candidates > 1:
        text = f"{text}; choosing the best of {one.candidates} flatters it there by {one.expected:.1f} points"
    if one.mixture:
        text = (
            f"{text} ({one.mixture[0]}, not chosen by the sweep: {one.mixture[1]:+.1f} % and {one.mixture[2]:+.1f} %)"
        )
    yield Finding(text, "")


def _on_average(results: Results, contest: Contest) -> Finding:
    experts = experts_of(results.models)
    merge, mixture = (
        objective(results.rows, model.name, contest.tasks, experts=experts)
        for model in (contest.merge, contest.mixture)
    )
    against = "each task's best expert" if experts else "the base"
    over = _count(len(contest.tasks), "task")
    text = (
        f"{contest.merge.name} minus {contest.mixture.name}, {'paired over' if contest.average.paired else 'over'} "
        f"{contest.average.n:,} samples: {points(contest.average, signed=True)}, {_p(contest.average.p)}; their mean "
        f"changes against {against} over {over} are {merge:+.1f} % and {mixture:+.1f} %"
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


def _edge(results: Results, contest: Contest) -> Iterator[Finding]:
    """Whether the winner has the outermost weights of its sweep, so that better ones may lie where nobody looked."""
    merge = contest.merge
    same = [one for one in results.models if (one.kind, one.group, one.method) == ("merge", merge.group, merge.method)]
    shares = sorted({round(share(one.weights), 6) for one in same if one.weights})
    own = round(share(merge.weights), 6) if merge.weights else 0.0
    if len(shares) < 3 or own not in (shares[0], shares[-1]) or own in (0.0, 1.0):
        return
    first = next((one.name for one in results.models if merge.experts and merge.experts[0] in (one.name, one.id)), "")
    text = (
        f"of the {len(shares)} shares of {first or 'the first expert'} that were tried with {merge.method} "
        f"({shares[0]:.3g} to {shares[-1]:.3g}), {merge.name} has the {'smallest' if own == shares[0] else 'largest'}: "
        "better weights may lie beyond"
    )
    yield Finding(text, "merge")


def decided_tasks(results: Results, contest: Contest) -> str:
    """Who is ahead by more than noise on which task, in words; "" where nobody is on any."""
    ahead: dict[str, list[str]] = {}
    for task in contest.tasks:
        pair = compare(results, contest.merge.name, contest.mixture.name, task, level=contest.average.level)
        if pair and pair.decided:
            ahead.setdefault(pair.a if pair.difference > 0 else pair.b, []).append(task)
    words = [f"{name} is ahead by more than noise on {_listed(tasks)}" for name, tasks in ahead.items()]
    rest = len(contest.tasks) - sum(map(len, ahead.values()))
    return _listed([*words, "nobody on the other" + ("s" if rest > 1 else "")] if rest else words) if words else ""


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


def loose_ends(results: Results) -> Iterator[str]:
    """What is known although the question cannot be answered."""
    counts = {kind: sum(model.kind == kind for model in results.models) for kind in ("expert", "mixture", "merge")}
    yield "the experiment has " + _listed(_count(count, kind) for kind, count in counts.items())
    for finding in _experts(results, results.report_on or results.choose_on):
        yield finding.text


# ---- words ----------------------------------------------------------------------------------------------------------


def points(pair: Comparison, *, signed: bool = False) -> str:
    difference = f"{pair.difference:+.1f}" if signed else f"{pair.difference:.1f}"
    interval = f"{100 * pair.level:g} % interval {pair.low:.1f} to {pair.high:.1f}"
    return f"{difference} points of relative change ({interval})"


def swapped(pair: Comparison) -> Comparison:
    return replace(pair, a=pair.b, b=pair.a, difference=-pair.difference, low=-pair.high, high=-pair.low)


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
