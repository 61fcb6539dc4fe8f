"""What evaluators, diagnostics and advisors give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Document:
    """One document of an evaluation set, as the contamination gate compares it with training data.

    id         `BENCHMARK/KEY`, such as "HumanEval/32"; "" for what has none (a row number is none)
    prompt     what the model is asked, few-shot examples left out
    solutions  every text that answers it: the reference, the target
    """

    id: str
    prompt: str
    solutions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """One metric of one task for one model.

    value      in the metric's own unit; `n` samples
    stderr     one standard error, None where it cannot be had
    samples    the metric for each sample in a fixed order, so that two models can be paired; () when it is no mean
    k          for pass@1 and accuracies: how many of `n`; None otherwise
    primary    whether this metric stands for its task when winners are chosen
    reference  "" for the model itself; otherwise the name of a trivial baseline (a constant sentence) that the
               task scored on the same samples
    asked      what of the model's own files decided how it was asked, such as a digest of its chat template; models
               that a task asked differently are not compared
    """

    task: str
    metric: str
    value: float
    n: int
    stderr: float | None = None
    samples: tuple[float, ...] = ()
    k: int | None = None
    higher_is_better: bool = True
    primary: bool = False
    reference: str = ""
    asked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """One figure about weights, of one model or a pair: `metric` of `diagnostic` over the tensors of `group`,
    such as "layer 3", "layers", "embeddings", "head", "norm" and "all". `record` is the step that measured it."""

    diagnostic: str
    metric: str
    group: str
    models: tuple[str, ...]
    value: float
    record: str = ""


@dataclass(frozen=True)
class Advice:
    """An advisor's answer. `evidence` speaks for it, `against` against it, a sentence each, numbers in them."""

    answer: Literal["mix", "merge", "undecided"]
    headline: str
    evidence: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
