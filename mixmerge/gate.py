"""The contamination gate: compares a dataset with the evaluation sets, keeps what it found, and says it.

A step's payload is `found.jsonl`, a line `{"row", "id", "task", "rule", "documents"}` for every hit: the row's number
and id, and the ids of the documents (or `#N`, the N-th from 0).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import contamination
from .components import Component
from .contamination import RULES, Hit
from .errors import SourceError
from .store import Store
from .types import Document, Overlap, Step

EXAMPLES = 3
FILE = "found.jsonl"


def compare(step: Step, evaluator: Component, rows: Path, family: str, out: Path) -> dict[str, Any]:
    """Do a step of kind `contamination`; the outcome holds counts and examples.

    Raises SourceError under `fail` when a rule of the recipe finds something, and under `fail` and `drop` when an
    evaluation set cannot be had: what was not looked at cannot be vouched for.
    """
    tasks, policy = step.content["tasks"], step.content["policy"]
    assert evaluator.contents is not None
    contents = evaluator.contents(tasks, **step.parameters)
    unknown = {task: str(found) for task, found in contents.items() if isinstance(found, str)}
    sets = {task: found for task, found in contents.items() if not isinstance(found, str)}
    if unknown and policy != "warn":
        told = "\n".join(f"  {task}: {reason}" for task, reason in unknown.items())
        hint = f"make them available, take them out of `eval`, or write contamination: warn instead of {policy}"
        raise SourceError(f"evaluation sets cannot be had, so training data cannot be compared:\n{told}", hint=hint)
    hits = list(contamination.compare(_lines(rows), family, sets))
    ids = [row["id"] for row in _lines(rows)]
    found = list(_named(hits, ids, sets))
    (out / FILE).write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found), encoding="utf-8")
    outcome = {
        "rows": len(ids),
        "sets": {task: {"documents": len(sets[task]), "found": _counts(hits, task)} for task in sets},
        "unknown": unknown,
        "acted_on": len(_acted_on(found, step.content["rules"])),
        "examples": _examples(found),
    }
    if policy == "fail" and outcome["acted_on"]:
        _fail(step, outcome, out / FILE)
    return outcome


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        yield from map(json.loads, file)


def _named(hits: Iterable[Hit], ids: Sequence[str], sets: Mapping[str, Sequence[Document]]) -> Iterator[dict[str, Any]]:
    for hit in hits:
        documents = [sets[hit.task][place].id or f"#{place}" for place in hit.documents]
        yield {"row": hit.row, "id": ids[hit.row], "task": hit.task, "rule": hit.rule, "documents": documents}


def _counts(hits: Iterable[Hit], task: str) -> dict[str, list[int]]:
    """Rule to [rows of the training data, documents of the evaluation set]."""
    rows, documents = defaultdict[str, set[int]](set), defaultdict[str, set[int]](set)
    for hit in hits:
        if hit.task == task:
            rows[hit.rule].add(hit.row)
            documents[hit.rule].update(hit.documents)
    return {rule: [len(rows[rule]), len(documents[rule])] for rule in RULES}


def _acted_on(found: Iterable[Mapping[str, Any]], rules: Sequence[str]) -> set[int]:
    return {one["row"] for one in found if one["rule"] in rules}


def _examples(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """The first few of each set and rule, the stricter rules first."""
    first: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in found:
        if len(told := first[one["task"], one["rule"]]) < EXAMPLES:
            told.append(
                f"{one['task']}: row {one['id']} and {', '.join(one['documents'][:EXAMPLES])}, by {one['rule']}"
            )
    return [text for rule in RULES for (_, of), told in first.items() if of == rule for text in told]


def _fail(step: Step, outcome: Mapping[str, Any], file: Path) -> None:
    lines = [f"  {text}" for text in told(outcome["sets"], outcome["rows"])]
    lines += [f"  such as {text}" for text in outcome["examples"][:EXAMPLES]]
    what = f"{outcome['acted_on']} of {outcome['rows']} training rows share something with an evaluation set"
    raise SourceError(
        "\n".join([what, *lines]),
        hint="write contamination: drop to leave these rows out, leave them out yourself (`where`), or evaluate on "
        f"something else; contamination: {{fail: {{rules: […]}}}} narrows it; every row: {file}",
    )


def dropped(store: Store, check: str) -> set[int]:
    """Numbers of the rows that a check's rules leave out."""
    return _acted_on(_lines(store.path(check) / FILE), store.spec(check).content["rules"])


# -- for the report ---------------------------------------------------------------------------------------------


def overlaps(manifest: Mapping[str, Any], store: Store) -> list[Overlap]:
    """Every dataset with every evaluation set, of the checks that are done."""
    return [
        Overlap(
            name,
            task,
            record.outcome["rows"],
            found["documents"],
            {rule: (count[0], count[1]) for rule, count in found["found"].items()},
            step_id,
        )
        for name, step_id in manifest["contamination"]["checks"].items()
        if (record := store.record(step_id))
        for task, found in record.outcome["sets"].items()
    ]


def notes(manifest: Mapping[str, Any], store: Store) -> list[str]:
    """What the gate found, a sentence for each dataset, and what it could not look at."""
    given = manifest["contamination"]
    said = []
    if given["unknown"]:
        said.append(
            f"training data was not compared with the evaluation sets: evaluator {given['unknown']} cannot say what "
            "its tasks hold"
        )
    for name, step_id in given["checks"].items():
        if not (record := store.record(step_id)):
            continue
        outcome = record.outcome
        if found := told(outcome["sets"], outcome["rows"]):
            act = f"; {outcome['acted_on']} rows were left out" if given["policy"] == "drop" else ""
            said.append(f"{name} shares something with what models are evaluated on{act}: {'; '.join(found)}")
        said += [f"{name} was not compared with {task}: {reason}" for task, reason in outcome["unknown"].items()]
    return said


def told(sets: Mapping[str, Any], rows: int) -> list[str]:
    """Such as "mm_mbpp_plus: 108 of 378 documents by id (108 of 374 rows)"."""
    alike: dict[str, list[str]] = defaultdict(list)
    for task, found in sets.items():
        parts = [
            f"{count[1]} of {found['documents']} documents by {rule} ({count[0]} of {rows} rows)"
            for rule, count in found["found"].items()
            if count[0]
        ]
        if parts:
            alike[", ".join(parts)].append(task)  # two tasks may ask the same documents
    return [f"{', '.join(tasks)}: {text}" for text, tasks in alike.items()]
