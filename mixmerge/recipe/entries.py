"""What a recipe says, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .. import contamination, recorded, sources
from ..reading import Use
from ..types import Kind


@dataclass(frozen=True)
class ModelEntry:
    """`base:` or an entry of `models:`: where a model comes from."""

    source: str
    revision: str | None = None
    kind: Kind = "base"
    data: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainEntry:
    """An entry of `train:`.

    shares    dataset to `None` (`all`: every row) or its share of the mixture, in `unit`; shares add up to 1
    fraction  of each dataset, taken before mixing; subsets are nested: 25 % lies within 50 %
    """

    shares: Mapping[str, float | None]
    unit: Literal["examples", "tokens"]
    fraction: float
    trainer: Use
    seed: int
    kind: Kind


@dataclass(frozen=True)
class MergeEntry:
    """An entry of `merge:`. `space` holds every swept key with its values; `fixed` the others."""

    experts: tuple[str, ...]
    space: Mapping[str, Sequence[Any]]
    fixed: Mapping[str, Any]
    strategy: Use
    keep: Literal["winner", "best_of_each_method", "all", "none"]
    seed: int


@dataclass(frozen=True)
class EvalEntry:
    """`eval:`.

    choose_on  tasks that winners are chosen on: every model is scored on them, every merge too
    report_on  tasks that the answer is given on: base, experts, mixtures and the best merge of each method
    also_on    tasks that are shown beside them (such as held-out loss) and decide nothing; the same models
    pins       key of `eval:` to the content of its tasks, as the evaluator's `pins` gives it
    """

    evaluator: Use
    choose_on: tuple[str, ...]
    report_on: tuple[str, ...]
    also_on: tuple[str, ...]
    pins: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class GateEntry:
    """`contamination:`: what becomes of training rows that share something with an evaluation set.

    policy  fail: nothing is trained; drop: those rows are left out; warn: the report says so
    rules   that fail and drop go by; all are counted
    """

    policy: Literal["fail", "drop", "warn"] = "warn"
    rules: tuple[str, ...] = contamination.ACTING


@dataclass(frozen=True)
class RecordedEntry:
    """`results:`, with the tasks that `eval` names: all of them unless it does."""

    tables: tuple[recorded.RecordedTable, ...]
    choose_on: tuple[str, ...]
    report_on: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """A whole recipe, validated. `name` is the file's stem, `text` the file."""

    name: str
    path: Path
    text: str
    base: ModelEntry
    seed: int
    data: Mapping[str, sources.DataSpec] = field(default_factory=dict)
    models: Mapping[str, ModelEntry] = field(default_factory=dict)
    train: Mapping[str, TrainEntry] = field(default_factory=dict)
    merge: Mapping[str, MergeEntry] = field(default_factory=dict)
    eval: EvalEntry | None = None
    diagnose: tuple[Use, ...] = ()
    advise: tuple[Use, ...] = ()
    report: tuple[Use, ...] = ()
    contamination: GateEntry = GateEntry()
    recorded: RecordedEntry | None = None
