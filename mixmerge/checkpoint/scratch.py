"""What walking through a tensor takes of memory: runs of weights as arrays, and float64 space that is used again."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_KEPT = 8  # small tensors have lengths of their own, whose memory is not kept for ever

_local = threading.local()


class Slab:
    """A run of weights of base and models: as tensors, and as arrays for compiled code."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        from .kernels import raw

        self.tensors = tensors
        self.arrays = [raw(tensor) for tensor in tensors]


def space(rows: int, length: int) -> NDArray[np.float64]:
    """float64 (rows, length), contents unknown: the same memory in every call from this thread, since the kernel would
    have to clear fresh memory, which costs more than the arithmetic."""
    import numpy as np

    kept: dict[tuple[int, int], NDArray[np.float64]] = _local.__dict__.setdefault("kept", {})
    if (rows, length) not in kept:
        if len(kept) >= _KEPT:
            kept.clear()
        kept[rows, length] = np.empty((rows, length))
    return kept[rows, length]
