"""The `.tpc` container: a coded picture that names its codec and knows when it is damaged.

Version 2, a picture in one piece:

    bytes   what
    3       magic "TPC"
    1       version, 2
    8       fingerprint of the codec
    1..3    width in pixels, 1..3 height in pixels, 1..5 payload length in words (LEB128 varints)
    4·n     payload: n little-endian 32-bit words of the range coder
    4       CRC-32C over everything before it, little-endian

21 bytes around a payload of up to 508 bytes, 22 around one of up to 64 KB, of a picture of 256×256.

Version 3, a picture in tiles, each of which can be checked and decoded without the others:

    bytes   what
    3       magic "TPC"
    1       version, 3
    8       fingerprint of the codec
    1..3    width in pixels, 1..3 height in pixels, 1..2 side of a tile in units of 64 pixels (varints)
    (1..5   payload length in words, varint
     4)·n   CRC-32C of that payload: one such pair a tile
    4       CRC-32C over everything before it
    …       the payloads, in the same order, to the end of the file

Tiles are square and begin at the upper left corner; those of the last column and row end with the picture.
They are numbered row by row: n = ⌈width / side⌉ · ⌈height / side⌉, the side being 64 to 65536 pixels. A
tile's payload means what it would mean in a version 2 file of the tile alone: a latent of its own size, with
hyper-latent, context and level map of its own. The latents of all tiles side by side are the picture's, from
which the synthesis makes the pixels in one piece.

docs/bitstream.md says what the payload means, enough for a second implementation; whatever changes here or
there changes that page and tests/coding/second_decoder.
"""

from collections.abc import Sequence
from typing import NamedTuple

import google_crc32c

from taskpress.coding.grid import MAX_TILE_UNITS, UNIT, Grid
from taskpress.errors import BitstreamError

MAGIC = b"TPC"
WHOLE = 2
TILED = 3
WORD = 4
CRC_BYTES = 4
HEAD = 12
MAX_SIDE = 65535
MAX_PIXELS = 2**28


class Entry(NamedTuple):
    """Where a tile's payload begins and ends among all payloads, in bytes, and its CRC-32C."""

    begin: int
    end: int
    crc: int


class Header(NamedTuple):
    """What a bitstream says about itself.

    version      of the container
    fingerprint  of the codec that wrote it, 16 hexadecimal digits
    width        in pixels
    height       in pixels
    payload      bytes of coded symbols
    size         bytes in all
    side         of a tile in pixels; 0 for a picture in one piece
    tiles        an entry for each; none for a picture in one piece
    """

    version: int
    fingerprint: str
    width: int
    height: int
    payload: int
    size: int
    side: int = 0
    tiles: tuple[Entry, ...] = ()

    @property
    def bits_per_pixel(self) -> float:
        """All bytes of the file, in bits per pixel."""
        return 8 * self.size / (self.width * self.height)


