"""What crosses the boundary of a candidate's process: length-prefixed frames of plain data as tagged JSON.

JSON's own scalars and lists stand for themselves; everything else is an object {"t": tag, "v": …}. Decoding can only
build builtin data, a few harmless types of the standard library, numeric numpy arrays, and markers for what stayed on
the other side, whatever that side sends. Used on both sides; imports nothing that starts slowly.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import json
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

_HEAD = struct.Struct("<I")
MAX_FRAME = 64 << 20
_DEPTH = 200  # deeper data is not sent: readers recurse
_COLLISIONS = 1000
_SMALL = 1 << 63  # JSON readers refuse integers of more than 4300 digits; from 64 bits on they travel in hexadecimal


class Malformed(Exception):
    """The other side sent what `encode` never writes."""


# -- frames ------------------------------------------------------------------------------------------------------


def frame(body: bytes) -> bytes:
    return _HEAD.pack(len(body)) + body


def send(channel: socket.socket, body: bytes, descriptors: Sequence[int] = ()) -> None:
    """One frame, with file descriptors if there are any."""
    data = frame(body)
    if descriptors:
        sent = socket.send_fds(channel, [data], list(descriptors))
        data = data[sent:]
    channel.sendall(data)


def receive(channel: socket.socket) -> bytes | None:
    """The next frame, None at the end."""
    head = _exactly(channel, _HEAD.size)
    return None if head is None else _body(channel, head)


def receive_with(channel: socket.socket) -> tuple[bytes | None, list[int]]:
    """The next frame and the file descriptors (two at most) that came with it."""
    head, descriptors, _, _ = socket.recv_fds(channel, _HEAD.size, 2)
    if head and len(head) < _HEAD.size:
        head += _exactly(channel, _HEAD.size - len(head)) or b""
    return (_body(channel, head) if len(head) == _HEAD.size else None), descriptors


def _body(channel: socket.socket, head: bytes) -> bytes | None:
    size = _HEAD.unpack(head)[0]
    if size > MAX_FRAME:
        raise Malformed(f"a frame of {size} bytes")
    return _exactly(channel, size) if size else b""


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    parts = []
    while size:
        part = channel.recv(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Frames:
    """Frames out of bytes as they arrive; none may be longer than `longest`."""

    def __init__(self, longest: int = MAX_FRAME) -> None:
        self._data = bytearray()
        self._longest = longest

    def feed(self, data: bytes) -> list[bytes]:
        """Every frame that is whole now. Malformed for one that is too long."""
        self._data += data
        found, place = [], 0
        while len(self._data) - place >= _HEAD.size:
            size = _HEAD.unpack_from(self._data, place)[0]
            if size > self._longest:
                raise Malformed(f"a frame of {size} bytes")
            if len(self._data) - place - _HEAD.size < size:
                break
            found.append(bytes(self._data[place + _HEAD.size : place + _HEAD.size + size]))
            place += _HEAD.size + size
        del self._data[:place]
        return found


# -- values ------------------------------------------------------------------------------------------------------

_dumps = json.JSONEncoder(ensure_ascii=True, check_circular=False, separators=(",", ":")).encode
_SCALARS = {type(None), bool, int, float, str}
_TYPES = {t.__name__: t for t in (int, float, str, bool, list, tuple, dict, set, frozenset, bytes, complex)}
Keep = Callable[[Any], Any]
"""What stands for a value that is no plain data."""


def dumps(value: object) -> bytes:
    """JSON-like data as ASCII."""
    return _dumps(value).encode("ascii")


def encode(value: Any, keep: Keep, depth: int = 0) -> Any:
    """`value` as JSON-like data. Subclasses of builtin types travel as their base type's data."""
    kind = type(value)
    if kind in _SCALARS and kind is not int:
        return value
    if kind is int:
        return value if -_SMALL < value < _SMALL else _tag("i", hex(value))
    if depth > _DEPTH:
        return keep(value)
    if kind is list:
        return [encode(entry, keep, depth + 1) for entry in value]
    for base, encoder in _ENCODERS:
        if isinstance(value, base):
            return encoder(value, keep, depth + 1)
    if kind.__module__ == "numpy":
        return _encode_numpy(value, keep, depth)
    if kind is type and value in _TYPES.values():
        return _tag("type", value.__name__)
    return keep(value)


def _tag(tag: str, value: Any) -> dict[str, Any]:
    return {"t": tag, "v": value}


def _sequence(tag: str, base: type) -> Callable[[Any, Keep, int], Any]:
    # base.__iter__ and not iter(): a subclass must not have a say
    return lambda value, keep, depth: _tag(tag, [encode(entry, keep, depth) for entry in base.__iter__(value)])  # type: ignore[attr-defined]


def _pairs(value: Any, keep: Keep, depth: int) -> Any:
    return _tag("d", [[encode(key, keep, depth), encode(entry, keep, depth)] for key, entry in dict.items(value)])


def _moment(value: Any, keep: Keep, depth: int) -> Any:
    if value.tzinfo is not None:
        return keep(value)
    return _tag("dt", [value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond])


