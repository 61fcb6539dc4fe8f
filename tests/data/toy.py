"""A plugin for tests of the runner: a trainer that really changes weights and an evaluator that really reads them,
both in milliseconds. Nothing here stands in for a part of mixmerge."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixmerge import Checkpoint, Component, Document, MixmergeError, Mixture, Score, SourceError, evaluator, hookimpl, tensors, trainer

TASKS = ("gen_dev", "sum_dev", "gen_test", "sum_test")


@trainer(name="toy_train", version="1", speed=("sleep_s",))
def toy_train(
    start: Checkpoint, data: Mixture, out: Path, seed: int, /, *, step: float, sleep_s: float = 0.0, fail: bool = False
) -> Mapping[str, float]:
    """Move every weight by `step` in directions that the data decides."""
    import torch
    from safetensors.torch import save_file

    if counter := os.environ.get("TOY_COUNTER"):
        with open(counter, "a") as file:
            file.write("train\n")
    time.sleep(sleep_s)
    if fail:
        raise MixmergeError("loss is nan at step 3", hint="lower lr")
    text = hashlib.sha256(data.path.read_bytes()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(text[:7], "big") + seed)
    moved = {
        name: weight.float() + step * torch.randn(weight.shape, generator=generator) * weight.float().std()
        for name, weight in tensors(start)
    }
    for file in start.path.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copy(file, out / file.name)
    save_file(moved, out / "model.safetensors", {"format": "pt"})
    return {"loss": float(sum(weight.square().sum() for weight in moved.values())), "steps": 1.0, "lr": step}


def pins(tasks: Sequence[str], parameters: Mapping[str, object]) -> Mapping[str, str]:
    for task in tasks:
        if task not in TASKS:
            raise SourceError(f"no task is called {task!r}", hint=f"there is {', '.join(TASKS)}")
    return dict.fromkeys(tasks, "1")


@evaluator(name="toy_eval", version="1", pins=pins)
def toy_eval(
    model: Checkpoint, tasks: Sequence[str], out: Path, seed: int, /, *, samples: int = 30, limit: int | None = None
) -> Sequence[Score]:
    """A task is a direction in weight space; a sample is 1 when the model's weights lie on its right side."""
    samples = min(samples, limit or samples)
    import torch

    flat = torch.cat([weight.float().flatten() for _, weight in tensors(model)])
    scores = []
    for task in tasks:
        generator = torch.Generator().manual_seed(TASKS.index(task))
        sides = torch.randn(samples, 64, generator=generator) @ flat[:64]
        passed = tuple(float(side > 0) for side in sides)
        mean = sum(passed) / samples
        scores.append(
            Score(task, "pass@1", mean, samples, (mean * (1 - mean) / samples) ** 0.5, passed, int(sum(passed)), primary=True)
        )
    return scores


def contents(
    tasks: Sequence[str], /, *, documents: str | None = None
) -> Mapping[str, Sequence[Document] | str]:
    known = json.loads(Path(documents).read_text()) if documents else {}
    return {task: [Document(**one) for one in known[task]] if task in known else "not written down" for task in tasks}


@evaluator(name="toy_open_eval", version="1", pins=pins, contents=contents)
def toy_open_eval(
    model: Checkpoint,
    tasks: Sequence[str],
    out: Path,
    seed: int,
    /,
    *,
    samples: int = 30,
    documents: str | None = None,
) -> Sequence[Score]:
    """As `toy_eval`; `documents` is a JSON file with what the tasks hold."""
    return toy_eval.function(model, tasks, out, seed, samples=samples)


@hookimpl
def register_trainers() -> list[Component]:
    return [toy_train]


@hookimpl
def register_evaluators() -> list[Component]:
    return [toy_eval, toy_open_eval]
