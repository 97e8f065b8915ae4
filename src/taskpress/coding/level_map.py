"""The map of quantization levels in the bitstream: lossless, in whole numbers, by its neighbours.

A cell is predicted from those already coded, left (a), above (b), above left (c) and above right (d):

    c b d      is it a?  ── no, and b differs from a: is it b?  ── no: is it the level nearest to a, the
    a x                                                             next nearest, … of those that are left?

Each question has a context and its own odds, which start at what a map of regions suggests and are counted
from there on by both sides alike.

As it stands in front of a codec's payload:

    bytes   what
    1..5    words of the whole section, this length included (LEB128 varint)
    …       the coded map, filled with zeros to a whole number of 32-bit words
"""

import math
from collections.abc import Callable

import numpy as np

from taskpress.coding.binary_coder import BinaryDecoder, BinaryEncoder, Odds
from taskpress.errors import BitstreamError

WORD = 4
LENGTH_BYTES = 5
# Asks or tells one decision: (odds, what it is, where known) → what it is.
Code = Callable[[Odds, bool], bool]


def write_levels(levels: np.ndarray, count: int) -> bytes:
    """The section of a map [h, w] of integers in 0 … `count` - 1, a whole number of words."""
    encoder = BinaryEncoder()
    _walk(levels, levels.shape[0], levels.shape[1], count, encoder.code)
    coded = encoder.finish()
    for length in range(1, LENGTH_BYTES + 1):
        words = -(-(length + len(coded)) // WORD)
        if words < 1 << 7 * length:
            break
    prefix = bytes((words >> 7 * i) & 0x7F | (0x80 if i < length - 1 else 0) for i in range(length))
    return (prefix + coded).ljust(WORD * words, b"\0")


def split_section(payload: bytes) -> tuple[bytes, bytes]:
    """(section, what follows it) of a payload; BitstreamError where it holds no whole section."""
    words = 0
    for i, byte in enumerate(payload[:LENGTH_BYTES]):
        words |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if not 1 <= words <= len(payload) // WORD:
                raise BitstreamError(f"the level map claims {words} words of {len(payload) // WORD}")
            return payload[: WORD * words], payload[WORD * words :]
    raise BitstreamError("the level map's length is malformed")


def read_levels(section: bytes, height: int, width: int, count: int) -> np.ndarray:
    """The map, int64 [height, width], of a section; BitstreamError where no such map is written so."""
    start = next(i for i, byte in enumerate(section) if byte < 0x80) + 1
    levels = _walk(None, height, width, count, BinaryDecoder(section[start:]).code)
    # Any bytes decode to some map; only those that it would be written as are a map's.
    if write_levels(levels, count) != section:
        raise BitstreamError("the level map is damaged")
    return levels


def level_bits(levels: np.ndarray, count: int) -> float:
    """Bits that the map [h, w] costs by its odds; the section adds its length and what fills the word."""
    bits = 0.0

    def add(odds: Odds, bit: bool) -> bool:
        nonlocal bits
        bits -= math.log2((odds.yes if bit else odds.no) / (odds.no + odds.yes))
        return bit

    _walk(levels, levels.shape[0], levels.shape[1], count, add)
    return bits


class _Questions:
    """The odds of every question, and the order in which they are asked of one cell."""

    def __init__(self, count: int, code: Code) -> None:
        self.levels, self._code = range(count), code
        # By which neighbours agree: left with above, above with its left, above with its right.
        self.same_left = [Odds(1, 15 if key == 7 else 1 + 2 * (key & 1)) for key in range(8)]
        self.same_above = [Odds(1, 3) for _ in range(4)]
        self.nearest = [Odds(1, 2) for _ in range(count)]

    def cell(self, left: int, above: int, corner: int, right: int, value: int) -> int:
        """The level of a cell between these neighbours; `value` is what an encoder knows it is."""
        key = (left == above) + 2 * (above == corner) + 4 * (above == right)
        if self._ask(self.same_left[key], value == left):
            return left
        rest = sorted((level for level in self.levels if level != left), key=lambda level: abs(level - left))
        if above != left:
            if self._ask(self.same_above[(corner == left) + 2 * (above == right)], value == above):
                return above
            rest.remove(above)
        for odds, level in zip(self.nearest, rest[:-1], strict=False):
            if self._ask(odds, value == level):
                return level
        return rest[-1]

    def _ask(self, odds: Odds, bit: bool) -> bool:
        bit = self._code(odds, bit)
        odds.count(bit)
        return bit


def _walk(known: np.ndarray | None, height: int, width: int, count: int, code: Code) -> np.ndarray:
    """The map, cell by cell in raster order; a decoder does not know it yet (None).

    A neighbour outside is taken to be the one above or, in the first row, left; before all, the middle level.
    """
    wanted = known.tolist() if known is not None else [[-1] * width] * height
    questions = _Questions(count, code)
    rows: list[list[int]] = []
    for values in wanted:
        row: list[int] = []
        for j, value in enumerate(values):
            if rows:
                above = rows[-1][j]
                left = row[-1] if j else above
                corner = rows[-1][j - 1] if j else above
                right = rows[-1][j + 1] if j + 1 < width else above
            else:
                left = above = corner = right = row[-1] if j else count // 2
            row.append(questions.cell(left, above, corner, right, value))
        rows.append(row)
    return np.array(rows, dtype=np.int64)
