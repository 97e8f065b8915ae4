"""Level maps in the bitstream: exact, as short as their odds say, and refused where they are none."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpress.coding.binary_coder import BinaryDecoder, BinaryEncoder, Odds
from taskpress.coding.level_map import level_bits, read_levels, split_section, write_levels
from taskpress.errors import BitstreamError


@st.composite
def level_maps(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """From pure noise to a single region, in every shape."""
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    count = draw(st.sampled_from([3, 5, 7, 15]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = np.full((height, width), rng.integers(count))
    for _ in range(draw(st.integers(0, 4))):
        top, left = rng.integers(height), rng.integers(width)
        levels[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = rng.integers(count)
    noisy = rng.random((height, width)) < draw(st.sampled_from([0, 0, 0.1, 1]))
    return np.where(noisy, rng.integers(0, count, (height, width)), levels), count


@settings(max_examples=150, deadline=None)
@given(level_maps(), st.binary(max_size=12))
def test_a_map_comes_back_from_in_front_of_a_payload(drawn: tuple[np.ndarray, int], rest: bytes) -> None:
    levels, count = drawn
    rest = rest[: len(rest) // 4 * 4]
    section = write_levels(levels, count)
    assert len(section) % 4 == 0
    found, behind = split_section(section + rest)
    assert (found, behind) == (section, rest)
    assert np.array_equal(read_levels(found, *levels.shape, count), levels)


@settings(max_examples=150, deadline=None)
@given(level_maps())
def test_the_section_is_as_long_as_the_odds_say(drawn: tuple[np.ndarray, int]) -> None:
    levels, count = drawn
    size = 8 * len(write_levels(levels, count))
    estimate = level_bits(levels, count)
    # A byte or two of length, less than a word that is filled up, and a byte to end the coded bits.
    assert estimate - 8 <= size <= 1.01 * estimate + 16 + 32 + 8


def test_noise_costs_its_entropy_and_a_region_next_to_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 5, (64, 64))
    assert 1 <= level_bits(noise, 5) / (64 * 64 * math.log2(5)) < 1.05
    assert len(write_levels(np.full((16, 16), 2), 5)) == 4
    halves = np.repeat([[0, 4]], 8, axis=1).repeat(16, axis=0)
    assert len(write_levels(halves, 5)) <= 12


def test_decisions_at_any_odds_cost_their_logarithm() -> None:
    """The coder against Shannon: fixed skewed odds and decisions that follow them."""
    rng = np.random.default_rng(1)
    for no, yes in ((1, 1), (1, 200), (97, 3), (1, 2)):
        bits = (rng.random(4000) < yes / (no + yes)).tolist()
        encoder, odds = BinaryEncoder(), Odds(no, yes)
        for bit in bits:
            encoder.code(odds, bit)
        data = encoder.finish()
        decoder = BinaryDecoder(data)
        assert [decoder.code(odds) for _ in bits] == bits
        ideal = -sum(math.log2((yes if bit else no) / (no + yes)) for bit in bits)
        assert abs(8 * len(data) - ideal) < 16 + 0.001 * ideal


def test_carries_run_through_full_bytes() -> None:
    """Improbable 'yes' after long runs of 'no' push the interval across byte borders again and again."""
    rng = np.random.default_rng(2)
    for seed in range(200):
        bits = (rng.random(300) < 0.02 * (1 + seed % 3)).tolist()
        encoder = BinaryEncoder()
        for bit in bits:
            encoder.code(Odds(255, 1), bit)
        decoder = BinaryDecoder(encoder.finish())
        assert [decoder.code(Odds(255, 1)) for _ in bits] == bits


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "length"),
        (b"\x00\x00\x00\x00", "0 words"),
        (b"\x02\x00\x00\x00", "2 words of 1"),
        (b"\xff\xff\xff\xff\xff\x01\x00\x00", "length"),
    ],
)
def test_what_begins_with_no_map_is_refused(payload: bytes, message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        split_section(payload)


def test_an_altered_map_is_another_map_or_refused() -> None:
    levels = np.repeat([[0, 4, 2, 2]], 4, axis=1).repeat(16, axis=0)
    section = write_levels(levels, 5)
    for place in range(8, 8 * len(section)):
        altered = bytearray(section)
        altered[place // 8] ^= 1 << place % 8
        try:
            found = read_levels(bytes(altered), 16, 16, 5)
        except BitstreamError:
            continue
        assert not np.array_equal(found, levels)
    with pytest.raises(BitstreamError, match="damaged"):
        read_levels(bytes([len(section) // 4 + 1]) + section[1:] + b"\0\0\0\0", 16, 16, 5)
