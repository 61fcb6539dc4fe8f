"""Data of several sets becomes one mixture."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import gate
from ..errors import SourceError
from .job import Job, Outcome


def mixture(job: Job) -> Outcome:
    """Without the rows that the gate leaves out: nested subsets by a prefix of each dataset's own seeded order, shares
    of them, then one seeded shuffle."""
    content, mixed, counts = job.step.content, [], {}
    measure = _token_counter(job) if content["unit"] == "tokens" else (lambda row: 1)
    parts, licences = [], {}
    checks = dict(zip(job.inputs("data"), job.inputs("contamination"), strict=False))
    dropped = {data: gate.dropped(job.store, check) for data, check in checks.items()}
    for data in job.inputs("data"):
        rows = list(_lines(job.store.path(data) / "rows.jsonl"))
        rows = [row for number, row in enumerate(rows) if number not in dropped.get(data, ())]
        if not rows:
            raise SourceError(
                "every row of a dataset shares something with an evaluation set, so none is left to train on",
                hint="see `contamination` in the report, and narrow it: contamination: {drop: {rules: [id, solution]}}",
            )
        random.Random(f"{job.store.spec(data).seed}/{data}").shuffle(rows)
        kept = rows[: max(1, round(len(rows) * content["fraction"]))]
        parts.append([(measure(row), {**row, "data": data}) for row in kept])
        record = job.store.record(data)
        licences[data] = str(record.outcome["licence"]) if record else ""
    shares = content["shares"]
    sizes = [sum(size for size, _ in part) for part in parts]
    whole = min((size / share for size, share in zip(sizes, shares, strict=True) if share), default=0.0)
    for data, part, share in zip(job.inputs("data"), parts, shares, strict=True):
        taken = part if share is None else _prefix(part, whole * share)
        counts[data] = len(taken)
        mixed += [row for _, row in taken]
    random.Random(f"{job.step.seed}/mixture").shuffle(mixed)
    if not mixed:
        raise SourceError("the mixture is empty", hint="raise `fraction`, or give the datasets other shares")
    with open(job.out / "mixture.jsonl", "w", encoding="utf-8") as file:
        for row in mixed:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    left_out = {"dropped": {data: len(found) for data, found in dropped.items()}} if dropped else {}
    return {"rows": len(mixed), "counts": counts, "licences": licences, **left_out}


def _prefix(part: list[tuple[int, dict[str, Any]]], size: float) -> list[tuple[int, dict[str, Any]]]:
    """The longest prefix whose sizes add up to at most `size` (with half a unit of tolerance for rounding)."""
    total, kept = 0, 0
    for amount, _ in part:
        if total + amount > size + 0.5:
            break
        total, kept = total + amount, kept + 1
    return part[:kept]


def _token_counter(job: Job) -> Callable[[Mapping[str, Any]], int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(job.checkpoint("base").path / "tokenizer.json"))

    def count(row: Mapping[str, Any]) -> int:
        prompt = row["prompt"]
        text = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
        return len(tokenizer.encode(text + row["completion"]).ids)

    return count


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
