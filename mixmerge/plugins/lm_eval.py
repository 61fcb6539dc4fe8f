"""The evaluator `lm_eval`: any task and any model backend of lm-evaluation-harness, in this process."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mixmerge import Checkpoint, Component, MixmergeError, Score, evaluator, hookimpl, progress

from ._lm_eval_asking import asked
from ._lm_eval_contents import contents, task_manager
from ._lm_eval_tasks import all_ours, folders, known_tasks, pins

__all__ = ["contents", "evaluate", "known_tasks", "pins"]

_GRADED = re.compile(r"bleu|chrf|rouge|meteor|ter\b|f1|bits|perplexity|.*_perplexity")
"""Metrics that are no counts, though every sample of a bad model may have 0."""
_BOOTSTRAPS = 1000
"""Resamples for the standard error of a metric that is no mean; lm-eval takes 100000, in minutes."""


@evaluator(
    name="lm_eval",
    version="3",  # 2: other greedy texts on a processor where bfloat16 rounds to a tie; 3: softmax in float32
    source="EleutherAI lm-evaluation-harness, https://github.com/EleutherAI/lm-evaluation-harness",
    pins=pins,
    tasks=known_tasks,
    contents=contents,
)
def evaluate(
    checkpoint: Checkpoint,
    tasks: Sequence[str],
    out: Path,
    seed: int,
    /,
    *,
    model: str = "hf",
    model_args: dict[str, Any] | None = None,
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto",
    batch_size: Annotated[int, Field(ge=1)] = 8,
    max_length: Annotated[int, Field(ge=1)] | None = None,
    num_fewshot: Annotated[int, Field(ge=0)] | None = None,
    limit: Annotated[int, Field(ge=1)] | None = None,
    apply_chat_template: bool = False,
    system_instruction: str | None = None,
    gen_kwargs: dict[str, Any] | None = None,
    include_path: str | None = None,
) -> Sequence[Score]:
    """Score a model on tasks of lm-evaluation-harness and of mixmerge's `tasks/`.

    Parameters have lm-eval's names and meaning: `model` is a backend (hf, vllm, ...), `model_args` its arguments,
    `limit` the first so many documents of each task, `include_path` one more folder with tasks.

    With `hf` one loaded model serves every checkpoint: weights are poured in place, derived checkpoints never written.
    Another backend reads a directory, so a derived checkpoint is written for it and removed afterwards.

    Scores are lm-eval's values, but for one default: with `hf` probabilities are computed in float32, where the model's
    own bfloat16 ties losses that differ by half a percent (`model_args: {softmax_dtype: bfloat16}` gives those). The
    standard error of a mean is the samples' standard deviation (n - 1) / sqrt(n), lm-eval's bootstrap otherwise. A
    metric METRIC@REFERENCE, beside METRIC in the same task, is the score of a trivial baseline. Left in `out`:
    `results.json` in lm-eval's layout, and `samples_TASK.jsonl`.
    """
    from ._lm_eval_model import Settings

    progress(out, 0, 1, "loading")
    settings = Settings(dtype, batch_size, max_length, model_args or {})
    manager = task_manager(folders(include_path), not all_ours(tasks, include_path))
    options = {
        "num_fewshot": num_fewshot,
        "limit": limit,
        "apply_chat_template": apply_chat_template,
        "system_instruction": system_instruction,
        "gen_kwargs": gen_kwargs,
    }
    with _loaded(checkpoint, model, settings, out) as loaded:
        results = _simple_evaluate(loaded, tasks, manager, seed, options)
    results["config"] |= {
        "model": model,
        "model_args": str(settings.arguments(checkpoint.path)),
        "batch_size": batch_size,
    }
    _keep(results, out)
    return scores(results, checkpoint.path, apply_chat_template)


@contextlib.contextmanager
def _loaded(checkpoint: Checkpoint, backend: str, settings: Any, out: Path) -> Iterator[Any]:
    """An lm-eval model with the checkpoint's weights."""
    from ._lm_eval_model import hf_model, release

    if backend in ("hf", "huggingface", "hf-auto"):
        with _making(backend):
            loaded = hf_model(checkpoint, settings)
        loaded.out = out
        yield loaded
        return
    from mixmerge.checkpoint import as_directory

    release()
    with as_directory(checkpoint) as path:
        with _making(backend):
            loaded = _backend(backend).create_from_arg_obj(settings.arguments(path), {})
        yield loaded
        del loaded
        gc.collect()


@contextlib.contextmanager
def _making(backend: str) -> Iterator[None]:
    try:
        yield
    except TypeError as error:
        hint = "model_args go to the backend as they are, beside pretrained, dtype and batch_size"
        raise MixmergeError(f"lm_eval: model {backend!r} cannot be made: {error}", hint=hint) from error


