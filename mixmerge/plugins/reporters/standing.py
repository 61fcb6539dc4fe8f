"""Where the contest stands: who is ahead, by how much, each method and what it was given, what choosing flatters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixmerge import Results
from mixmerge.results import (
    Comparison,
    MethodResult,
    Optimism,
    best_mixture,
    compare_average,
    compare_unpaired,
    find_row,
    methods,
    optimism,
    winner_of,
)

from . import words


@dataclass(frozen=True)
class Standing:
    """The winning merge of a group against the best mixture: `versus` is merge minus mixture, None where no noise is
    known. `ahead` is the one in front."""

    merge: str
    mixture: str
    ahead: str
    versus: Comparison

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """The three things to take away, as label and text."""
        one = self.versus
        away = abs(one.difference)
        sign = 1 if one.difference >= 0 else -1
        low, high = sorted((sign * one.low, sign * one.high))
        interval = f"{words.number(low, 1)} to {words.number(high, 1)}"
        noise = "more than noise" if one.decided else "within noise"
        how = "paired, " if one.paired else "not paired, "
        return (
            ("ahead", self.ahead),
            ("by", f"{words.number(away, 1)} points of relative change"),
            (noise, f"{interval} ({how}{100 * one.level:g}{words.NO_BREAK}% interval)"),
        )


def standings(results: Results) -> tuple[Standing, ...]:
    """One for each merge group with a winner, where a mixture was trained and both were scored on `report_on`."""
    mixture = best_mixture(results)
    found = []
    for group in dict.fromkeys(model.group for model in results.models if model.kind == "merge"):
        merge = winner_of(results, group)
        if not merge or not mixture or not results.report_on:
            continue
        given = (results, merge, mixture, results.report_on)
        if versus := compare_average(*given) or compare_unpaired(*given):
            found.append(Standing(merge, mixture, merge if versus.difference >= 0 else mixture, versus))
    return tuple(found)


@dataclass(frozen=True)
class MethodLine:
    """A method as the page shows it; `tasks` are the differences on each task, with their corrected p values. `records`
    are those of its best merge's scores on `choose_on` and `report_on`, "" where none is known."""

    method: MethodResult
    name: str
    best: str
    configurations: str
    chosen: str
    reported: str
    difference: str
    interval: str
    p: str
    clear: bool
    winner: bool
    tasks: tuple[str, ...]
    records: tuple[str, str]


@dataclass(frozen=True)
class MethodTable:
    """Every method against `against` (one name, or "" where there is nothing to compare with)."""

    against: str
    tasks: tuple[str, ...]
    lines: tuple[MethodLine, ...]
    paired: bool


def method_table(results: Results) -> MethodTable | None:
    """None where nothing was merged and chosen."""
    found = methods(results)
    if not found:
        return None
    tasks = tuple(
        task for task in results.report_on if any(pair.task == task for one in found for pair, _ in one.by_task)
    )
    several = len({one.group for one in found}) > 1
    lines = tuple(_line(results, one, tasks, several) for one in found)
    paired = all(one.versus.paired for one in found if one.versus)
    return MethodTable(found[0].against, tasks, lines, paired)


def _line(results: Results, one: MethodResult, tasks: Sequence[str], several: bool) -> MethodLine:
    by_task = {pair.task: (pair, p) for pair, p in one.by_task}
    versus = one.versus
    interval = f"{words.number(versus.low, 1)} to {words.number(versus.high, 1)}" if versus else ""
    return MethodLine(
        one,
        f"{one.group}: {one.method}" if several else one.method,
        one.best,
        f"{one.configurations:,}",
        words.percent(one.chosen),
        words.percent(one.reported),
        _signed(versus.difference, 1) if versus else "–",
        interval,
        p_value(one.holm_p),
        one.holm_p is not None and one.holm_p < 0.05,
        one.best in results.winners.values(),
        tuple(_task(*by_task[task]) if task in by_task else "–" for task in tasks),
        (record_of(results, one.best, results.choose_on), record_of(results, one.best, results.report_on)),
    )


def record_of(results: Results, model: str, tasks: Sequence[str]) -> str:
    """The record of a model's score on the first of `tasks`, "" where there is none."""
    row = find_row(results.rows, model, tasks[0]) if tasks else None
    return row.record if row else ""


def _task(pair: Comparison, p: float) -> str:
    size = abs(pair.difference)
    digits = 3 if size < 1 else 2 if size < 10 else 1
    return f"{_signed(pair.difference, digits)} (p{words.NO_BREAK}{p_value(p, bare=True)})"


def _signed(value: float, digits: int) -> str:
    text = words.number(value, digits)
    return f"+{text}" if value > 0 and text.strip("0.,") else text


def p_value(p: float | None, *, bare: bool = False) -> str:
    """ "0.033", "< 0.001"; with `bare` as it follows "p": "= 0.033"."""
    if p is None:
        return "–"
    if p < 0.001:
        return f"<{words.NO_BREAK}0.001"
    return f"={words.NO_BREAK}{p:.2g}" if bare else f"{p:.2g}"


def flattery(results: Results) -> tuple[str, ...]:
    """What choosing on `choose_on` does to the winners' scores there, a sentence for each group."""
    return tuple(_flattery(one) for one in optimism(results) if one.reported is not None and _apart(results))


def _apart(results: Results) -> bool:
    return not set(results.choose_on) & set(results.report_on)


def _flattery(one: Optimism) -> str:
    text = f"{one.winner} stands at {words.percent(one.chosen)} on the tasks that chose it"
    if one.reported is not None:
        text += f" and at {words.percent(one.reported)} on the tasks that compare"
    text += f": {_signed(one.reported - one.chosen, 1)} points. " if one.reported is not None else ". "
    if one.expected is not None and one.candidates > 1:
        text += (
            f"Being the best of {one.candidates} flatters it by {words.number(one.expected, 1)} points where it was "
            "chosen (bootstrap of the choice). "
        )
    if one.mixture:
        name, there, here = one.mixture
        text += (
            f"{name}, which the sweep did not choose, moves from {words.percent(there)} to {words.percent(here)}: that "
            "much the tasks alone make of it."
        )
    return text.strip()
