"""What the licences of data and models say about commercial use, in plain words. Facts, no legal advice."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from .types import Dataset

_NON_COMMERCIAL = re.compile(r"\bnc\b|non-?commercial|\bresearch\b|\bacademic\b", re.IGNORECASE)
_UNKNOWN = re.compile(r"\bunknown\b|\bnot stated\b|^\s*(?:other)?\s*$", re.IGNORECASE)


def restriction(licence: str) -> Literal["", "non-commercial", "unknown"]:
    """`CC BY-NC 4.0`, `cc-by-nc-4.0`, `qwen-research` are non-commercial; "", `other`, `unknown` are unknown.

    A list such as "numpy: BSD-3-Clause, x: unknown" is what its most restrictive part is. "" says only that the name
    tells of no restriction on commercial use, not that there is none.
    """
    if _NON_COMMERCIAL.search(licence):
        return "non-commercial"
    return "unknown" if _UNKNOWN.search(licence) else ""


def together(licences: Iterable[str]) -> str:
    """One statement for what comes of several models, each licence once: "apache-2.0; cc-by-nc-4.0". "unknown" stands
    for one that is not stated; "" when none is."""
    found = [part for licence in licences for part in licence.split("; ")]
    return "; ".join(dict.fromkeys(part or "unknown" for part in found)) if any(found) else ""


def remark(name: str, licence: str, hint: str = "") -> str:
    """A sentence where a licence is non-commercial or unknown, else ""."""
    kind = restriction(licence)
    if kind == "non-commercial":
        return f"{name} is under {licence}, which is for non-commercial use"
    if kind == "unknown":
        stated = f" ({licence})" if licence.lower() not in ("", "unknown", "other") else ""
        return f"the licence of {name} is not known{stated}{hint}"
    return ""


def remarks(base: str, base_licence: str, data: Iterable[Dataset]) -> list[str]:
    """Every remark on a base model and on the data that was trained on."""
    found = [remark("the base" if base == "base" else f"the base {base}", base_licence)]
    found += [remark(f"{one.name} ({one.source})", one.licence) for one in data]
    return [text for text in dict.fromkeys(found) if text]
