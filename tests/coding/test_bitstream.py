"""A damaged bitstream is refused by name; no input makes the decoder crash or answer with another picture."""

import copy
from collections.abc import Callable, Iterable

import google_crc32c
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpress.coding import bitstream
from taskpress.coding.grid import Grid
from taskpress.errors import BitstreamError

FINGERPRINT = "0123456789abcdef"


def sealed(body: bytes) -> bytes:
    return body + google_crc32c.value(body).to_bytes(4, "little")


@given(
    width=st.integers(1, 65535),
    height=st.integers(1, 4096),
    payload=st.binary(max_size=64).map(lambda data: data[: len(data) // 4 * 4]),
)
def test_round_trip(width: int, height: int, payload: bytes) -> None:
    data = bitstream.pack(FINGERPRINT, width, height, payload)
    header, found = bitstream.unpack(data)
    assert found == payload
    assert header == (2, FINGERPRINT, width, height, len(payload), len(data), 0, ())
    assert len(data) - len(payload) <= 24


@given(
    width=st.integers(1, 65535),
    height=st.integers(1, 4096),
    units=st.integers(1, 1024),
    words=st.lists(st.binary(max_size=12).map(lambda data: data[: len(data) // 4 * 4]), min_size=1),
)
def test_round_trip_in_tiles(width: int, height: int, units: int, words: list[bytes]) -> None:
    grid = Grid(width, height, max(64 * units, -(-max(width, height) // 512) * 64))
    payloads = [words[number % len(words)] for number in range(len(grid))]
    data = bitstream.pack_tiles(FINGERPRINT, grid, payloads)
    header, found = bitstream.unpack(data)
    assert found == b"".join(payloads)
    assert header[:7] == (3, FINGERPRINT, width, height, len(found), len(data), grid.side)
    assert [bitstream.tile_payload(header, found, number) for number in range(len(grid))] == payloads
    assert len(data) - len(found) == len(data[:12]) + 4 + 5 * len(grid) + sum(
        1 + (side > 127) + (side > 16383) for side in (width, height, grid.side // 64)
    )
    last, _ = bitstream.unpack(bitstream.extract_tile(data, len(grid) - 1))
    right, bottom = (grid.columns - 1) * grid.side, (grid.rows - 1) * grid.side
    assert (last.version, last.width, last.height) == (2, width - right, height - bottom)


def tiled() -> bytes:
    """A 130×70 picture in tiles of 64 pixels: three columns, two rows."""
    return bitstream.pack_tiles(FINGERPRINT, Grid(130, 70, 64), [bytes([n] * 4 * n) for n in range(6)])


def notices_every_flip_and_cut(read: Callable[[bytes], object], data: bytes, bits: Iterable[int]) -> None:
    """Flips these bits of every byte, one at a time, and cuts the file before every byte."""
    for at in range(len(data)):
        for bit in bits:
            mutated = bytearray(data)
            mutated[at] ^= 1 << bit
            with pytest.raises(BitstreamError):
                read(bytes(mutated))
        with pytest.raises(BitstreamError):
            read(data[:at])


def test_every_bit_and_cut_of_a_tiled_file_is_noticed() -> None:
    data = tiled()
    assert bitstream.read_header(data).side == 64
    notices_every_flip_and_cut(bitstream.read_header, data, range(8))
    with pytest.raises(BitstreamError, match="1 trailing"):
        bitstream.read_header(data + b"x")


def test_damage_of_one_tile_is_its_own() -> None:
    data = bytearray(tiled())
    data[-1] ^= 1
    header, payloads = bitstream.unpack(bytes(data))
    for number in range(5):
        assert bitstream.tile_payload(header, payloads, number) == bytes([number] * 4 * number)
    with pytest.raises(BitstreamError, match=r"tile 5 \(column 2, row 1\)"):
        bitstream.tile_payload(header, payloads, 5)
    with pytest.raises(BitstreamError, match="no tile 6"):
        bitstream.extract_tile(bytes(data), 6)
    with pytest.raises(BitstreamError, match="no tile 0"):
        bitstream.extract_tile(bitstream.pack(FINGERPRINT, 30, 20, b"12345678"), 0)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"\xff\xff\x03\xff\xff\x03\x01", "65535×65535"),
        (b"\x40\x40\x00", "tiles of 0 pixels"),
        (b"\x40\x40\x81\x08", "tiles of 65600 pixels"),
        (b"\x80\x80\x01\x80\x80\x01\x01", "index of 65536 tiles"),
        (b"\x40\x40\x01" + b"\xff" * 5, "malformed"),
        (b"\x40\x40\x01\xff\xff\xff\xff\x7f" + b"1234", "truncated: 28 bytes of 137438953496"),
    ],
)
def test_lies_of_a_tiled_file(head: bytes, message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        bitstream.read_header(sealed(b"TPC\x03" + bytes.fromhex(FINGERPRINT) + head))


@given(data=st.binary(max_size=200))
def test_noise_is_no_bitstream(data: bytes) -> None:
    with pytest.raises(BitstreamError):
        bitstream.unpack(data)


@given(data=st.binary(max_size=60))
def test_noise_behind_an_honest_start_and_checksum(data: bytes) -> None:
    try:
        header, _ = bitstream.unpack(sealed(b"TPC\x02" + data))
    except BitstreamError:
        return
    assert header.width * header.height <= bitstream.MAX_PIXELS


def test_messages_say_what_is_wrong() -> None:
    data = bitstream.pack(FINGERPRINT, 30, 20, b"12345678")
    for damaged, message in (
        (5, "bytes, not int"),
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0JFIF", "no TaskPress bitstream"),
        (data[:3] + b"\x01" + data[4:], "version 1 is neither 2 nor 3"),
        (data[:7], "truncated"),
        (data[:-1], "truncated"),
        (data + b"x", "1 trailing"),
        (data[:18] + b"!" + data[19:], "altered"),
        (sealed(data[:12] + b"\x00\x14\x02" + b"12345678"), "0×20"),
        (sealed(data[:12] + b"\xff\xff\x03\xff\xff\x03\x02" + b"12345678"), "65535×65535"),
        (sealed(data[:12] + b"\xff" * 6), "malformed"),
    ):
        with pytest.raises(BitstreamError, match=message):
            bitstream.read_header(damaged)


def test_every_flipped_bit_and_every_cut_is_noticed(lively, picture) -> None:
    codec = lively("mean-scale-hyperprior")
    notices_every_flip_and_cut(codec.decode, codec.encode(picture(40, 56)), (0, 3, 7))


def test_another_codec_is_refused(lively, picture) -> None:
    codec = lively("mean-scale-hyperprior")
    other = copy.deepcopy(codec)
    with torch.no_grad():
        next(other.model.g_s.parameters()).mul_(1.01)
    with pytest.raises(BitstreamError, match=f"{codec.fingerprint}.*{other.fingerprint}"):
        other.decode(codec.encode(picture(10, 10)))


@pytest.mark.parametrize("architecture", ["cheng2020-anchor", "mean-scale-hyperprior"])
def test_hostile_payloads_with_honest_checksums(lively, architecture: str) -> None:
    codec = lively(architecture)

    @settings(max_examples=25, deadline=None)
    @given(payload=st.binary(max_size=400).map(lambda data: data[: len(data) // 4 * 4]))
    def check(payload: bytes) -> None:
        data = bitstream.pack(codec.fingerprint, 64, 50, payload)
        try:
            array = codec.decode(data, "numpy")
        except BitstreamError:
            return
        assert array.shape == (50, 64, 3) and array.dtype == np.uint8

    check()


def test_a_tiny_payload_cannot_claim_a_huge_picture(lively) -> None:
    codec = lively("mean-scale-hyperprior")
    data = bitstream.pack(codec.fingerprint, 16384, 16384, b"\x01\x00\x00\x00")
    with pytest.raises(BitstreamError, match="too short"):
        codec.decode(data)
