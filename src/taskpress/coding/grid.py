"""How a large picture is cut into tiles.

A square grid from the upper left corner; tiles of the last column and row are what is left. The side is a
multiple of 64, so every tile is padded and coded as a picture of its size would be.
"""

from collections.abc import Iterator
from typing import NamedTuple

UNIT = 64
MAX_SIDE_UNITS = 1024


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

    def overlaps(self, other: "Box") -> bool:
        """Whether they share a pixel."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def grown(self, margin: int, limit: "Box") -> "Box":
        """Larger by `margin` to all sides, but not beyond `limit`."""
        return Box(
            max(self.left - margin, limit.left),
            max(self.top - margin, limit.top),
            min(self.right + margin, limit.right),
            min(self.bottom + margin, limit.bottom),
        )


class Grid(NamedTuple):
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

    def touched(self, region: Box) -> Iterator[int]:
        """The numbers of the tiles that share pixels with a region."""
        return (number for number in range(len(self)) if self.box(number).overlaps(region))
