"""Random numbers against the figures that their authors publish."""

from __future__ import annotations

import numpy as np
import pytest

from mixmerge.compiled import draws, philox

# Random123's kat_vectors: counter, key, output
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_published_numbers(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    found = np.zeros(4, dtype=np.uint32)
    first = np.uint64(counter[0] | counter[1] << 32)
    philox(np.array(key, dtype=np.uint64), np.array(counter[2:], dtype=np.uint64), first, found)
    assert tuple(int(word) for word in found) == expected


def test_a_stream_is_the_same_wherever_it_is_cut_and_another_for_another_key() -> None:
    key = bytes(range(16))
    whole = draws(key, 0, 1000)
    for first, count in [(0, 1), (1, 7), (7, 2), (8, 8), (333, 600), (999, 1), (5, 0)]:
        assert np.array_equal(draws(key, first, count), whole[first : first + count])
    for other in (bytes(1) + key[1:-1] + b"x", key[:8] + bytes(8)):
        assert not np.array_equal(draws(other, 0, 1000), whole)


def test_every_number_is_about_equally_likely() -> None:
    counts = np.bincount(draws(b"equally likely..", 0, 1 << 20) >> 8, minlength=256)
    chi_squared = float((((counts - 4096) ** 2) / 4096).sum())
    assert 255 - 5 * 22.6 < chi_squared < 255 + 5 * 22.6  # mean 255, standard deviation sqrt(510)
