"""What the models wrote, side by side, with the verdicts."""

from __future__ import annotations

from dataclasses import dataclass

from mixmerge import Results, Sample, Written

from . import content, words


@dataclass(frozen=True)
class Verdict:
    """One answer as the page shows it: `good` True or False for a pass or a fail, None for a score in between."""

    answer: Written
    text: str
    good: bool | None


@dataclass(frozen=True)
class Block:
    """One task with its samples: (sample, its answers), `label` the metric with its unit."""

    task: str
    label: str
    samples: tuple[tuple[Sample, tuple[Verdict, ...]], ...]


def blocks(results: Results) -> tuple[Block, ...]:
    """By task, in the order of the samples."""
    return tuple(
        _block(results, task, [one for one in results.samples if one.task == task])
        for task in dict.fromkeys(one.task for one in results.samples)
    )


def _block(results: Results, task: str, samples: list[Sample]) -> Block:
    head = content.primary_head(results, task)
    label = f"{head.label}, {head.unit}" if head and head.unit and head.scale == 1 else head.label if head else ""
    every = [row.samples for row in results.rows if (row.task, row.metric) == (task, samples[0].metric)]
    passes = all(value in (0, 1) for values in every for value in values)
    return Block(
        task, label, tuple((one, tuple(_verdict(answer, passes) for answer in one.answers)) for one in samples)
    )


def _verdict(answer: Written, passes: bool) -> Verdict:
    if passes:
        word = "passes" if answer.value == 1 else "fails"
        return Verdict(answer, f"{word}: {answer.verdict}" if answer.verdict else word, answer.value == 1)
    return Verdict(answer, words.figure(answer.value, 3), None)
