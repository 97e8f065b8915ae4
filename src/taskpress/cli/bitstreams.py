"""Which .tpc files are meant, and which codec each of them needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from taskpress.coding.bitstream import MAGIC, unpack
from taskpress.coding.checkpoints import shipped_names
from taskpress.coding.codec import Codec, Region
from taskpress.coding.files import files_below
from taskpress.coding.grid import Box
from taskpress.coding.images import size_of
from taskpress.coding.picture_coding import cut
from taskpress.coding.transforms import check_precision
from taskpress.errors import BitstreamError, ConfigError, ImageError, TaskPressError


def find_bitstreams(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """(file, name relative to the output folder) of files given and of every .tpc below folders given."""
    found = []
    for path in paths:
        if path.is_dir():
            inside = files_below(path, {".tpc"})
            if not inside:
                raise BitstreamError(f"{path}: holds no .tpc file")
            found += [(file, file.relative_to(path)) for file in inside]
        else:
            found.append((path, Path(path.name)))
    return found


def read_bitstream(path: Path) -> bytes:
    """The bytes of a .tpc file; BitstreamError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BitstreamError(f"{path}: cannot be read ({error.strerror or error})") from None


def is_bitstream(path: Path) -> bool:
    """Whether a file is one of ours, by its name or, whatever it is called, by its first bytes."""
    if path.suffix.lower() == ".tpc":
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def check_left_out(path: Path, fingerprint: str, source: Path, resize: int | None, tile: int | None) -> None:
    """ConfigError where a .tpc file that is there already is not what would be coded from the source now.

    Told by its header: codec, size and tiles, not precision or refinement. A source that cannot be read has
    nothing to be coded.
    """
    data = read_bitstream(path)
    try:
        header = unpack(data)[0]
    except BitstreamError as error:
        raise ConfigError(f"{path}: {error}; remove it, or code all anew with --force") from None
    if header.fingerprint != fingerprint:
        raise ConfigError(
            f"{path}: was coded with another codec, {header.fingerprint}; choose another folder with -o, or "
            "code anew with --force"
        )
    try:
        width, height = size_of(source, resize)
    except ImageError:
        return
    grid = cut(Box(0, 0, width, height), tile)
    wanted = _described(width, height, grid.side if len(grid) > 1 else 0)
    if (there := _described(header.width, header.height, header.side)) != wanted:
        raise ConfigError(
            f"{path}: has {there}, where {source} now makes {wanted}; choose another folder with -o, or code "
            "anew with --force"
        )


def _described(width: int, height: int, side: int) -> str:
    return f"{width}×{height} pixels " + (f"in tiles of {side}" if side else "in one piece")


class CodecFinder:
    """Finds codecs by fingerprint among those given and those shipped; each is loaded once."""

    def __init__(self, given: Sequence[str], precision: str = "float32", device: str = "cpu") -> None:
        self._precision, self._device = check_precision(precision), device
        self._unread = shipped_names()
        self._by_fingerprint: dict[str, tuple[str, Codec]] = {}
        self._lock = Lock()
        for name in given:
            self._add(name)

    def find(self, path: Path, data: bytes) -> tuple[str, Codec]:
        """Name and codec for the bitstream `data` of file `path`; BitstreamError where none fits."""
        try:
            fingerprint = unpack(data)[0].fingerprint
        except BitstreamError as error:
            raise BitstreamError(f"{path}: {error}") from None
        with self._lock:
            while fingerprint not in self._by_fingerprint and self._unread:
                self._add(self._unread.pop(0))
            if fingerprint not in self._by_fingerprint:
                raise BitstreamError(
                    f"{path}: was coded with codec {fingerprint}, none of those known; name it with --codec"
                )
            return self._by_fingerprint[fingerprint]

    def _add(self, name: str) -> None:
        codec = Codec.load(name, self._precision).to(self._device)
        self._by_fingerprint[codec.fingerprint] = (name, codec)

    def decode(self, path: Path, region: Region | None = None) -> tuple[str, NDArray[np.uint8]]:
        """Name of the codec and the picture, or a region of it, uint8 [H, W, 3], of a .tpc file."""
        data = read_bitstream(path)
        name, codec = self.find(path, data)
        try:
            return name, codec.decode(data, as_="numpy", region=region)
        except TaskPressError as error:
            raise type(error)(f"{path}: {error}") from None