_ENCODERS: tuple[tuple[type, Callable[[Any, Keep, int], Any]], ...] = (
    (tuple, _sequence("t", tuple)),
    (dict, _pairs),
    (set, _sequence("s", set)),
    (frozenset, _sequence("fs", frozenset)),
    (str, lambda value, keep, depth: str.__str__(value)),
    (int, lambda value, keep, depth: encode(int.__int__(value), keep, depth)),
    (float, lambda value, keep, depth: float.__float__(value)),
    (list, lambda value, keep, depth: [encode(entry, keep, depth) for entry in list.__iter__(value)]),
    (bytes, lambda value, keep, depth: _tag("b", bytes.hex(value))),
    (bytearray, lambda value, keep, depth: _tag("ba", bytearray.hex(value))),
    (complex, lambda value, keep, depth: _tag("c", [value.real, value.imag])),
    (
        range,
        lambda value, keep, depth: _tag("r", [encode(n, keep, depth) for n in (value.start, value.stop, value.step)]),
    ),
    (collections.deque, _sequence("dq", collections.deque)),
    (fractions.Fraction, lambda value, keep, depth: _tag("fr", [hex(value.numerator), hex(value.denominator)])),
    (decimal.Decimal, lambda value, keep, depth: _tag("dec", str(value))),
    (datetime.datetime, _moment),
    (datetime.date, lambda value, keep, depth: _tag("date", [value.year, value.month, value.day])),
    (datetime.timedelta, lambda value, keep, depth: _tag("td", [value.days, value.seconds, value.microseconds])),
)


def _encode_numpy(value: Any, keep: Keep, depth: int) -> Any:
    import numpy as np

    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        return {"t": "np0", "d": value.dtype.str, "v": value.tobytes().hex()}
    if type(value) is np.ndarray and value.dtype.kind in "biufcU":
        return {"t": "np", "d": value.dtype.str, "s": list(value.shape), "v": value.tobytes().hex()}
    if type(value) is np.ndarray and value.dtype.kind == "O":
        entries = [encode(entry, keep, depth + 1) for entry in value.ravel().tolist()]
        return {"t": "npo", "s": list(value.shape), "v": entries}
    return keep(value)


def loads(data: bytes, marker: Callable[[int, str], object]) -> Any:
    """The inverse of `encode` and `dumps`; `marker(handle, type name)` stands for what stayed on the other side.

    Raises Malformed for everything that `encode` does not write.
    """
    try:
        return _decode(json.loads(data), marker)
    except Malformed:
        raise
    except Exception as error:  # from some twenty constructors, given a stranger's arguments
        raise Malformed(f"{type(error).__name__}: {error}"[:200]) from None


def _decode(data: Any, marker: Callable[[int, str], object]) -> Any:
    kind = type(data)
    if kind is list:
        if any(type(entry) in (list, dict) for entry in data):
            return [_decode(entry, marker) for entry in data]
        return data
    if kind is not dict:
        return data
    tag, value = data["t"], data.get("v")
    if tag == "o":
        return marker(int(data["id"]), str(data["n"])[:80])
    if tag in _CONTAINERS:
        entries = _decode(value, marker)
        return _CONTAINERS[tag](entries if tag in ("t", "dq", "r") else _distinct(entries))
    if tag == "d":
        keys = _distinct([_decode(key, marker) for key, _ in value])
        return dict(zip(keys, (_decode(entry, marker) for _, entry in value), strict=True))
    if tag in ("np0", "np", "npo"):
        return _decode_numpy(tag, data, marker)
    return _DECODERS[tag](value)


def _distinct(entries: list[Any]) -> list[Any]:
    """Entries of a set or keys of a dict; Malformed when many share a hash, since then building it takes for ever."""
    if len(entries) - len(set(map(hash, entries))) > _COLLISIONS:
        raise Malformed("entries made to collide")
    return entries


_CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "t": tuple,
    "s": set,
    "fs": frozenset,
    "dq": collections.deque,
    "r": lambda bounds: range(*bounds),
}
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "i": lambda text: int(text, 16),
    "b": bytes.fromhex,
    "ba": bytearray.fromhex,
    "c": lambda parts: complex(*map(float, parts)),
    "fr": lambda parts: fractions.Fraction(*(int(part, 16) for part in parts)),
    "dec": lambda text: decimal.Decimal(text[:2000]),
    "dt": lambda parts: datetime.datetime(*map(int, parts)),  # type: ignore[arg-type]
    "date": lambda parts: datetime.date(*map(int, parts)),
    "td": lambda parts: datetime.timedelta(*map(int, parts)),
    "type": lambda name: _TYPES[name],
}


def _decode_numpy(tag: str, data: dict[str, Any], marker: Callable[[int, str], object]) -> Any:
    import numpy as np

    shape = [int(size) for size in data.get("s", ())]
    if tag == "npo":
        entries = _decode(data["v"], marker)
        array = np.empty(len(entries), dtype=object)
        array[:] = entries
        return array.reshape(shape)
    dtype = np.dtype(str(data["d"]))
    if dtype.kind not in "biufcU":
        raise Malformed(f"an array of {dtype}")
    array = np.frombuffer(bytes.fromhex(data["v"]), dtype=dtype).copy()
    return array[0] if tag == "np0" else array.reshape(shape)
