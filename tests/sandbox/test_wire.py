"""Plain data crosses the boundary whole; everything else becomes a handle or an error."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import json
import math
import socket
from typing import Any

import pytest

from mixmerge.sandbox import wire


def handle(value: object) -> dict[str, object]:
    return {"t": "o", "id": 7, "n": type(value).__name__}


def through(value: object) -> Any:
    return wire.loads(wire.dumps(wire.encode(value, handle)), lambda number, name: ("handle", number, name))


Point = collections.namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    RED = 1


class Loud(str):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            True,
            0,
            -1,
            10**5000,
            -(1 << 63),
            1.5,
            -0.0,
            math.inf,
            "text",
            "\ud800",
            "",
            b"\x00\xff",
            bytearray(b"a"),
        ),
        *(
            [],
            [1, [2.0, [None]]],
            (),
            (1, (2,)),
            {1: "a", (2, 3): [4]},
            {1, 2},
            frozenset({"a"}),
            1 + 2j,
            range(1, 9, 2),
        ),
        *(fractions.Fraction(10**400, 3), decimal.Decimal("1.10"), collections.deque([1, (2,)])),
        *(datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4, 5, 6), datetime.timedelta(1, 2, 3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_data_arrives_as_it_was(value: object) -> None:
    found = through(value)
    assert type(found) is type(value)
    assert found == value
    if not isinstance(value, int | fractions.Fraction):  # whose text may be too long
        assert repr(found) == repr(value)  # -0.0, and 1.10


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(1, 2), (1, 2)),
        (Colour.RED, 1),
        (Loud("a"), "a"),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, {1: [2]}), {1: [2]}),
    ],
)
def test_subclasses_travel_as_the_data_of_their_base(value: object, plain: object) -> None:
    found = through(value)
    assert type(found) is type(plain)
    assert found == plain


def test_nan_keys_and_numpy() -> None:
    assert math.isnan(through(math.nan))
    numpy = pytest.importorskip("numpy")
    scalar = through(numpy.float32(1.5))
    assert type(scalar) is numpy.float32
    assert scalar == 1.5
    array = through(numpy.arange(6).reshape(2, 3))
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert through(numpy.array([None, "a"], dtype=object)).tolist() == [None, "a"]


def test_what_is_no_plain_data_becomes_a_handle() -> None:
    assert through(object()) == ("handle", 7, "object")
    assert through([1, lambda: 1]) == [1, ("handle", 7, "function")]
    assert through(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))[0] == "handle"
    assert through(int) is int
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    assert b'"t":"o"' in wire.dumps(wire.encode(deep, handle))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "{",
            '{"v": 1}',
            '{"t": "x", "v": 1}',
            '{"t": "i", "v": "zz"}',
            '{"t": "d", "v": [1]}',
            '{"t": "s", "v": [[1]]}',
        ),
        *('{"t": "o"}', '{"t": "np", "d": "O", "s": [1], "v": ""}', '{"t": "np", "d": "<f8", "s": [9], "v": ""}'),
        *('{"t": "fr", "v": ["1", "0"]}', '{"t": "dt", "v": [1, 99]}', "[" * 100_000, '{"t": "type", "v": "object"}'),
    ],
)
def test_what_encode_does_not_write_is_malformed(text: str) -> None:
    with pytest.raises(wire.Malformed):
        wire.loads(text.encode(), lambda *_: None)


def test_entries_that_were_made_to_collide_are_refused_at_once() -> None:
    colliding = [{"t": "i", "v": hex(n * (2**61 - 1))} for n in range(1, 90_000)]
    for data in ({"t": "s", "v": colliding}, {"t": "d", "v": [[key, 1] for key in colliding]}):
        with pytest.raises(wire.Malformed, match="collide"):
            wire.loads(json.dumps(data).encode(), lambda *_: None)


def test_frames_arrive_whole_in_whatever_pieces() -> None:
    bodies = [b"", b"a", b"b" * 1000]
    data = b"".join(map(wire.frame, bodies))
    for size in (1, 3, len(data)):
        frames = wire.Frames()
        found = [body for at in range(0, len(data), size) for body in frames.feed(data[at : at + size])]
        assert found == bodies
    with pytest.raises(wire.Malformed):
        wire.Frames().feed(b"\xff\xff\xff\xff")


def test_sockets_carry_frames_and_descriptors() -> None:
    one, other = socket.socketpair()
    with one, other, socket.socket() as passed:
        wire.send(one, b"hello", [passed.fileno()])
        body, descriptors = wire.receive_with(other)
        assert body == b"hello"
        assert len(descriptors) == 1
        socket.socket(fileno=descriptors[0]).close()
        one.close()
        assert wire.receive(other) is None
