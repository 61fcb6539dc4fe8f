"""`mixmerge diagnose`: what the weights say of models, without a recipe; a table, figures and JSON."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import checkpoint, sources
from .errors import MixmergeError
from .reading import Use
from .types import Checkpoint, Measurement, Training
from .work import observer

USUAL = ("l2", "correlation", "changed", "conflict")
_PARTS = ("layers", "embeddings", "head", "norm", "other", "all")
_DRAWN = {  # what is drawn by layer, and what it says beside the axis
    "l2_mean": "mean L2 distance of a layer's matrices",
    "rms": "RMS change of a parameter",
    "pearson": "Pearson correlation",
    "sign_agreement": "share moved in the same direction",
}


@dataclass(frozen=True)
class Diagnosis:
    """What was found. `models` is name to source, the base first; `notes` must be read with the numbers."""

    models: dict[str, str]
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def plain(self) -> dict[str, Any]:
        """JSON-like."""
        return {
            "models": self.models,
            "seconds": round(self.seconds, 2),
            "notes": list(self.notes),
            "measurements": [asdict(one) for one in self.measurements],
        }


def diagnose(
    base: str,
    experts: Sequence[str],
    diagnostics: Sequence[Use],
    *,
    same_task: Sequence[Sequence[str]] = (),
    place: Callable[[str], str] = checkpoint.layer_of,
    progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Measure `experts` against `base`, each a directory or another source of a model, in one pass over their files.

    `same_task`: sets of experts, as given in `experts`, that are runs of one task with different seeds. Raises
    CheckpointError when a model does not fit the base, and SourceError when one is not there.
    """
    found = [sources.resolve_model(source).path for source in (base, *experts)]
    names = _names(["base", *(path.resolve().name for path in found[1:])])
    checkpoint.check_aligned(found[0], dict(zip(names[1:], found[1:], strict=True)))
    tasks = {source: f"task {index}" for index, members in enumerate(same_task) for source in members}
    if unknown := sorted(set(tasks) - set(experts)):
        raise MixmergeError(f"--same-task names {unknown[0]}, which is none of the experts", hint="write it as there")
    models = [
        Checkpoint(name, path, str(path), kind="expert", training=Training(task=tasks.get(source, "")))
        for name, path, source in zip(names[1:], found[1:], experts, strict=True)
    ]
    started = time.monotonic()
    observers = [observer(use.component, use.parameters, models) for use in diagnostics]
    origin = Checkpoint(names[0], found[0], str(found[0]), kind="base")
    measured = checkpoint.measure(origin, models, observers, place=place, progress=progress)
    took = time.monotonic() - started
    told = dict(zip(names, (base, *experts), strict=True))
    return Diagnosis(told, tuple(measured), tuple(checkpoint.notes(measured)), took)


def _names(names: Sequence[str]) -> list[str]:
    """The same names, those that are there twice with a number."""
    found: list[str] = []
    for name in names:
        number, wanted = 1, name
        while wanted in found:
            number += 1
            wanted = f"{name} {number}"
        found.append(wanted)
    return found


def table(found: Diagnosis) -> Iterator[str]:
    """Lines for a terminal: notes, then a block for each figure with a line per model or pair and a column per part."""
    yield from (f"note: {note}" for note in found.notes)
    for (diagnostic, metric), values in _by_metric(found.measurements).items():
        parts = [part for part in _PARTS if any(part in own for own in values.values())]
        singles = [] if parts else sorted({group for own in values.values() for group in own})
        rows = [["", *(parts or singles)]]
        for models, own in values.items():
            rows.append([" × ".join(models), *(_shown(own.get(part)) for part in parts or singles)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        yield f"\n{diagnostic}: {metric}"
        for first, *rest in rows:
            cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
            yield "  ".join([f"  {first:{widths[0]}}", *cells]).rstrip()


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


Values = dict[tuple[str, ...], dict[str, float]]


def _by_metric(measurements: Iterable[Measurement]) -> dict[tuple[str, str], Values]:
    """(diagnostic, metric) to models to group to value."""
    found: dict[tuple[str, str], Values] = {}
    for one in measurements:
        found.setdefault((one.diagnostic, one.metric), {}).setdefault(one.models, {})[one.group] = one.value
    return found


Draw = Callable[[str, str, Mapping[str, Sequence[tuple[int, float]]]], str]
"""From a figure's name, what stands along y, and a curve of (layer, value) for each label, to the text of an SVG."""


def write_figures(found: Diagnosis, out: Path, draw: Draw) -> list[Path]:
    """`measurements.csv` with every number, and an SVG with the curve of each model or pair over the layers."""
    out.mkdir(parents=True, exist_ok=True)
    numbers = out / "measurements.csv"
    with numbers.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("diagnostic", "metric", "group", "models", "value"))
        for one in found.measurements:
            writer.writerow((one.diagnostic, one.metric, one.group, " × ".join(one.models), one.value))
    written = [numbers]
    for (diagnostic, metric), values in _by_metric(found.measurements).items():
        curves = {" × ".join(models): _curve(own) for models, own in values.items()}
        if metric in _DRAWN and diagnostic in ("l2", "correlation") and any(curves.values()):
            written.append(out / f"{metric}.svg")
            written[-1].write_text(draw(metric, _DRAWN[metric], curves), encoding="utf-8")
    return written


def _curve(own: dict[str, float]) -> list[tuple[int, float]]:
    layers = ((group, value) for group, value in own.items() if group.startswith("layer "))
    return sorted((int(group.removeprefix("layer ")), value) for group, value in layers)
