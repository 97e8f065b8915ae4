"""How a large picture is cut into tiles.

A square grid from the upper left corner; tiles of the last column and row are what is left. The side is a
multiple of 64, so every tile is padded and coded as a picture of its size would be.
"""

from dataclasses import dataclass
from typing import NamedTuple

CELL = 16
"""Pixels a side of a latent position."""
UNIT = 64
"""Pictures and tiles are padded to multiples of it: a position of the hyper-latent."""
MAX_TILE_UNITS = 1024


class Box(NamedTuple):
    """Pixels from (left, top) to before (right, bottom)."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def within(self, other: "Box") -> "Box":
        """What both cover; empty (no width or no height, or less) where that is nothing."""
        return Box(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )

    def grown(self, margin: int) -> "Box":
        """Larger by `margin` to all sides."""
        return Box(self.left - margin, self.top - margin, self.right + margin, self.bottom + margin)

    def moved(self, right: int, down: int) -> "Box":
        """The same box elsewhere."""
        return Box(self.left + right, self.top + down, self.right + right, self.bottom + down)

    def outward(self, step: int) -> "Box":
        """The smallest box around it whose sides lie on multiples of `step`."""
        return Box(
            self.left // step * step,
            self.top // step * step,
            -(-self.right // step) * step,
            -(-self.bottom // step) * step,
        )

    def slices(self, step: int = 1) -> tuple[slice, slice]:
        """(rows, columns) of an array with a cell for each step × step pixels; sides are multiples of it."""
        return (
            slice(self.top // step, self.bottom // step),
            slice(self.left // step, self.right // step),
        )


@dataclass(frozen=True)
class Grid:
    """The tiles of a picture of width × height pixels; `side` in pixels."""

    width: int
    height: int
    side: int

    @property
    def columns(self) -> int:
        return -(-self.width // self.side)

    @property
    def rows(self) -> int:
        return -(-self.height // self.side)

    def __len__(self) -> int:
        return self.columns * self.rows

    def box(self, number: int) -> Box:
        """The pixels of a tile; tiles are numbered row by row."""
        row, column = divmod(number, self.columns)
        left, top = column * self.side, row * self.side
        return Box(left, top, min(left + self.side, self.width), min(top + self.side, self.height))

    def name(self, number: int) -> str:
        """How messages call a tile."""
        row, column = divmod(number, self.columns)
        return f"tile {number} (column {column}, row {row})"

    def touched(self, region: Box) -> list[int]:
        """The numbers of the tiles that share pixels with a region."""
        return [
            row * self.columns + column
            for row in range(region.top // self.side, -(-min(region.bottom, self.height) // self.side))
            for column in range(region.left // self.side, -(-min(region.right, self.width) // self.side))
        ]
