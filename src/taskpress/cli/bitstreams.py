"""Which .tpc files are meant, and which codec each of them needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from taskpress.cli.standard import STANDARD
from taskpress.coding.bitstream import MAGIC, unpack
from taskpress.coding.files import files_below
from taskpress.coding.grid import Box
from taskpress.coding.picture_coding import cut
from taskpress.coding.picture_files import size_of
from taskpress.errors import BitstreamError, ConfigError, ImageError


def find_bitstreams(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """(file, name relative to the output folder) of files given and of every .tpc below folders given."""
    found = []
    for path in paths:
        if path != STANDARD and path.is_dir():
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


def check_left_out(
    path: Path, fingerprints: Sequence[str], source: Path, resize: int | None, tile: int | None
) -> None:
    """ConfigError where a .tpc file that is there already is not what would be coded from the source now.

    Told by its header: codec, size and tiles, not precision or refinement. A source that cannot be read has
    nothing to be coded.
    """
    data = read_bitstream(path)
    try:
        header = unpack(data)[0]
    except BitstreamError as error:
        raise ConfigError(f"{path}: {error}; remove it, or code all anew with --force") from None
    if header.fingerprint not in fingerprints:
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
