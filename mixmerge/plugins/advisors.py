"""`mix_or_merge`: what the scores say, with what speaks for it and what against it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from mixmerge import Advice, Component, Model, Results, advisor, hookimpl
from mixmerge.results import (
    best_mixture,
    choose,
    compare_average,
    compare_unpaired,
    experts_of,
    find_row,
    objective,
)

from ._evidence import Answer, Contest, decided_tasks, findings, loose_ends, points, swapped


@advisor(name="mix_or_merge", version="3")
def mix_or_merge(
    results: Results,
    /,
    *,
    margin: Annotated[float, Field(ge=0)] = 0.0,
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95,
    correlated: Annotated[float, Field(ge=0, le=1)] = 0.1,
) -> Advice:
    """Mix or merge: the paired interval between the winning merge and the best mixture on `report_on` decides.

    Compared is the mean over the tasks of the relative change of the primary metric against each task's best expert, in
    percent points. The whole interval (at `level`) above `margin` means merge, below -`margin` mix, anything else
    undecided. Both contenders are chosen on `choose_on`. Where scores were recorded without samples, the interval comes
    from the standard errors of both, as far as they are known, and that is said.

    What the weights said beforehand is told beside it and decides nothing. It is the paper's reading (arXiv
    2601.21115, its third question): experts whose changes correlate are better mixed, others better merged.
    `correlated` is where that begins, as the mean over the layers and pairs of experts of the Pearson correlation; the
    paper gives no bound, so it is a convention. Neither do the size of the model, what training cost, and how many
    merges were tried decide anything.
    """
    found = _contest(results, margin, level)
    if isinstance(found, str):
        return Advice("undecided", f"undecided: {found}", against=tuple(loose_ends(results)))
    supporting = ("", found.answer, *(["caution"] if found.answer == "undecided" else []))
    told = list(findings(results, found, correlated))
    evidence = tuple(finding.text for finding in told if finding.speaks_for in supporting)
    against = tuple(finding.text for finding in told if finding.speaks_for not in supporting)
    return Advice(found.answer, _headline(results, found, margin), evidence, against)


# ---- who meets whom -------------------------------------------------------------------------------------------------


def _contest(results: Results, margin: float, level: float) -> Contest | str:
    """The contest, or why there is none."""
    by_name = {model.name: model for model in results.models}
    winners = results.winners or choose(results.rows, results.models, results.choose_on)
    merges = [by_name[name] for name in winners.values() if name in by_name]
    mixture = by_name.get(best_mixture(results) or "")
    if not merges:
        return "no merge was chosen, so there is nothing to set against a mixture"
    if mixture is None:
        return "the recipe trains no mixture, so there is nothing to set against the merges"
    if not results.report_on:
        return "no task under report_on, and the scores that chose the merge cannot judge it too"
    merge = _best(results, merges)
    for model in (merge, mixture):
        for task in results.report_on:
            row = find_row(results.rows, model.name, task)
            if row is None or not math.isfinite(row.value):
                return f"{model.name} has no score on {task}"
    pair = (results, merge.name, mixture.name, results.report_on)
    average = compare_average(*pair, level=level) or compare_unpaired(*pair, level=level)
    if average is None:
        return f"{merge.name} and {mixture.name} cannot be compared: neither scores per sample nor standard errors"
    answer: Answer = "merge" if average.low > margin else "mix" if average.high < -margin else "undecided"
    return Contest(merge, mixture, results.report_on, average, answer)


def _best(results: Results, models: Sequence[Model]) -> Model:
    """The best on `choose_on`; the first where they were not all scored there."""
    tasks = results.choose_on
    if any(find_row(results.rows, model.name, task) is None for model in models for task in tasks) or not tasks:
        return models[0]
    experts = experts_of(results.models)
    return max(models, key=lambda model: objective(results.rows, model.name, tasks, experts=experts))


def _headline(results: Results, contest: Contest, margin: float) -> str:
    merge, mixture, average = contest.merge.name, contest.mixture.name, contest.average
    if contest.answer == "merge":
        return f"merge: {merge} beats the mixture {mixture} by {points(average)}"
    if contest.answer == "mix":
        return f"mix: {mixture} beats the best merge {merge} by {points(swapped(average))}"
    reason = f"which is not clear of the margin of {margin:g}" if margin else "which includes zero"
    if tasks := decided_tasks(results, contest):
        reason = f"{reason}; task by task, {tasks}"
    if average.difference >= 0:
        return f"undecided: {merge} is ahead of the mixture {mixture} by {points(average)}, {reason}"
    return f"undecided: the mixture {mixture} is ahead of {merge} by {points(swapped(average))}, {reason}"


@hookimpl
def register_advisors() -> Sequence[Component]:
    return [mix_or_merge]
