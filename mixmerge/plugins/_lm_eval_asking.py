"""What of a model's own files decides how it is asked: its chat template, and what it says of generation.

A benchmark compares models only if it asks them alike. What a task and a recipe set is equal by construction; these
files are not, and transformers applies a `repetition_penalty` of generation_config.json without a word.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NEUTRAL: Mapping[str, Any] = {
    **{"repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1},
    **{"length_penalty": 1.0, "diversity_penalty": 0.0, "num_beam_groups": 1, "min_length": 0},
}
"""Settings of generation that change nothing."""

SAMPLING = frozenset({"do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p"})
"""They do not change which token is the most likely."""

_DECODING = frozenset(
    {
        *NEUTRAL,
        *("encoder_no_repeat_ngram_size", "min_new_tokens", "bad_words_ids", "forced_bos_token_id", "sequence_bias"),
        *("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "exponential_decay_length_penalty"),
        *("guidance_scale", "penalty_alpha", "epsilon_cutoff", "eta_cutoff", "stop_strings", "dola_layers"),
    }
)
"""Settings of generation that change what the most likely text is."""


def is_neutral(name: str, value: object) -> bool:
    return value is None or (name in NEUTRAL and value == NEUTRAL[name])


def asked(model: Path, task: Mapping[str, Any], chat: bool) -> dict[str, str]:
    """What differs between models that a task asks differently; `task` is its configuration, as lm-eval used it."""
    found = {"chat template": _template(model)} if chat else {}
    if task.get("output_type") == "generate_until":
        found |= _generation(model, task.get("generation_kwargs") or {})
    return found


def _template(model: Path) -> str:
    """A digest of the chat template, "none" where there is none."""
    file = model / "chat_template.jinja"
    text: Any = (
        file.read_text(encoding="utf-8")
        if file.is_file()
        else _json(model / "tokenizer_config.json").get("chat_template")
    )
    return hashlib.sha256(json.dumps(text).encode()).hexdigest()[:12] if text else "none"


def _generation(model: Path, task: Mapping[str, Any]) -> dict[str, str]:
    own = _json(model / "generation_config.json")
    counts = _DECODING | SAMPLING if task.get("do_sample") else _DECODING
    return {
        name: json.dumps(value)
        for name, value in sorted(own.items())
        if name in counts and name not in task and not is_neutral(name, value)
    }


def _json(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content if isinstance(content, dict) else {}
