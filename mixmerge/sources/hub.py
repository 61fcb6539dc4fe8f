"""Data sets of the Hugging Face hub, or of its cache."""

from __future__ import annotations

from typing import Any

from ..errors import SourceError


def hub_rows(name: str, subset: str | None, split: str, revision: str | None) -> tuple[Any, str]:
    """A `datasets.Dataset` and the licence on its card ("unknown" where there is none). SourceError when it cannot be
    had."""
    import datasets

    try:
        dataset = datasets.load_dataset(name, subset, split=split, revision=revision)
    except Exception as error:  # datasets and huggingface_hub raise some twenty kinds, none of them ours
        first = (str(error).strip().splitlines() or [""])[0]
        raise SourceError(
            f"cannot load hf:{name} ({type(error).__name__}: {first})",
            hint="check its name, subset, split and revision, and that the hub can be reached or holds it in its cache",
        ) from error
    return dataset, str(getattr(dataset.info, "license", "") or "unknown")
