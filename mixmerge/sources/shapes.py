"""The usual shapes of instruction data: conversations, and Alpaca's three columns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import SourceError
from .spec import DataSpec, Table

CONVERSATIONS = ("messages", "conversations")
"""Columns that hold a list of `{"role", "content"}` (as chat APIs have it) or of `{"from", "value"}` (ShareGPT)."""

ANSWERS = ("output", "response")
"""Where data with a column `instruction`, and maybe `input`, keeps the answer."""

SHAPES = "without `prompt` and `answer`: columns prompt, completion; messages or conversations; instruction, output"

_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


def shaped(table: Table, spec: DataSpec) -> tuple[Table, str, str]:
    """The table with what stands for `prompt` and for `answer` in it: what the spec says, else by the shape of a row.

    A conversation becomes a row for each of its answers, whose `prompt` is the list of all messages before it. One that
    does not take turns (system first if at all, then user, assistant, user, …) is left out, and counted.
    Raises SourceError for a conversation when the format is not chat.
    """
    rows = iter(table.rows)
    first = next(rows, None)
    if first is None:
        return Table((), table.licence, table.notes), spec.prompt or "prompt", spec.answer or "completion"
    whole = Table(itertools.chain([first], rows), table.licence, table.notes)
    if column := conversation(first, spec):
        notes: list[str] = []
        turns = Table(_turns(whole, column, notes), table.licence, notes)
        return turns, "prompt", "completion"
    return whole, *columns(first, spec)


def conversation(row: Mapping[str, Any], spec: DataSpec) -> str:
    """The column that holds a conversation, "" when the spec or the row says otherwise."""
    if spec.answer or (spec.prompt is None and {"prompt", "completion"} <= row.keys()):
        return ""
    for column in [spec.prompt] if spec.prompt else CONVERSATIONS:
        value = row.get(column)
        if isinstance(value, list) and value and all(isinstance(message, dict) for message in value):
            if spec.format != "chat":
                raise SourceError(
                    f"column {column!r} of {spec.source} holds conversations, which are no text",
                    hint="add format: chat, so that the model's chat template lays them out",
                )
            return column
    return ""


def columns(row: Mapping[str, Any], spec: DataSpec) -> tuple[str, str]:
    """(prompt, answer) as templates."""
    answer = next((column for column in ANSWERS if column in row), None)
    if spec.prompt or spec.answer or {"prompt", "completion"} <= row.keys() or "instruction" not in row or not answer:
        return spec.prompt or "prompt", spec.answer or "completion"
    return "{instruction}\n\n{input}" if "input" in row else "instruction", answer


def _turns(table: Table, column: str, notes: list[str]) -> Iterator[Mapping[str, Any]]:
    odd = 0
    for number, row in enumerate(table.rows):
        messages = _messages(row.get(column))
        answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        odd += not answers
        for place in answers:
            prompt = messages[:place]
            id = row.get("id") if row.get("id") is not None else number
            turn = {"id": f"{id}/{place}"} if len(answers) > 1 else {}
            yield {**row, **turn, "prompt": prompt, "completion": messages[place]["content"]}
    notes.extend(table.notes)
    if odd:
        notes.append(f"conversations left out because user and assistant do not take turns in them: {odd}")


def _messages(value: Any) -> list[dict[str, str]]:
    """Messages as chat templates want them; [] where roles or order are none that every template takes."""
    found = []
    for message in value or ():
        role = _ROLES.get(str(message.get("role") or message.get("from")), "")
        content = message.get("content") if "content" in message else message.get("value")
        found.append({"role": role, "content": content})
    turns = found[1:] if found and found[0]["role"] == "system" else found
    regular = all(turn["role"] == ("user", "assistant")[place % 2] for place, turn in enumerate(turns))
    return found if regular and all(isinstance(message["content"], str) for message in found) else []
