"""Sections 1 and 2: the container and the codec file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import safe_open


class Tile(NamedTuple):
    """A rectangle of the picture, in pixels, and what is coded of it."""

    left: int
    top: int
    width: int
    height: int
    payload: bytes


class Container(NamedTuple):
    """`tiles`: one of the whole picture in version 2."""

    fingerprint: str
    width: int
    height: int
    tiles: list[Tile]


class Codec(NamedTuple):
    """Metadata, allocator settings (or None) and all weights as float32 arrays."""

    architecture: str
    channels: int
    latent_channels: int
    allocator: dict | None
    weights: dict[str, np.ndarray]

    @property
    def fingerprint(self) -> str:
        words = ["fixed point 2", self.architecture, self.channels, self.latent_channels]
        if self.allocator is not None:
            words += [self.allocator[key] for key in ("kind", "levels", "width", "classes")]
        digest = hashlib.blake2b(" ".join(map(str, words)).encode("ascii"), digest_size=8)
        for name in sorted(self.weights):
            digest.update(name.encode("ascii") + self.weights[name].astype("<f4").tobytes())
        return digest.hexdigest()


def crc32c(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = 0
    for i in range(5):
        value |= (data[at + i] & 0x7F) << 7 * i
        if data[at + i] < 0x80:
            return value, at + i + 1
    raise ValueError("a varint of more than five bytes")


def read_crc(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def read_container(data: bytes) -> Container:
    if data[:4] not in (b"TPC\x02", b"TPC\x03"):
        raise ValueError("no .tpc file of version 2 or 3")
    width, at = read_varint(data, 12)
    height, at = read_varint(data, at)
    if not (1 <= width <= 65535 and 1 <= height <= 65535 and width * height <= 2**28):
        raise ValueError("impossible size")
    tiles = (read_whole if data[3] == 2 else read_tiles)(data, at, width, height)
    return Container(data[4:12].hex(), width, height, tiles)


def read_whole(data: bytes, at: int, width: int, height: int) -> list[Tile]:
    words, at = read_varint(data, at)
    end = at + 4 * words
    if len(data) != end + 4 or crc32c(data[:end]) != read_crc(data, end):
        raise ValueError("damaged")
    return [Tile(0, 0, width, height, data[at:end])]


def read_tiles(data: bytes, at: int, width: int, height: int) -> list[Tile]:
    units, at = read_varint(data, at)
    side = 64 * units
    if not 1 <= units <= 1024:
        raise ValueError("impossible tiles")
    corners = [(left, top) for top in range(0, height, side) for left in range(0, width, side)]
    index = []
    for _ in corners:
        words, at = read_varint(data, at)
        index.append((4 * words, read_crc(data, at)))
        at += 4
    if crc32c(data[:at]) != read_crc(data, at) or len(data) != at + 4 + sum(size for size, _ in index):
        raise ValueError("damaged")
    at += 4
    tiles = []
    for (left, top), (size, crc) in zip(corners, index, strict=True):
        payload = data[at : at + size]
        if crc32c(payload) != crc:
            raise ValueError("damaged")
        tiles.append(Tile(left, top, min(side, width - left), min(side, height - top), payload))
        at += size
    return tiles


def read_codec(path: Path) -> Codec:
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        if (metadata["format"], metadata["format_version"]) != ("taskpress-codec", "1"):
            raise ValueError("no codec file of version 1")
        weights = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    allocator = json.loads(metadata["allocator"]) if "allocator" in metadata else None
    channels, latent_channels = int(metadata["channels"]), int(metadata["latent_channels"])
    return Codec(metadata["architecture"], channels, latent_channels, allocator, weights)
