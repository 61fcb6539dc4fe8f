"""The evaluator `bigcode`: tasks of bigcode-evaluation-harness, run by its own main.py where a user has it."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mixmerge import Checkpoint, Component, MixmergeError, Score, SourceError, evaluator, hookimpl, progress

from . import _bigcode_harness as harness

_ZERO_OR_ONE = re.compile(r"pass@?1\b|accuracy|exact match", re.IGNORECASE)
"""Metrics whose value for one sample is 0 or 1."""
_LOWER_IS_BETTER = re.compile(r"fail|error|timeout", re.IGNORECASE)
_TOTAL = "all"
"""A group that the harness adds itself, over the others."""


def pins(tasks: Sequence[str], parameters: Mapping[str, Any]) -> dict[str, str]:
    """A digest of the harness for each task, and the versions that it runs with.

    Raises SourceError where the harness is absent, a name is unknown, or a task executes code and the recipe does not
    say `allow_code_execution: true`.
    """
    found = harness.find(parameters.get("path"), parameters.get("python"))
    for task in tasks:
        if task not in found.executes:
            close = difflib.get_close_matches(task, found.executes, 3, 0.5)
            hint = f"did you mean {', '.join(close)}? " if close else ""
            hint += f"{found.folder / 'bigcode_eval' / 'tasks'} has {len(found.executes)} tasks; patterns are not taken"
            raise SourceError(f"bigcode: no task is called {task!r}", hint=hint)
        if found.executes[task] and not parameters.get("allow_code_execution"):
            hint = "`allow_code_execution: true`; `mixmerge show bigcode` says how it is executed"
            raise SourceError(f"bigcode: {task} executes what the model writes", hint=hint)
    versions = {f":{name}": version for name, version in found.versions.items()}
    return dict.fromkeys(tasks, f"sha256:{found.digest()}") | versions


def check(**given: Any) -> str:
    """What transformers would refuse after the model is loaded, and what the harness cannot give."""
    if given["do_sample"] and given["temperature"] == 0:
        return "temperature 0 is no sampling: say `do_sample: false`"
    if not given["do_sample"] and (given["n_samples"] > 1 or given["batch_size"] > 1):
        return "without sampling all answers are the same: n_samples and batch_size must be 1"
    return _refusal() if given["allow_code_execution"] else ""


def _refusal() -> str:
    """Its programs decide their own verdicts and read the disk, so that no level of isolation can be promised."""
    required = os.environ.get("MIXMERGE_REQUIRE_ISOLATION", "0")
    if required in ("", "0"):
        return ""
    return f"isolation of level {required} is required, and this harness executes programs at level 0"


@evaluator(
    name="bigcode",
    version="1",
    source=f"bigcode-evaluation-harness, {harness.REPOSITORY}",
    pins=pins,
    check=check,
    speed=("path", "python"),
)
def evaluate(
    checkpoint: Checkpoint,
    tasks: Sequence[str],
    out: Path,
    seed: int,
    /,
    *,
    n_samples: Annotated[int, Field(ge=1)] = 1,
    do_sample: bool = True,
    temperature: Annotated[float, Field(ge=0)] = 0.2,
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95,
    top_k: Annotated[int, Field(ge=0)] = 0,
    max_length_generation: Annotated[int, Field(ge=1)] = 512,
    batch_size: Annotated[int, Field(ge=1)] = 1,
    precision: Literal["fp32", "fp16", "bf16"] = "fp32",
    modeltype: Literal["causal", "seq2seq"] = "causal",
    limit: Annotated[int, Field(ge=1)] | None = None,
    prefix: str = "",
    prompt: str = "prompt",
    instruction_tokens: str | None = None,
    load_data_path: str | None = None,
    left_padding: bool = False,
    allow_code_execution: bool = False,
    processes: Annotated[int, Field(ge=1)] = 1,
    path: str | None = None,
    python: str | None = None,
) -> Sequence[Score]:
    """Score a model on tasks of bigcode-evaluation-harness, with its own code.

    Parameters have its names, meaning and defaults: `max_length_generation` counts the tokens of prompt and answer,
    `batch_size` is how many answers to one prompt are sampled at once, `prompt` is for HumanEvalPack. Beside them,
    `processes` are accelerate's, `path` is a clone of the harness (else $MIXMERGE_BIGCODE, else an editable
    installation) and `python` the interpreter that has what it needs (else this one).

    Most tasks execute what the model wrote, and need `allow_code_execution: true`. The harness executes it in its own
    way, which is no sandbox: programs are judged by what they do in the very process of their tests, and read and
    write what you may. We first generate, with the model and without executing anything. Then we let it score in a
    process without model, tokens or keys, and, where `unshare` works, without network and with processes of its own,
    which all end with it. `results.json` says what held. That is level 0; mixmerge's own `mm_` tasks do better.

    A merge is written for it and removed afterwards. The harness takes its data from the hub as it finds it, and gives
    a metric for a task and no verdicts: n is the number of problems, and models cannot be paired by sample. With one
    answer to a problem, k and the standard error of pass@1 and accuracies follow from n. Where a task only gives a
    metric for each of several groups, GROUP/METRIC, their mean stands beside them as METRIC.

    Left in `out`: `generations_TASK.json` and `metrics_TASK.json` as the harness writes them, and `results.json`.
    Raises SourceError where the harness is absent, StepError when it fails.
    """
    if allow_code_execution and (refusal := _refusal()):
        raise MixmergeError(f"bigcode: {refusal}", hint="mixmerge's `mm_` tasks execute in its sandbox")
    found = harness.find(path, python)
    options = {
        **{"n_samples": n_samples, "do_sample": do_sample, "temperature": temperature, "top_p": top_p, "top_k": top_k},
        **{"max_length_generation": max_length_generation, "batch_size": batch_size, "precision": precision},
        **{"modeltype": modeltype, "limit": limit, "prefix": prefix, "prompt": prompt, "seed": seed},
        **{"instruction_tokens": instruction_tokens, "load_data_path": load_data_path, "left_padding": left_padding},
    }
    from mixmerge.checkpoint import as_directory

    out = out.absolute()
    progress(out, 0, 1 + len(tasks), "generating")
    with as_directory(checkpoint) as model:
        common = [f"--model={model.absolute()}", *_flags(options)]
        written = f"--save_generations_path={out / 'generations.json'}"
        generate = ["--generation_only", "--save_generations", written]
        found.generate([*common, f"--tasks={','.join(tasks)}", *generate], processes)
    results: dict[str, Any] = {}
    for done, task in enumerate(tasks, 1):
        progress(out, done, 1 + len(tasks), f"scoring {task}")
        loaded, metrics = out / f"generations_{task}.json", out / f"metrics_{task}.json"
        arguments = [f"--tasks={task}", f"--load_generations_path={loaded}", f"--metric_output_path={metrics}"]
        allowed = ["--allow_code_execution"] if found.executes[task] and allow_code_execution else []
        found.score([*common, *arguments, *allowed], bool(allowed))
        results[task] = json.loads(metrics.read_text(encoding="utf-8"))[task]
    _keep(out, results, options, found)
    return [score for task in tasks for score in scores(task, results[task], _generations(out, task))]


def _flags(options: Mapping[str, Any]) -> list[str]:
    """The command line for parameters; what is None, or a flag that is not set, is left out."""
    found = []
    for name, value in options.items():
        if name == "left_padding":
            found += ["--left_padding"] if value else []
        elif value is not None:
            found.append(f"--{name}={value}")
    return found


def _keep(out: Path, results: Mapping[str, Any], options: Mapping[str, Any], found: harness.Harness) -> None:
    executed = [task for task in results if found.executes[task]]
    isolation = {"level": 0, "layers": harness.isolation()[1], "verdict_by": "in-process", "tasks": executed}
    whole = {
        "results": results,
        "config": dict(options),
        "harness": {"sha256": found.digest(), "versions": found.versions},
        "isolation": isolation if executed else None,
    }
    (out / "results.json").write_text(json.dumps(whole, ensure_ascii=False, indent=2), encoding="utf-8")


def _generations(out: Path, task: str) -> list[list[str]]:
    found: list[list[str]] = json.loads((out / f"generations_{task}.json").read_text(encoding="utf-8"))
    return found


# -- from its metrics to scores ---------------------------------------------------------------------------------


def scores(task: str, metrics: object, generations: Sequence[Sequence[str]]) -> list[Score]:
    """What the harness says of a task, figure by figure. `generations` holds the answers to each problem."""
    problems, answers = len(generations), len(generations[0])
    figures = dict(_figures(metrics))
    groups = {name.rpartition("/")[0] for name in figures} - {"", _TOTAL}
    means = {} if any("/" not in name for name in figures if "num_" not in name) else _means(figures, groups)
    ordered = {**means, **figures}
    primary = next((name for name in ordered if _ZERO_OR_ONE.search(name)), next(iter(ordered), ""))
    found = []
    for name, value in ordered.items():
        one_problem = name.rpartition("/")[0] in groups and len(groups) == problems
        n = answers if one_problem else problems
        counted = _ZERO_OR_ONE.search(name) and (answers == 1 or one_problem)
        k = round(value * n) if counted and math.isclose(value * n, round(value * n), abs_tol=1e-6) else None
        found.append(
            Score(
                task=task,
                metric=name,
                value=value,
                n=n,
                stderr=None if k is None or n < 2 else math.sqrt(value * (1 - value) / (n - 1)),
                k=k,
                higher_is_better=not _LOWER_IS_BETTER.search(name),
                primary=name == primary,
            )
        )
    return found


def _figures(metrics: object, within: str = "") -> Iterator[tuple[str, float]]:
    """Every number, by its path: {"1 bugs": {"pass@1": 0.5}} is ("1 bugs/pass@1", 0.5). Lists of records, as
    [{"group": "First Success", "pass1": 0.5}], by the texts in them; other lists, texts and NaN are left out."""
    if isinstance(metrics, Mapping):
        for name, value in metrics.items():
            yield from _figures(value, f"{within}/{name}" if within else str(name))
    elif isinstance(metrics, list):
        for record in (record for record in metrics if isinstance(record, Mapping)):
            named = "/".join([within] * bool(within) + [value for value in record.values() if isinstance(value, str)])
            yield from _figures(record, named)
    elif isinstance(metrics, int | float) and not isinstance(metrics, bool) and math.isfinite(metrics):
        yield within, float(metrics)


def _means(figures: Mapping[str, float], groups: set[str]) -> dict[str, float]:
    """The mean over all groups of each metric that every one of them has."""
    metrics = dict.fromkeys(name.rpartition("/")[2] for name in figures if name.rpartition("/")[0] in groups)
    found = {}
    for metric in metrics:
        values = [figures[f"{group}/{metric}"] for group in groups if f"{group}/{metric}" in figures]
        if len(values) == len(groups):
            found[metric] = math.fsum(values) / len(values)
    return found


@hookimpl
def register_evaluators() -> Sequence[Component]:
    return [evaluate]
