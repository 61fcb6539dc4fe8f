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
from mixmerge.plugins import _rows
from mixmerge.plugins._lm_eval_asking import SAMPLING, is_neutral

_WEIGHTS = (".safetensors", ".bin", ".pt", ".index.json", ".gguf")
# what a config says of its own making, and not of the model
_NO_ARCHITECTURE = ("_name_or_path", "transformers_version")
# what a model may say of generation without changing which token is the most likely
_GREEDY = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "max_length", "max_new_tokens", "use_cache"),
    *SAMPLING,
    *("transformers_version", "_from_model_config"),
}


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
        now = self.stopped(input_ids[:, self._prompt_tokens :])
        done = torch.tensor(now, dtype=torch.bool, device=input_ids.device)
        self._done = done if self._done is None else self._done | done
        return self._done

    def stopped(self, written: torch.Tensor) -> list[bool]:
        """Which rows of new tokens, (rows, tokens), end in a stop sequence and a few tokens at most."""
        texts = self._tokenizer.batch_decode(written[:, -self._look_back :])
        return [any(stop in text for stop in self._stop) for text in texts]


class PouredModel(HFLM):  # type: ignore[misc]
    """HFLM whose rows stop one by one, and which says how far it is. `out` is where `progress` is written.

    On a processor it lays rows end to end (`_rows`): the same figures, but for the rounding of bfloat16.
    """

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
        if self._is_plain(generation_kwargs):
            return self._continued(context, max_length, stop, generation_kwargs["attention_mask"])
        with torch.autocast(self.device.type, self.mixed_precision_dtype, self.mixed_precision_dtype is not None):
            tokens = self.model.generate(
                input_ids=context,
                max_length=max_length,
                stopping_criteria=StoppingCriteriaList([RowStop(self.tokenizer, stop, context.shape[1])]),
                pad_token_id=self.tokenizer.pad_token_id,
                use_cache=True,
                **generation_kwargs,
            )
        self._progress(len(context))
        return torch.as_tensor(tokens)

    def _is_plain(self, generation_kwargs: Mapping[str, Any]) -> bool:
        """Whether generation takes the most likely token and does nothing else, on a model that `_rows` can run."""
        asked = {name: value for name, value in generation_kwargs.items() if name != "attention_mask"}
        config = self.model.generation_config.to_diff_dict() | asked
        return (
            config["do_sample"] is False
            and {name for name, value in config.items() if not is_neutral(name, value)} <= _GREEDY
            and self._lays_rows_end_to_end()
        )

    def _lays_rows_end_to_end(self) -> bool:
        return self.backend == "causal" and self.mixed_precision_dtype is None and _rows.fits(self.model)

    def _continued(self, context: torch.Tensor, max_length: int, stop: list[str], mask: torch.Tensor) -> torch.Tensor:
        """`context` with what follows it, (batch, tokens), filled up with the pad token."""
        prompts = [row[seen.bool()].tolist() for row, seen in zip(context, mask, strict=True)]
        ends = self.model.generation_config.eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        stopped = RowStop(self.tokenizer, stop, 0).stopped
        found = _rows.continue_greedily(self.model, prompts, max_length - context.shape[1], ends, stopped)
        tokens = torch.full((len(context), max(map(len, found))), self.tokenizer.pad_token_id)
        for row, new in zip(tokens, found, strict=True):
            row[: len(new)] = torch.tensor(new)
        self._progress(len(context))
        return torch.cat([context, tokens], 1)

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """As HFLM's. A request is (texts, tokens of the context, tokens of the continuation)."""
        if not self._lays_rows_end_to_end():
            return list(super()._loglikelihood_tokens(requests, disable_tqdm, override_bs))
        # continuations that differ in their last token alone have their logits in common
        same: dict[tuple[int, ...], list[int]] = {}
        for index, (_, before, after) in enumerate(requests):
            same.setdefault(tuple([*before, *after][-(self.max_length + 1) :][:-1]), []).append(index)
        rows = [(tokens, max(len(requests[index][2]) for index in same[tokens])) for tokens in sorted(same, key=len)]
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        found = _rows.log_probabilities(self.model, rows, self.softmax_dtype)
        for (tokens, _), each in zip(rows, found, strict=True):
            for index in same[tokens]:
                texts, _, after = requests[index]
                wanted = torch.tensor(after)
                mine = each[-len(after) :]
                likely = bool((mine.argmax(-1) == wanted).all())
                answers[index] = (float(mine.gather(1, wanted[:, None]).sum()), likely)
                if texts is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, answers[index])
        return answers

    def _progress(self, rows: int) -> None:
        self._done += rows
        if self.out is not None:
            progress(self.out, min(self._done, self._total), self._total, "generated")


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
        # The softmax of a bfloat16 model's own dtype rounds a document's loss to 2 in 400.
        own = {"device": _device(), "softmax_dtype": "float32"}
        _kept[key] = PouredModel(**own | settings.arguments(checkpoint.path))
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
