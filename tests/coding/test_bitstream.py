"""A damaged bitstream is refused by name; no input makes the decoder crash or answer with another picture."""

import copy

import google_crc32c
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpress.coding import bitstream
from taskpress.coding.errors import BitstreamError

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
    assert header == (2, FINGERPRINT, width, height, len(payload), len(data))
    assert len(data) - len(payload) <= 24


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
        (data[:3] + b"\x01" + data[4:], "version 1 is not 2"),
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
    data = codec.encode(picture(40, 56))
    for at in range(len(data)):
        for bit in (0, 3, 7):
            mutated = bytearray(data)
            mutated[at] ^= 1 << bit
            with pytest.raises(BitstreamError):
                codec.decode(bytes(mutated))
        with pytest.raises(BitstreamError):
            codec.decode(data[:at])


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
