"""The frozen values that plugin authors touch. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .errors import CheckpointError, PluginError

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
    file name to text. Where settings differ between tensors, `vary` gives the derivation that holds for one, by name.
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
    vary: Callable[[str], Derivation] | None = None


@dataclass(frozen=True)
class Tokens:
    """A model's rows in the order of another vocabulary.

    rows     for each token of it the model's own row, -1 where it has none
    lent     for those, by token, the rows that stand for it: (place in `lenders`, row), of which the mean is taken
    lenders  directories of the models that lend
    """

    rows: tuple[int, ...]
    lent: Mapping[int, tuple[tuple[int, int], ...]] = field(repr=False)
    lenders: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How stored weights are read as another model's.

    adapter  a directory with a LoRA adapter (PEFT's layout) that is added to the weights, in float32
    layers   for each layer, the stored layer that stands there; None: all, in order
    tokens   its rows of the embeddings and the head in the order of another vocabulary
    """

    adapter: Path | None = None
    layers: tuple[int, ...] | None = None
    tokens: Tokens | None = None


@dataclass(frozen=True)
class Dataset:
    """Data that was trained on: its name in the recipe, where it came from, its licence as that states it ("unknown" or
    "" where it states none), and how many rows were used (in Results: how many there are)."""

    name: str
    source: str
    licence: str
    rows: int


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
    `mixmerge.tensors(checkpoint)` streams the weights of either. `licence` is that of the model that it is or started
    from, `data` what it was trained on here, itself or through its experts. `reading` is for stored ones: an adapter on
    top, layers in another order.
    `kind` and `training` are what diagnostics are told.
    """

    name: str
    path: Path
    id: str
    derivation: Derivation | None = None
    licence: str = ""
    data: tuple[Dataset, ...] = ()
    reading: Reading | None = None
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


Statistic = Callable[["TensorStack"], Any]
"""A function of a stack: defined once at module level, or a `functools.partial` of such a function, so that two parts
of a sweep that ask for the same can be told to."""

Extent = Literal["part", "tensor", "model"]


class Surroundings(Protocol):
    """What lies around a part of a tensor; mixmerge gives it, and `TensorStack` asks it."""

    def total(self, statistic: Statistic, over: Extent, before: bool) -> torch.Tensor: ...
    def once(self, function: Statistic, stack: TensorStack, per: Extent) -> Any: ...


@dataclass(frozen=True)
class TensorStack:
    """One tensor of the base with the same tensor of every expert, as mergers and diagnostics see it; for functions
    that are `@rowwise`, some rows of it.

    name      the tensor's name in the checkpoint
    base      float32 (*shape)
    deltas    float32 (experts, *shape): expert minus base
    weights   float32 (experts, 1, …), broadcastable against `deltas`
    experts   the experts' ids, in the order of `deltas`
    seed      of the step; `draws(i)` and `generator(i)` depend on it, on expert i's id and on `name`, on nothing else
    start     index along the first dimension of the first row that is here; 0 when the whole tensor is
    whole     whether the whole tensor is here
    stored    base and experts as they lie on disk, before they became float32 (empty where there is no disk); read when
              it is asked for, so that a method that needs no base reads none
    dtype     what the result is stored in ("bfloat16"): a merger may round to it itself, or leave it in float32
    """

    name: str
    base: torch.Tensor
    deltas: torch.Tensor
    weights: torch.Tensor
    experts: tuple[str, ...]
    seed: int = 0
    start: int = 0
    whole: bool = True
    stored: Sequence[torch.Tensor] = ()
    dtype: str = "float32"
    around: Surroundings | None = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of `base`, and of each of `deltas`."""
        return tuple(self.base.shape)

    @property
    def expert_weights(self) -> tuple[torch.Tensor, ...]:
        """The experts themselves, (*shape) each: as they are stored where `deltas` are theirs, in the dtype that they
        have there; otherwise base + deltas in float32."""
        return tuple(self.base + delta for delta in self.deltas)

    def generator(self, expert: int) -> torch.Generator:
        """A CPU random generator for one expert's part of this tensor: the same in any order, thread or machine.

        Only where the whole tensor is here; in a function that is `@rowwise`, `draws` and `chosen` take its place.
        """
        import torch

        if not self.whole:
            hint = "use t.draws(i) or t.chosen(i, probability)"
            raise PluginError(f"t.generator in a function that is rowwise, at {self.name}", hint=hint)
        return torch.Generator().manual_seed(int.from_bytes(self._digest(expert)[:8], "big") >> 1)

    def draws(self, expert: int) -> torch.Tensor:
        """uint16 (*shape): a number from 0 to 65535 for every element, all equally likely.

        Comes from a counter (`mixmerge.compiled.draws`), so that an element gets the same number however its tensor is
        cut into parts.
        """
        import torch

        from .compiled import draws

        width = math.prod(self.shape[1:])
        found = draws(self._digest(expert)[:16], self.start * width, math.prod(self.shape))
        return torch.from_numpy(found).reshape(self.shape)

    def chosen(self, expert: int, probability: float) -> torch.Tensor:
        """bool (*shape): every element is true with `probability`, taken to the nearest multiple of 1/65536."""
        import torch

        limit = round(probability * 65536)
        if not 0 < limit < 65536:
            return torch.full(self.shape, limit > 0, dtype=torch.bool)
        return torch.from_numpy(self.draws(expert).reshape(-1).numpy() < limit).reshape(self.shape)

    def total(self, statistic: Statistic, over: Extent = "tensor") -> torch.Tensor:
        """The sum of `statistic(part)` over all parts of this tensor, or of the model's; computed once for a sweep.

        A statistic gives a tensor of any shape and may not look at the weights. Where the whole tensor is here it is
        `statistic(self)`.
        """
        if self.around:
            return self.around.total(statistic, over, before=False)
        self._alone(over)
        found: torch.Tensor = statistic(self)
        return found

    def before(self, statistic: Statistic, over: Extent = "tensor") -> torch.Tensor:
        """The sum of `statistic(part)` over the parts that come before this one; tensors come in sorted order."""
        if self.around:
            return self.around.total(statistic, over, before=True)
        self._alone(over)
        found: torch.Tensor = statistic(self)
        return found - found

    def once(self, function: Statistic, per: Extent = "part") -> Any:
        """`function(self)`, computed once for this part (or tensor, or model) whichever point of a sweep asks first.

        What it gives for a part is kept while the part is worked on; bool tensors are kept, one bit for each value,
        until the tensor is done, so that a mask that a total needed is not drawn again.
        """
        return self.around.once(function, self, per) if self.around else function(self)

    def with_deltas(self, deltas: torch.Tensor) -> TensorStack:
        """The same stack with other deltas of the same shape; it no longer knows what lies around it."""
        return replace(self, deltas=deltas, stored=(), around=None)

    def _digest(self, expert: int) -> bytes:
        return hashlib.sha256(f"{self.seed}/{self.experts[expert]}/{self.name}".encode()).digest()

    def _alone(self, over: Extent) -> None:
        if over == "model" or not self.whole:
            raise CheckpointError(
                f"{self.name}: a total over the {over} needs all of it", hint="ask the stack as it came"
            )


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

    kind        source, data, contamination, mixture, train, merge, export, evaluate, diagnose, record, advise, report
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
