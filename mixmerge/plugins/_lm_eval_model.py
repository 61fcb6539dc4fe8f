"""lm-eval's Hugging Face model, kept loaded while the weights of one checkpoint after another are poured into it.

Imports torch and lm_eval; the plugin imports it when it is about to evaluate.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import StoppingCriteria, StoppingCriteriaList

from mixmerge import Checkpoint, progress
from mixmerge.checkpoint import pour

_WEIGHTS = (".safetensors", ".bin", ".pt", ".index.json", ".gguf")
# what a config says of its own making, and not of the model
_NO_ARCHITECTURE = ("_name_or_path", "transformers_version")


class RowStop(StoppingCriteria):  # type: ignore[misc]
    """Ends each row of a batch at its own stop sequence.

    lm-eval's criterion ends a batch only once every row holds the same stop sequence; until then the finished rows are
    generated on and cut afterwards. The text is the same.
    """

    def __init__(self, tokenizer: Any, stop: list[str], prompt_tokens: int) -> None:
        self._tokenizer, self._stop, self._prompt_tokens = tokenizer, [text for text in stop if text], prompt_tokens
        longest = max((len(tokenizer.encode(text, add_special_tokens=False)) for text in self._stop), default=0)
        self._look_back = longest + 2  # as lm-eval does: the same text may have been written in other tokens
        self._done: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """input_ids is (batch, tokens); gives bool (batch): which rows are done."""
        tail = input_ids[:, self._prompt_tokens :][:, -self._look_back :]
        texts = self._tokenizer.batch_decode(tail)
        now = [any(stop in text for stop in self._stop) for text in texts]
        done = torch.tensor(now, dtype=torch.bool, device=input_ids.device)
        self._done = done if self._done is None else self._done | done
        return self._done


class PouredModel(HFLM):  # type: ignore[misc]
    """HFLM whose rows stop one by one, and which says how far it is. `out` is where `progress` is written."""

    out: Path | None = None
    loaded: str = ""
    _done = 0
    _total = 0

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self._done, self._total = 0, len(requests)
        return list(super().generate_until(requests, disable_tqdm=disable_tqdm))

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **generation_kwargs: Any
    ) -> torch.Tensor:
        """As HFLM's, but for the stopping criterion. `context` is (batch, tokens), padded on the left."""
        temperature = generation_kwargs.setdefault("temperature", 0.0)
        if temperature == 0.0 and generation_kwargs.get("do_sample") is None:
            generation_kwargs["do_sample"] = False
        if temperature == 0.0 and generation_kwargs["do_sample"] is False:
            del generation_kwargs["temperature"]
        with torch.autocast(self.device.type, self.mixed_precision_dtype, self.mixed_precision_dtype is not None):
            tokens = self.model.generate(
                input_ids=context,
                max_length=max_length,
                stopping_criteria=StoppingCriteriaList([RowStop(self.tokenizer, stop, context.shape[1])]),
                pad_token_id=self.tokenizer.pad_token_id,
                use_cache=True,
                **generation_kwargs,
            )
        self._done += len(context)
        if self.out is not None:
            progress(self.out, min(self._done, self._total), self._total, "generated")
        return torch.as_tensor(tokens)


@dataclass(frozen=True)
class Settings:
    """How a model is loaded; models with equal settings and equal configuration share an instance."""

    dtype: str
    batch_size: int
    max_length: int | None
    model_args: Mapping[str, Any]

    @property
    def key(self) -> str:
        return json.dumps([self.dtype, self.batch_size, self.max_length, self.model_args], sort_keys=True, default=str)

    def arguments(self, path: Path) -> dict[str, Any]:
        """The keywords of an lm-eval model that reads a directory."""
        given = {"pretrained": str(path), "dtype": self.dtype, "batch_size": self.batch_size}
        if self.max_length is not None:
            given["max_length"] = self.max_length
        return given | dict(self.model_args)


# one instance: the weights of a second one would double the memory
_kept: dict[str, PouredModel] = {}


def hf_model(checkpoint: Checkpoint, settings: Settings) -> PouredModel:
    """The loaded model with the weights of `checkpoint`. The next call may give the same object with other weights."""
    key = f"{_configuration(checkpoint.path)} {settings.key}"
    if key not in _kept:
        release()
        _kept[key] = PouredModel(**{"device": _device(), **settings.arguments(checkpoint.path)})
        _kept[key].loaded = "" if checkpoint.derivation else checkpoint.id
    model = _kept[key]
    if model.loaded != checkpoint.id:
        model.loaded = ""  # whatever happens half way, these weights are nobody's
        pour(checkpoint, model.model)
        model.loaded = checkpoint.id
    return model


def release() -> None:
    """Forget the instance and its memory."""
    _kept.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _configuration(path: Path) -> str:
    """A digest of everything in a model's directory but its weights: architecture, tokenizer, how to generate."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if (
            not file.is_file()
            or file.name.endswith(_WEIGHTS)
            or file.suffix not in (".json", ".jinja", ".model", ".txt")
        ):
            continue
        content = file.read_bytes()
        if file.name == "config.json":
            config = {name: value for name, value in json.loads(content).items() if name not in _NO_ARCHITECTURE}
            content = json.dumps(config, sort_keys=True).encode()
        digest.update(file.name.encode() + b"\0" + content)
    return digest.hexdigest()
