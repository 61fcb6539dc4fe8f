"""Rows of different lengths laid end to end: no padding is computed, and a row that is done is dropped.

For causal models on a processor, where a padded position costs as much as a real one. transformers' attention pads,
copies every key once for each query head that shares it, and ran a decoding step of a 135M model in 2.5 times the time.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import transformers

_NAME = "mixmerge_rows"
_TOKENS_AT_A_TIME = 2048  # of prompts: bounds the memory that activations take
_DROP_AT = 0.75  # dropping copies what is left of the cache, so done rows are dropped a few at a time


def only_full_attention(model: Any) -> bool:
    """Whether attention is a function that can be replaced, and sees everything before a token and nothing else."""
    config = model.config.get_text_config()
    full = all(kind == "full_attention" for kind in getattr(config, "layer_types", None) or ["full_attention"])
    plain = getattr(config, "attn_logit_softcapping", None) is None and not getattr(config, "use_sliding_window", False)
    if getattr(config, "sliding_window", None) and not hasattr(config, "use_sliding_window"):
        return False
    return bool(model._supports_attention_backend and model._supports_sdpa and full and plain)


def fits(model: Any) -> bool:
    """Whether the functions below can run `model`."""
    takes = inspect.signature(model.forward).parameters
    return (
        model.device.type == "cpu"
        and not model.config.is_encoder_decoder
        and {"position_ids", "logits_to_keep"} <= set(takes)
        and only_full_attention(model)
    )


class _Kept:
    """Keys and values of every layer, (rows, heads, places, width); prompts end at the same place."""

    def __init__(self, lengths: Sequence[int], new: int) -> None:
        self.longest, self.places = max(lengths), max(lengths) + new
        self.used = self.longest
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.starts = self.longest - torch.tensor(lengths)

    def put(self, layer: int, first: int, rows: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Keep the prompts' keys and values, each (1, heads, tokens, width), as rows from `first` on."""
        if layer not in self.layers:
            heads, width = rows[0][0].shape[1], rows[0][0].shape[3]
            shape = (len(self.starts), heads, self.places, width)
            self.layers[layer] = (rows[0][0].new_zeros(shape), rows[0][1].new_zeros(*shape[:3], rows[0][1].shape[3]))
        for row, pair in enumerate(rows, first):
            for kept, new in zip(self.layers[layer], pair, strict=True):
                kept[row, :, self.longest - new.shape[2] : self.longest] = new[0]

    def add(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep one more token of each row, (rows, heads, 1, width); gives all that is kept."""
        for kept, new in zip(self.layers[layer], (key, value), strict=True):
            kept[:, :, self.used : self.used + 1] = new
        keys, values = self.layers[layer]
        return keys[:, :, : self.used + 1], values[:, :, : self.used + 1]

    def drop(self, stay: torch.Tensor) -> None:
        """Forget all rows but those at the places `stay`."""
        self.starts = self.starts[stay]
        for layer, pair in self.layers.items():
            keys, values = (kept[stay] for kept in pair)
            self.layers[layer] = (keys, values)


class _Prompts:
    """Attention within each of the prompts that lie end to end."""

    def __init__(self, lengths: Sequence[int], kept: _Kept | None = None, first: int = 0) -> None:
        self.lengths, self.kept, self.first = list(lengths), kept, first

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
    ) -> torch.Tensor:
        rows = list(zip(*(torch.split(whole, self.lengths, 2) for whole in (query, key, value)), strict=True))
        if self.kept is not None:
            self.kept.put(layer, self.first, [(k, v) for _, k, v in rows])
        # float32 takes two thirds of the time of bfloat16 here
        parts = [
            torch.nn.functional.scaled_dot_product_attention(
                q.float(), k.float(), v.float(), is_causal=True, scale=scaling, enable_gqa=True
            )
            for q, k, v in rows
        ]
        return torch.cat(parts, 2).to(query.dtype)


class _Step:
    """Attention of one new token of each row to all that the row has."""

    def __init__(self, kept: _Kept, dtype: torch.dtype) -> None:
        self.kept = kept
        hidden = torch.arange(kept.used + 1) < kept.starts[:, None]
        self.mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, -torch.inf)[:, None, None]

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
    ) -> torch.Tensor:
        keys, values = self.kept.add(layer, key, value)
        rows, heads, _, width = query.shape
        # Heads that share a key stand as so many queries of it, so that nothing is copied.
        grouped = query.reshape(rows, keys.shape[1], -1, width)
        found = torch.nn.functional.scaled_dot_product_attention(
            grouped, keys, values, attn_mask=self.mask, scale=scaling
        )
        return found.reshape(rows, heads, 1, -1)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: Any,
    *,
    rows: Callable[..., torch.Tensor],
    scaling: float | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """transformers' interface: tensors are (batch, heads, tokens, width); gives (batch, tokens, heads, width)."""
    return rows(module.layer_idx, query, key, value, scaling).transpose(1, 2), None


@contextlib.contextmanager
def _attending(model: Any) -> Iterator[None]:
    """`model` attends by `rows`; afterwards as it did."""
    transformers.AttentionInterface.register(_NAME, _attention)
    before = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    try:
        with torch.inference_mode():
            yield
    finally:
        model.set_attn_implementation(before)


def _together(lengths: Sequence[int]) -> Iterator[slice]:
    """Neighbouring rows that are computed at a time."""
    start = tokens = 0
    for row, length in enumerate(lengths):
        if row > start and tokens + length > _TOKENS_AT_A_TIME:
            yield slice(start, row)
            start, tokens = row, 0
        tokens += length
    yield slice(start, len(lengths))


def _forward(model: Any, prompts: Sequence[Sequence[int]], places: torch.Tensor, rows: _Prompts) -> torch.Tensor:
    """Logits at `places` of the prompts laid end to end: (places, vocabulary)."""
    tokens = torch.tensor([[token for prompt in prompts for token in prompt]])
    positions = torch.cat([torch.arange(len(prompt)) for prompt in prompts])[None]
    return torch.as_tensor(
        model(input_ids=tokens, position_ids=positions, logits_to_keep=places, use_cache=False, rows=rows).logits[0]
    )


def log_probabilities(
    model: Any, rows: Sequence[tuple[Sequence[int], int]], dtype: torch.dtype | None
) -> Iterator[torch.Tensor]:
    """For each (tokens, n): the logarithms of the probabilities that follow its last n tokens, (n, vocabulary)."""
    with _attending(model):
        for part in _together([len(tokens) for tokens, _ in rows]):
            ends = torch.tensor([len(tokens) for tokens, _ in rows[part]]).cumsum(0).tolist()
            counts = [count for _, count in rows[part]]
            places = torch.cat([torch.arange(end - n, end) for end, n in zip(ends, counts, strict=True)])
            prompts = [tokens for tokens, _ in rows[part]]
            logits = _forward(model, prompts, places, _Prompts([len(tokens) for tokens in prompts]))
            for row in torch.split(logits, counts):
                yield torch.nn.functional.log_softmax(row, -1, dtype=dtype)


def continue_greedily(
    model: Any,
    prompts: Sequence[Sequence[int]],
    new: int,
    ends: Sequence[int],
    stopped: Callable[[torch.Tensor], Sequence[bool]],
) -> list[list[int]]:
    """The most likely continuations of prompts, at most `new` tokens each, with the token that ended them.

    A row ends after one of the tokens `ends`, or when `stopped`, given all new tokens of the rows that are left
    (rows, tokens), says so.
    """
    lengths = [len(prompt) for prompt in prompts]
    kept = _Kept(lengths, new)
    written = torch.zeros(len(prompts), new, dtype=torch.long)
    counts = torch.full((len(prompts),), new)
    left = torch.arange(len(prompts))  # rows in the cache, of which `going` are not done
    going = torch.ones(len(prompts), dtype=torch.bool)
    end_tokens = torch.tensor(ends, dtype=torch.long)
    with _attending(model):
        chosen = torch.cat([_prefill(model, prompts, part, kept) for part in _together(lengths)])
        for count in range(1, new + 1):
            written[left, count - 1] = chosen
            done = torch.isin(chosen, end_tokens)
            done[going] |= torch.tensor(stopped(written[left[going], :count]), dtype=torch.bool)
            counts[left[going & done]] = count
            going &= ~done
            if count == new or not going.any():
                break
            if going.sum() <= _DROP_AT * len(going):
                stay = going.nonzero().flatten()
                kept.drop(stay)
                left, chosen, going = left[stay], chosen[stay], going[stay]
            positions = (kept.used - kept.starts)[:, None]
            step = _Step(kept, model.dtype)
            logits = model(input_ids=chosen[:, None], position_ids=positions, use_cache=False, rows=step).logits
            chosen = logits[:, -1].argmax(-1)
            kept.used += 1
    return [row[:count].tolist() for row, count in zip(written, counts.tolist(), strict=True)]


def _prefill(model: Any, prompts: Sequence[Sequence[int]], part: slice, kept: _Kept) -> torch.Tensor:
    """Keep what some of the prompts say, and give the token that follows each."""
    lengths = [len(prompt) for prompt in prompts[part]]
    last = torch.tensor(lengths).cumsum(0) - 1
    return _forward(model, prompts[part], last, _Prompts(lengths, kept, part.start)).argmax(-1)
