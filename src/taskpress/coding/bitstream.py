"""The `.tpc` container: one coded picture that names its codec and knows when it is damaged.

    bytes   what
    3       magic "TPC"
    1       version, 2
    8       fingerprint of the codec
    1..3    width in pixels, 1..3 height in pixels, 1..5 payload length in words (LEB128 varints)
    4·n     payload: n little-endian 32-bit words of the range coder
    4       CRC-32C over everything before it, little-endian

22 bytes around the payload of a 256×256 picture. docs/bitstream.md says what the payload means, enough for a
second implementation; whatever changes here or there changes that page and tests/coding/second_decoder.
"""

from typing import NamedTuple

import google_crc32c

from taskpress.coding.errors import BitstreamError

MAGIC = b"TPC"
VERSION = 2
WORD = 4
CRC_BYTES = 4
MAX_SIDE = 65535
MAX_PIXELS = 2**28


class Header(NamedTuple):
    """What a bitstream says about itself.

    version      of the container
    fingerprint  of the codec that wrote it, 16 hexadecimal digits
    width        in pixels
    height       in pixels
    payload      bytes of coded symbols
    size         bytes in all
    """

    version: int
    fingerprint: str
    width: int
    height: int
    payload: int
    size: int

    @property
    def bits_per_pixel(self) -> float:
        """All bytes of the file, in bits per pixel."""
        return 8 * self.size / (self.width * self.height)


def pack(fingerprint: str, width: int, height: int, payload: bytes) -> bytes:
    """The bitstream of a picture; `payload` is a whole number of 32-bit words."""
    start = MAGIC + bytes([VERSION]) + bytes.fromhex(fingerprint)
    body = start + _varint(width) + _varint(height) + _varint(len(payload) // WORD) + payload
    return body + google_crc32c.value(body).to_bytes(CRC_BYTES, "little")


def read_header(data: bytes) -> Header:
    """The header of a whole bitstream. BitstreamError says what is wrong where it is not one, or damaged."""
    return unpack(data)[0]


def unpack(data: bytes) -> tuple[Header, bytes]:
    """(header, payload). All has been checked but the payload's meaning."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise BitstreamError(f"a bitstream is bytes, not {type(data).__name__}")
    data = bytes(data)
    if not data:
        raise BitstreamError("the bitstream is empty (0 bytes)")
    if data[:3] != MAGIC[: len(data)]:
        raise BitstreamError(f"no TaskPress bitstream: it begins with {data[:3]!r}, not {MAGIC!r}")
    if len(data) > 3 and data[3] != VERSION:
        raise BitstreamError(f"bitstream version {data[3]} is not {VERSION}; it needs another TaskPress")
    if len(data) < 12:
        raise BitstreamError(f"the bitstream is truncated: {len(data)} bytes do not hold its header")
    width, at = _read_varint(data, 12, "width")
    height, at = _read_varint(data, at, "height")
    words, at = _read_varint(data, at, "payload length")
    size = at + WORD * words + CRC_BYTES
    if len(data) < size:
        raise BitstreamError(f"the bitstream is truncated: {len(data)} bytes of {size}")
    if len(data) > size:
        raise BitstreamError(f"the bitstream has {len(data) - size} trailing bytes after its {size}")
    body, crc = data[:-CRC_BYTES], int.from_bytes(data[-CRC_BYTES:], "little")
    if google_crc32c.value(body) != crc:
        raise BitstreamError("the bitstream is altered: its checksum does not match")
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise BitstreamError(
            f"the bitstream claims {width}×{height} pixels, more than can be coded (or none)"
        )
    payload = body[at:]
    return Header(data[3], data[4:12].hex(), width, height, len(payload), size), payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int, name: str) -> tuple[int, int]:
    value = 0
    for i in range(5):
        if at + i >= len(data):
            raise BitstreamError(f"the bitstream is truncated: it ends in its {name}")
        byte = data[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise BitstreamError(f"the bitstream's {name} is malformed")