def pack(fingerprint: str, width: int, height: int, payload: bytes) -> bytes:
    """The bitstream of a picture in one piece; `payload` is a whole number of 32-bit words."""
    start = MAGIC + bytes([WHOLE]) + bytes.fromhex(fingerprint)
    return _sealed(start + _varint(width) + _varint(height) + _varint(len(payload) // WORD) + payload)


def pack_tiles(fingerprint: str, grid: Grid, payloads: Sequence[bytes]) -> bytes:
    """The bitstream of a picture in tiles; `payloads`, one a tile, are whole numbers of 32-bit words."""
    assert len(payloads) == len(grid)
    head = bytearray(MAGIC + bytes([TILED]) + bytes.fromhex(fingerprint))
    head += _varint(grid.width) + _varint(grid.height) + _varint(grid.side // UNIT)
    for payload in payloads:
        head += _varint(len(payload) // WORD) + _crc(payload).to_bytes(CRC_BYTES, "little")
    return b"".join((_sealed(bytes(head)), *payloads))


def extract_tile(data: bytes, number: int) -> bytes:
    """One tile of a version 3 bitstream as a version 2 bitstream: a picture of the tile's size.

    BitstreamError where `data` is no such bitstream, or has no such tile, or where that tile is damaged.
    """
    header, payloads = unpack(data)
    if not 0 <= number < len(header.tiles):
        raise BitstreamError(f"there is no tile {number}: the bitstream has {len(header.tiles)}")
    box = Grid(header.width, header.height, header.side).box(number)
    return pack(header.fingerprint, box.width, box.height, tile_payload(header, payloads, number))


def tile_payload(header: Header, payloads: bytes, number: int) -> bytes:
    """A tile's payload among those that `unpack` gave; BitstreamError where it is not what was written."""
    entry = header.tiles[number]
    payload = payloads[entry.begin : entry.end]
    if _crc(payload) != entry.crc:
        name = Grid(header.width, header.height, header.side).name(number)
        raise BitstreamError(f"the bitstream is altered: the checksum of {name} does not match")
    return payload


def read_header(data: bytes) -> Header:
    """The header of a whole bitstream. BitstreamError says what is wrong where it is not one, or damaged."""
    header, payloads = unpack(data)
    for number in range(len(header.tiles)):
        tile_payload(header, payloads, number)
    return header


def check_pixels(data: bytes, most: int) -> None:
    """BitstreamError for the bitstream of a picture of more than `most` pixels, and for what is none."""
    header = unpack(data)[0]
    if header.width * header.height > most:
        raise BitstreamError(f"the picture has {header.width}×{header.height} pixels, more than {most}")


def unpack(data: bytes) -> tuple[Header, bytes]:
    """(header, payload), for a picture in tiles all payloads one after the other.

    All has been checked but the payload's meaning, and tiles' payloads, which `tile_payload` checks.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise BitstreamError(f"a bitstream is bytes, not {type(data).__name__}")
    data = bytes(data)
    if not data:
        raise BitstreamError("the bitstream is empty (0 bytes)")
    if data[:3] != MAGIC[: len(data)]:
        raise BitstreamError(f"no TaskPress bitstream: it begins with {data[:3]!r}, not {MAGIC!r}")
    if len(data) > 3 and data[3] not in (WHOLE, TILED):
        raise BitstreamError(
            f"bitstream version {data[3]} is neither {WHOLE} nor {TILED}; it needs another TaskPress"
        )
    if len(data) < HEAD:
        raise BitstreamError(f"the bitstream is truncated: {len(data)} bytes do not hold its header")
    return _unpack_whole(data) if data[3] == WHOLE else _unpack_tiles(data)


def _unpack_whole(data: bytes) -> tuple[Header, bytes]:
    width, at = _read_varint(data, HEAD, "width")
    height, at = _read_varint(data, at, "height")
    words, at = _read_varint(data, at, "payload length")
    size = at + WORD * words + CRC_BYTES
    _check_size(data, size)
    if _crc(data[:-CRC_BYTES]) != int.from_bytes(data[-CRC_BYTES:], "little"):
        raise BitstreamError("the bitstream is altered: its checksum does not match")
    _check_pixels(width, height)
    payload = data[at:-CRC_BYTES]
    return Header(WHOLE, data[4:HEAD].hex(), width, height, len(payload), size), payload


def _unpack_tiles(data: bytes) -> tuple[Header, bytes]:
    width, at = _read_varint(data, HEAD, "width")
    height, at = _read_varint(data, at, "height")
    units, at = _read_varint(data, at, "tile side")
    _check_pixels(width, height)
    if not 1 <= units <= MAX_TILE_UNITS:
        raise BitstreamError(
            f"the bitstream claims tiles of {units * UNIT} pixels a side, which there are not"
        )
    grid = Grid(width, height, units * UNIT)
    if len(data) < at + len(grid) * (1 + CRC_BYTES) + CRC_BYTES:
        raise BitstreamError(
            f"the bitstream is truncated: {len(data)} bytes do not hold the index of {len(grid)} tiles"
        )
    index, end = [], 0
    for _ in range(len(grid)):
        words, at = _read_varint(data, at, "index of tiles")
        index.append(Entry(end, end + WORD * words, int.from_bytes(data[at : at + CRC_BYTES], "little")))
        at, end = at + CRC_BYTES, index[-1].end
    start = at + CRC_BYTES
    if len(data) < start:
        raise BitstreamError("the bitstream is truncated: it ends in its index of tiles")
    if _crc(data[:at]) != int.from_bytes(data[at:start], "little"):
        raise BitstreamError("the bitstream is altered: the checksum of its index of tiles does not match")
    _check_size(data, start + end)
    header = Header(TILED, data[4:HEAD].hex(), width, height, end, len(data), grid.side, tuple(index))
    return header, data[start:]


def _check_size(data: bytes, size: int) -> None:
    if len(data) < size:
        raise BitstreamError(f"the bitstream is truncated: {len(data)} bytes of {size}")
    if len(data) > size:
        raise BitstreamError(f"the bitstream has {len(data) - size} trailing bytes after its {size}")


def _check_pixels(width: int, height: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise BitstreamError(
            f"the bitstream claims {width}×{height} pixels, more than can be coded (or none)"
        )


def _crc(data: bytes) -> int:
    return google_crc32c.value(data)


def _sealed(body: bytes) -> bytes:
    """The bytes with their checksum behind them."""
    return body + _crc(body).to_bytes(CRC_BYTES, "little")


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