def _backend(name: str) -> Any:
    from lm_eval.api.registry import get_model

    try:
        return get_model(name)
    except (KeyError, ValueError, ImportError, ModuleNotFoundError) as error:
        raise MixmergeError(
            f"lm_eval: model {name!r} is not to be had: {str(error).splitlines()[0]}",
            hint="`lm_eval run --help` names the backends; some need an extra, such as lm_eval[vllm]",
        ) from error


def _simple_evaluate(
    loaded: Any, tasks: Sequence[str], manager: Any, seed: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    import lm_eval
    from torch.utils import collect_env

    # lm-eval describes the host in every result, which takes seconds, and it is the same host
    collect_env.get_pretty_env_info = _once(collect_env.get_pretty_env_info)
    try:
        results = lm_eval.simple_evaluate(
            model=loaded,
            tasks=list(tasks),
            task_manager=manager,
            log_samples=True,
            bootstrap_iters=_BOOTSTRAPS,
            random_seed=seed,
            numpy_random_seed=seed % 2**32,  # the most that numpy takes
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            **options,
        )
    except ValueError as error:
        if "marked as unsafe" not in str(error):
            raise
        hint = "mixmerge executes generated programs only in its sandbox: take a task of `mixmerge tasks`"
        raise MixmergeError(f"lm_eval: {error}", hint=hint) from error
    return dict(results)


def _once(function: Any) -> Any:
    return function if hasattr(function, "cache_clear") else cache(function)


def _keep(results: Mapping[str, Any], out: Path) -> None:
    from lm_eval.utils import handle_non_serializable

    for task, samples in results["samples"].items():
        with open(out / f"samples_{task}.jsonl", "w", encoding="utf-8") as file:
            for sample in samples:
                file.write(json.dumps(sample, default=handle_non_serializable, ensure_ascii=False) + "\n")
    whole = {name: value for name, value in results.items() if name != "samples"}
    text = json.dumps(whole, default=handle_non_serializable, ensure_ascii=False, indent=2)
    (out / "results.json").write_text(text, encoding="utf-8")


def scores(results: Mapping[str, Any], model: Path, chat: bool) -> list[Score]:
    """lm-eval's results as Scores, task by task; groups stand in them with their tasks only."""
    return [score for task in results["samples"] for score in _task_scores(results, task, model, chat)]


def _task_scores(results: Mapping[str, Any], task: str, model: Path, chat: bool) -> Iterator[Score]:
    how = asked(model, results["configs"][task], chat)
    config = results["configs"][task]
    values: Mapping[str, Any] = results["results"][task]
    filters = list(dict.fromkeys(sample["filter"] for sample in results["samples"][task]))
    named = [metric["metric"] for metric in config.get("metric_list") or []]
    present = [
        key.rpartition(",")[::2] for key in values if "," in key and not key.rpartition(",")[0].endswith("_stderr")
    ]
    metrics = list(dict.fromkeys(metric for metric, _ in present))
    primary = (config.get("metadata") or {}).get("primary") or next((m for m in named if m in metrics), metrics[0])
    for metric, filter_name in present:
        value = values[f"{metric},{filter_name}"]
        if not isinstance(value, int | float):
            continue
        first = filter_name == filters[0]
        base, _, reference = metric.rpartition("@")
        if base not in metrics:  # such as pass@1, whose pass is no metric of its own
            base, reference = metric, ""
        samples = [sample for sample in results["samples"][task] if sample["filter"] == filter_name]
        each = _per_sample([sample.get(metric) for sample in samples], float(value))
        yield Score(
            task=task,
            metric=base if first else f"{base},{filter_name}",
            value=float(value),
            n=len(samples),
            stderr=_stderr(each, values.get(f"{metric}_stderr,{filter_name}")),
            samples=each,
            k=int(sum(each)) if each and set(each) <= {0.0, 1.0} and not _GRADED.match(metric) else None,
            higher_is_better=bool(results["higher_is_better"][task].get(metric, True)),
            primary=first and metric == primary,
            reference=reference,
            asked=how,
        )


def _per_sample(found: Sequence[object], value: float) -> tuple[float, ...]:
    """The metric of each sample, () when they are no numbers or `value` is not their mean."""
    each = tuple(float(sample) for sample in found if isinstance(sample, int | float))
    if len(each) < len(found) or not each:
        return ()
    return each if math.isclose(statistics.fmean(each), value, rel_tol=1e-6, abs_tol=1e-9) else ()


def _stderr(each: Sequence[float], bootstrapped: object) -> float | None:
    if len(each) > 1:
        return statistics.stdev(each) / math.sqrt(len(each))
    return float(bootstrapped) if isinstance(bootstrapped, int | float) and not each else None


@hookimpl
def register_evaluators() -> Sequence[Component]:
    return [evaluate]
