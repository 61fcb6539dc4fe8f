"""What a plan is: steps, models and their names, and what the scores have decided so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..reading import Use
from ..recipe import Recipe
from ..types import Kind, Step, Trial

VIRTUAL = "merge"
"""Steps of this kind are never run unless their merger needs whole checkpoints: they only say how weights follow."""


@dataclass(frozen=True)
class Decision:
    """What the scores on `choose_on` say about one merge group so far."""

    trials: tuple[Trial, ...] = ()
    winner: str = ""
    by_method: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedModel:
    """A model of the experiment: `step` gives its weights, `train` its training step ("" when it was not trained)."""

    name: str
    kind: Kind
    step: str
    train: str = ""
    group: str = ""
    method: str = ""
    weights: tuple[float, ...] = ()
    experts: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """`steps` in an order in which they can run; `later` says in words what the next build will add.

    models       every model with its names; evaluations: (model, "choose_on" or "report_on", step)
    exports      merge to the step that writes it, for what `keep` says
    gates        steps before which nothing is mixed, trained or scored: `contamination: fail`
    manifest     the names and ids that Results are collected from, JSON-like: what advice and report depend on
    """

    recipe: Recipe
    steps: Mapping[str, Step]
    models: tuple[PlannedModel, ...]
    evaluations: tuple[tuple[str, str, str], ...]
    exports: Mapping[str, str]
    datasets: Mapping[str, str]
    manifest: Mapping[str, Any]
    later: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()

    @property
    def runnable(self) -> list[Step]:
        return [step for step in self.steps.values() if not is_virtual(step)]

    def of_kind(self, kind: str) -> list[Step]:
        return [step for step in self.steps.values() if step.kind == kind]


def is_virtual(step: Step) -> bool:
    return step.kind == VIRTUAL and not step.content["whole"]


def plain(value: Any) -> Any:
    """JSON-like: uses as `{name: parameters}`, tuples as lists."""
    if isinstance(value, Use):
        return {value.name: plain(value.parameters)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
