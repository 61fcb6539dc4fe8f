"""Results as rows: what reporters and advisors are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .models import Dataset, Kind
from .scores import Advice, Measurement
from .steps import Record


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
    licences   of its base and of all data in it, by name; those of a merge are its base's and its experts'
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
class Doubt:
    """One thing that recorded figures do not support.

    kind       "average", "change", "sign", "reference", "count", "identical", "quoted", "source"; see `results.audit`
    place      where it stands: "results.csv:12"
    subject    the model that it is about, or two of them
    text       what is wrong, as a sentence without its full stop
    printed    the figure in doubt; `computed` what follows from the others: None where there is no such figure
    """

    kind: str
    place: str
    experiment: str
    table: str
    subject: str
    text: str
    printed: float | None = None
    computed: float | None = None


@dataclass(frozen=True)
class Written:
    """What one model wrote for one sample: `value` is the sample's primary metric, `verdict` what a judge said beyond
    it ("timeout"), "" for nothing. `record` is the step that scored it."""

    model: str
    text: str
    value: float
    verdict: str = ""
    record: str = ""


@dataclass(frozen=True)
class Sample:
    """One sample of a task with what several models wrote for it.

    name    the document's own id, else its number
    why     why this one is shown: "della 0.6/0.4 does better than mixed"
    target  the reference, "" where there is none;  answers: in the order of the models
    """

    task: str
    metric: str
    name: str
    why: str
    prompt: str
    target: str
    answers: tuple[Written, ...]


@dataclass(frozen=True)
class Results:
    """Everything an advisor or a reporter may look at: tidy rows, models, measurements, and where they come from.

    choose_on, report_on   task names; winners are chosen on the first and compared on the second
    also_on                task names that are shown beside them and decide nothing
    winners                merge group to the name of the winning merge, chosen on `choose_on` alone
    advice                 filled in for reporters, empty for advisors
    datasets               every dataset of the recipe that was trained on
    overlaps               every training dataset with every evaluation set whose documents could be had
    provenance             the recipe's name and text, versions, host, started, finished, notes (facts that a table
                           must carry, such as "near duplicates removed: 7")
    parts                  the experiments of a recipe of recorded results, each with its own advice; such a recipe has
                           no rows beside theirs
    doubts                 what recorded figures do not support
    samples                a few samples with what the models wrote; for reporters, as `advice`
    kept                   names of the merges that are written, with their model cards
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
    datasets: Sequence[Dataset] = ()
    parts: Sequence[Results] = ()
    doubts: Sequence[Doubt] = ()
    samples: Sequence[Sample] = ()
    kept: tuple[str, ...] = ()
