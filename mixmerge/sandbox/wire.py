"""Plain data as tagged JSON: what crosses the boundary between the caller and a candidate's process.

Scalars stand for themselves; everything else is a list whose first entry is a tag. Decoding can only build builtin
data and opaque markers, whatever the other side sends. Imports nothing that starts slowly: the runner pays for it at
every candidate.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

_CONTAINERS: dict[str, Callable[[Any], object]] = {"l": list, "t": tuple, "s": set, "f": frozenset}
_TAGS: tuple[tuple[str, type[Iterable[Any]]], ...] = (("l", list), ("t", tuple), ("s", set), ("f", frozenset))
# JSON readers refuse integers of more than 4300 digits; from 64 bits on an integer travels in hexadecimal
_SMALL = 1 << 63


def dumps(value: object) -> bytes:
    """`value` as one line of ASCII. What is no plain data becomes opaque."""
    return json.dumps(encode(value), separators=(",", ":")).encode("ascii")


def encode(value: Any) -> Any:
    """`value` as JSON-like data. Subclasses of builtin types travel as their base type's data."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        number = int(value)
        return number if -_SMALL < number < _SMALL else ["i", hex(number)]
    if isinstance(value, (float, str)):
        return float(value) if isinstance(value, float) else str(value)
    if isinstance(value, dict):
        return ["d", [[encode(key), encode(entry)] for key, entry in dict.items(value)]]
    for tag, kind in _TAGS:
        if isinstance(value, kind):
            return [tag, [encode(entry) for entry in value]]
    if isinstance(value, (bytes, bytearray)):
        return ["b", value.hex()]
    if isinstance(value, complex):
        return ["c", [value.real, value.imag]]
    return opaque(value)


def opaque(value: object) -> list[str]:
    """What stands for a value that is no plain data."""
    return ["o", str(type(value).__name__)]


def decode(data: Any, marker: Callable[[str], object]) -> object:
    """The inverse of `encode`; `marker(type name)` stands for what was opaque.

    Raises TypeError, ValueError, OverflowError or RecursionError for what `encode` does not write.
    """
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    tag, body = data
    if tag in _CONTAINERS:
        return _CONTAINERS[tag](decode(entry, marker) for entry in body)
    if tag == "d":
        return {decode(key, marker): decode(entry, marker) for key, entry in body}
    if tag == "i":
        return int(body, 16)
    if tag == "b":
        return bytes.fromhex(body)
    if tag == "c":
        return complex(float(body[0]), float(body[1]))
    if tag == "o":
        return marker(str(body))
    raise ValueError("unknown tag")
