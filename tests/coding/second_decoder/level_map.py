"""Section 9: the level map."""

from __future__ import annotations

import numpy as np

from .container import read_varint


class BinaryDecoder:
    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._range, self._value = data, 0, 2**32 - 1, 0
        for _ in range(4):
            self._value = self._value * 256 + self._next()

    def _next(self) -> int:
        byte = self._data[self._at] if self._at < len(self._data) else 0
        self._at += 1
        return byte

    def decide(self, odds: list[int]) -> bool:
        """A decision by odds [no, yes], which then count it."""
        no, yes = odds
        split = self._range * no // (no + yes)
        answer = self._value >= split
        if answer:
            self._value, self._range = self._value - split, self._range - split
        else:
            self._range = split
        while self._range < 2**24:
            self._value, self._range = self._value * 256 + self._next(), self._range * 256
        odds[answer] += 1
        if sum(odds) >= 256:
            odds[:] = [(odds[0] + 1) // 2, (odds[1] + 1) // 2]
        return answer


def split_level_map(payload: bytes) -> tuple[bytes, bytes]:
    """(coded map, what the range coder wrote)."""
    words, at = read_varint(payload, 0)
    if not 4 * words <= len(payload):
        raise ValueError("damaged level map")
    return payload[at : 4 * words], payload[4 * words :]


def decode_levels(coded: bytes, height: int, width: int, count: int) -> np.ndarray:
    """Levels [h, w]."""
    decoder = BinaryDecoder(coded)
    is_left = [[1, 15] if key == 7 else [1, 3] if key % 2 else [1, 1] for key in range(8)]
    is_above = [[1, 3] for _ in range(4)]
    is_next = [[1, 2] for _ in range(count)]
    levels = np.zeros((height, width), np.int64)

    def cell(left: int, above: int, above_left: int, above_right: int) -> int:
        key = (left == above) + 2 * (above == above_left) + 4 * (above == above_right)
        if decoder.decide(is_left[key]):
            return left
        rest = [level for level in range(count) if level != left]
        if above != left:
            if decoder.decide(is_above[(above_left == left) + 2 * (above == above_right)]):
                return above
            rest.remove(above)
        rest.sort(key=lambda level: (abs(level - left), level))
        for odds, level in zip(is_next, rest[:-1], strict=False):
            if decoder.decide(odds):
                return level
        return rest[-1]

    for i in range(height):
        for j in range(width):
            if i:
                above = int(levels[i - 1, j])
                left = int(levels[i, j - 1]) if j else above
                above_left = int(levels[i - 1, j - 1]) if j else above
                above_right = int(levels[i - 1, j + 1]) if j + 1 < width else above
            else:
                left = above = above_left = above_right = int(levels[0, j - 1]) if j else count // 2
            levels[i, j] = cell(left, above, above_left, above_right)
    return levels
