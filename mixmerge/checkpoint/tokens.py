"""Embeddings and heads of models with other vocabularies, brought into one order of tokens while they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from ..types import Tokens
from .layout import Layout
from .names import layer_of

if TYPE_CHECKING:
    from torch import Tensor

Read = Callable[[str, int, int | None], "Tensor"]
"""Rows of a tensor by its name, from one row to another."""


def has_tokens(name: str, layout: Layout) -> bool:
    """Whether the rows of a tensor are tokens."""
    return layer_of(name) in ("embeddings", "head") and layout.tensors[name].shape[:1] == (layout.vocabulary,)


def with_vocabulary(layout: Layout, count: int) -> Layout:
    """As if every tensor whose rows are tokens had `count` of them."""
    tensors = dict(layout.tensors)
    for name in filter(lambda name: has_tokens(name, layout), layout.tensors):
        info = tensors[name]
        shape = (count, *info.shape[1:])
        tensors[name] = replace(info, shape=shape, bytes=info.bytes // prod(info.shape) * prod(shape))
    return Layout(layout.path, tensors, layout.config, count, sum(info.bytes for info in tensors.values()))


def aligned(tokens: Tokens, name: str, start: int, stop: int, own: Read, lender: Callable[[int], Read]) -> Tensor:
    """Rows `start` to `stop` in the new order, float32: the model's own, the mean of those that are lent, or zero."""
    import torch

    wanted = torch.tensor(tokens.rows[start:stop], dtype=torch.int64)
    there = wanted >= 0
    first, last = (int(wanted[there].min()), int(wanted[there].max())) if there.any() else (0, 0)
    block = own(name, first, last + 1)
    found = torch.zeros((len(wanted), *block.shape[1:]), dtype=torch.float32)
    found[there] = block[wanted[there] - first].to(torch.float32)
    for place in (~there).nonzero().flatten().tolist():
        lent = [lender(model)(name, row, row + 1)[0].to(torch.float32) for model, row in tokens.lent[start + place]]
        if lent:
            found[place] = torch.stack(lent).mean(0)
    return found
