"""Models and data: stored checkpoints, derived ones, and what they were trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .stack import TensorStack

if TYPE_CHECKING:
    import torch


Kind = Literal["base", "expert", "mixture", "merge", "model", "reference"]
"""What a row of the results is: `model` came in through `models:`, `reference` is a trivial baseline of a task."""


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
