"""Steps of a plan, points of a sweep, and what a finished step leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def content_id(value: object) -> str:
    """A 16-digit hexadecimal name for a JSON-like value: equal values, equal names, on any machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
