"""The frozen values that plugin authors touch. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Kind = Literal["base", "expert", "mixture", "merge", "model", "reference"]
"""What a row of the results is: `model` came in through `models:`, `reference` is a trivial baseline of a task."""


def content_id(value: object) -> str:
    """A 16-digit hexadecimal name for a JSON-like value: equal values, equal names, on any machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Derivation:
    """How a merged checkpoint follows from stored ones, one tensor at a time.

    `merge` and `prepare` have their parameters bound already. Derivations with the same `prepare_key` over the same
    base and experts share what `prepare` gives. `files` gives what belongs beside the weights when they are written:
    file name to text.
    """

    base: Checkpoint
    experts: tuple[Checkpoint, ...]
    weights: tuple[float, ...]
    seed: int
    merge: Callable[[TensorStack], torch.Tensor]
    prepare: Callable[[TensorStack], torch.Tensor] | None = None
    prepare_key: str = ""
    method: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    files: Callable[[Derivation], Mapping[str, str]] | None = None


@dataclass(frozen=True)
class Training:
    """What a record says of how a model was trained; None and "" where none does.

    lr     peak learning rate;  steps  of the optimizer
    task   equal for trainings that differ in their seed alone
    """

    lr: float | None = None
    steps: float | None = None
    task: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A model: stored in `path`, or derived from stored ones and written nowhere.

    `path` is a directory in the Hugging Face layout. For a derived checkpoint it is the base's, whose config,
    tokenizer and chat template it keeps. `id` names the weights: equal ids, equal weights.
    `mixmerge.tensors(checkpoint)` streams the weights of either. `kind` and `training` are what diagnostics are told.
    """

    name: str
    path: Path
    id: str
    derivation: Derivation | None = None
    licence: str = ""
    kind: Kind = "model"
    training: Training = Training()


@dataclass(frozen=True)
class Mixture:
    """What a trainer trains on: `path` is a JSON Lines file of `{"id", "data", "prompt", "completion"}`.

    `prompt` is a string, or a list of chat messages when the data is conversational; `completion` is a string.
    `counts` gives the number of rows taken from each dataset; `licences` each dataset's licence.
    """

    path: Path
    rows: int
    counts: Mapping[str, int]
    licences: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TensorStack:
    """One tensor of the base with the same tensor of every expert, as mergers and diagnostics see it.

    name      the tensor's name in the checkpoint
    base      float32 (*shape)
    deltas    float32 (experts, *shape): expert minus base
    weights   float32 (experts, 1, …), broadcastable against `deltas`
    experts   the experts' ids, in the order of `deltas`
    seed      of the step; `generator(i)` depends on it, on expert i's id and on `name`, and on nothing else
    """

    name: str
    base: torch.Tensor
    deltas: torch.Tensor
    weights: torch.Tensor
    experts: tuple[str, ...]
    seed: int = 0

    def generator(self, expert: int) -> torch.Generator:
        """A CPU random generator for one expert's part of this tensor: the same in any order, thread or machine."""
        import torch

        text = f"{self.seed}/{self.experts[expert]}/{self.name}"
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)

    def with_deltas(self, deltas: torch.Tensor) -> TensorStack:
        """The same stack with other deltas of the same shape."""
        return replace(self, deltas=deltas)


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
    such as "layer 3", "layers", "embeddings", "head", "norm" and "all"."""

    diagnostic: str
    metric: str
    group: str
    models: tuple[str, ...]
    value: float


@dataclass(frozen=True)
class Advice:
    """An advisor's answer. `evidence` speaks for it, `against` against it, a sentence each, numbers in them."""

    answer: Literal["mix", "merge", "undecided"]
    headline: str
    evidence: tuple[str, ...] = ()
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """One point of a sweep: the value of every swept key. `label` is what tables show."""

    values: Mapping[str, Any]

    @property
    def key(self) -> str:
        """A canonical name: equal values, equal keys."""
        return json.dumps(self.values, sort_keys=True)


@dataclass(frozen=True)
class Trial:
    """A point of a sweep that has been scored: `objective` is higher for better, on `choose_on`."""

    point: Point
    objective: float


@dataclass(frozen=True)
class Step:
    """One node of the plan. `id` is the content hash of everything that changes its outcome; `name` is not in it.

    kind        source, data, contamination, mixture, train, merge, export, evaluate, diagnose, advise, report
    component   the component that does it, "" for what mixmerge does itself
    parameters  the component's: validated, defaults filled in, JSON-like
    content     what the step is about beyond them: a source, shares, tasks, weights; JSON-like
    inputs      role to step ids
    pins        facts from outside that change the outcome: a revision, a sha256, a version
    """

    id: str
    kind: str
    name: str
    component: str = ""
    version: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """What a finished step left: its outcome and where it came from. Times are Unix seconds, sizes bytes."""

    step: Step
    started: float
    finished: float
    host: str
    versions: Mapping[str, str]
    outcome: Mapping[str, Any]
    bytes: int = 0


@dataclass(frozen=True)
class Row:
    """One line of the results table: a Score with its model. `settings` are the swept values for a merge."""

    model: str
    kind: Kind
    task: str
    metric: str
    value: float
    stderr: float | None
    n: int
    k: int | None = None
    higher_is_better: bool = True
    primary: bool = False
    samples: tuple[float, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    record: str = ""


@dataclass(frozen=True)
class Model:
    """One model of the experiment as the results know it.

    method     "linear", "ties" …, "" for what is no merge;  weights: in the order of `experts`
    tasks      for an expert: the datasets it was trained on
    training   what the trainer returned (steps, tokens, loss, lr, …), {} for what was not trained here
    """

    name: str
    kind: Kind
    id: str
    group: str = ""
    method: str = ""
    weights: tuple[float, ...] = ()
    experts: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, int] = field(default_factory=dict)
    training: Mapping[str, float] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Overlap:
    """What one training dataset shares with one evaluation set: rule ("id", "solution", "13-gram", "10-gram") to
    (rows of the training data, documents of the evaluation set). `rows` and `documents` are how many there are."""

    data: str
    task: str
    rows: int
    documents: int
    found: Mapping[str, tuple[int, int]]
    record: str = ""


@dataclass(frozen=True)
class Results:
    """Everything an advisor or a reporter may look at: tidy rows, models, measurements, and where they come from.

    choose_on, report_on   task names; winners are chosen on the first and compared on the second
    also_on                task names that are shown beside them and decide nothing
    winners                merge group to the name of the winning merge, chosen on `choose_on` alone
    advice                 filled in for reporters, empty for advisors
    overlaps               every training dataset with every evaluation set whose documents could be had
    provenance             the recipe's name and text, versions, host, started, finished, notes (facts that a table
                           must carry, such as "near duplicates removed: 7")
    """

    name: str
    rows: Sequence[Row]
    models: Sequence[Model]
    measurements: Sequence[Measurement] = ()
    choose_on: tuple[str, ...] = ()
    report_on: tuple[str, ...] = ()
    also_on: tuple[str, ...] = ()
    winners: Mapping[str, str] = field(default_factory=dict)
    advice: Sequence[Advice] = ()
    records: Sequence[Record] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    overlaps: Sequence[Overlap] = ()
