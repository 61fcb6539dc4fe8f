"""What the documents of lm-eval tasks hold, for comparison with training data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mixmerge import Document
from mixmerge.sources import benchmark_id, source_name

from ._lm_eval_tasks import all_ours, folders

SOLUTIONS = ("canonical_solution", "code", "solution", "reference", "answer", "completion")
"""Columns that benchmarks keep a solution in; a task's target may be another text, such as HumanEval's tests."""


@cache
def task_manager(include: tuple[Path, ...], defaults: bool) -> Any:
    """lm-eval's, which reads every task below its folders: seconds, or half a minute with lm-eval's own."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=[str(folder) for folder in include], include_defaults=defaults)


def contents(tasks: Sequence[str], /, *, include_path: str | None = None) -> Mapping[str, Sequence[Document] | str]:
    """The documents that each task is scored on, groups as one; or why they cannot be had.

    The prompt is the task's `doc_to_text`, without few-shot examples and chat template; solutions are `doc_to_target`
    and the columns in SOLUTIONS. An id is the doc's (`sources.benchmark_id`); one without a benchmark before it gets
    the name of the task's dataset.
    """
    try:
        manager = task_manager(folders(include_path), not all_ours(tasks, include_path))
    except Exception as error:  # lm-eval and what it imports
        return dict.fromkeys(tasks, _reason(error))
    return {task: _of_task(manager, task) for task in tasks}


def _of_task(manager: Any, name: str) -> Sequence[Document] | str:
    try:
        found = manager.load_task_or_group([name])
        return [_document(task, doc) for task in _tasks(found) for doc in task.eval_docs]
    except Exception as error:  # a task may fail in any way; to compare is no reason to stop a run
        return _reason(error)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def _tasks(found: Mapping[Any, Any]) -> Iterator[Any]:
    for value in found.values():
        yield from _tasks(value) if isinstance(value, Mapping) else [value]


def _document(task: Any, doc: Mapping[str, Any]) -> Document:
    name = task.config.dataset_path or task.config.task
    prompt = task.doc_to_text(doc)
    answers = [_target(task, doc), *(doc.get(column) for column in SOLUTIONS)]
    solutions = dict.fromkeys(answer for answer in answers if isinstance(answer, str) and answer.strip())
    text = prompt if isinstance(prompt, str) else _text_column(doc)
    return Document(benchmark_id(doc, source_name(str(name))) or "", text, tuple(solutions))


def _target(task: Any, doc: Mapping[str, Any]) -> str:
    """The target as text: the choice that a number stands for, the first of several."""
    target = task.doc_to_target(doc)
    if isinstance(target, int) and task.config.doc_to_choice is not None:
        choices = task.doc_to_choice(doc)
        target = choices[target] if 0 <= target < len(choices) else ""
    if isinstance(target, list):
        target = target[0] if target else ""
    return target if isinstance(target, str) else ""


def _text_column(doc: Mapping[str, Any]) -> str:
    """The longest text of a doc, where the prompt is chosen by its number (tasks such as winogrande)."""
    return max((value for value in doc.values() if isinstance(value, str)), key=len, default="")
