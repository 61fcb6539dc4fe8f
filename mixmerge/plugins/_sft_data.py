"""Rows of prompt and completion to tokens and labels, in the way that generation will see them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IGNORED = -100  # the label of a token that is not in the loss, PyTorch's default
_CHUNK = 1000  # rows that are tokenised at a time: bounds the memory that Python lists take


@dataclass
class Counts:
    """What became of the rows. `longest` is in tokens, of a row that is kept; `tokens` of all of these."""

    rows: int = 0
    truncated: int = 0
    dropped: int = 0
    longest: int = 0
    tokens: int = 0


def load(path: Path, tokenizer: Any, max_length: int) -> tuple[Any, Counts]:
    """A `datasets.Dataset` of `input_ids` and `labels` (int32) from a mixture's JSON Lines, in their order.

    Prompt and completion are tokenised apart: in generation the prompt's tokens are there before the first token of
    the completion, so no token may reach across. The completion ends with the end-of-sequence token, which is in the
    loss. Rows longer than `max_length` tokens lose their end; a row without any completion left is dropped.
    """
    import datasets

    counts = Counts()
    features = datasets.Features({name: datasets.List(datasets.Value("int32")) for name in ("input_ids", "labels")})
    chunks = []
    for rows in _chunks(path):
        texts = [_texts(row, tokenizer) for row in rows]
        kept: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
        prompts = tokenizer([prompt for prompt, _ in texts], add_special_tokens=False)["input_ids"]
        completions = tokenizer([completion for _, completion in texts], add_special_tokens=False)["input_ids"]
        for row, prompt, completion in zip(rows, prompts, completions, strict=True):
            if isinstance(row["prompt"], str):
                prompt = [*_beginning(tokenizer), *prompt]
            tokens, labels = _cut(prompt, _ended(completion, tokenizer.eos_token_id), max_length, counts)
            if tokens:
                kept["input_ids"].append(tokens)
                kept["labels"].append(labels)
        chunks.append(datasets.Dataset.from_dict(kept, features=features))
    return datasets.concatenate_datasets(chunks) if chunks else datasets.Dataset.from_dict({}), counts


def _chunks(path: Path) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            rows.append(json.loads(line))
            if len(rows) == _CHUNK:
                yield rows
                rows = []
    if rows:
        yield rows


def _texts(row: dict[str, Any], tokenizer: Any) -> tuple[str, str]:
    """The prompt as generation gets it, and what must follow. Chat messages go through the model's chat template."""
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str):
        return prompt, completion
    answer = {"role": "assistant", "content": completion}
    asked = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*prompt, answer], tokenize=False)
    # Some templates render the start of an answer otherwise than their generation prompt (an empty thought, say).
    shared = os.path.commonprefix([asked, whole])  # noqa: RUF071 (texts, not paths)
    return shared, whole[len(shared) :]


def _beginning(tokenizer: Any) -> list[int]:
    """The begin-of-sequence token, where the tokenizer puts it before a text of its own accord."""
    return [id for id in tokenizer("")["input_ids"] if id == tokenizer.bos_token_id]


def _ended(completion: Sequence[int], end: int) -> list[int]:
    """The completion up to its last end-of-sequence token, which is added when there is none.

    What a chat template writes behind it (a line break, mostly) is never generated and so not trained.
    """
    if end in completion:
        return list(completion[: len(completion) - list(reversed(completion)).index(end)])
    return [*completion, end]


def _cut(prompt: list[int], completion: list[int], max_length: int, counts: Counts) -> tuple[list[int], list[int]]:
    """Tokens and labels of one row, ([], []) when it is dropped. The first token cannot be predicted by anything."""
    counts.rows += 1
    tokens = [*prompt, *completion]
    labels = [*[IGNORED] * max(1, len(prompt)), *completion[0 if prompt else 1 :]]
    counts.truncated += len(tokens) > max_length
    tokens, labels = tokens[:max_length], labels[:max_length]
    if all(label == IGNORED for label in labels):
        counts.dropped += 1
        return [], []
    counts.longest = max(counts.longest, len(tokens))
    counts.tokens += len(tokens)
    return tokens, labels
