"""Section 4: the range coder and escaped values."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

MODULUS = 1 << 64
# The cumulative weights 2^23, 2^23 + 2^22, …, 2^24.
DIGITS = list(accumulate([1 << 23 - d for d in range(15)] + [1 << 9]))


class RangeDecoder:
    def __init__(self, payload: bytes) -> None:
        self._words = [int.from_bytes(payload[i : i + 4], "little") for i in range(0, len(payload), 4)]
        self._at, self._low, self._range = 0, 0, MODULUS - 1
        self._point = self._next() << 32
        self._point |= self._next()

    def _next(self) -> int:
        word = self._words[self._at] if self._at < len(self._words) else 0
        self._at += 1
        return word

    def symbol(self, ends: Sequence[int]) -> int:
        """One symbol by cumulative weights w₀, w₀ + w₁, …, 2^24."""
        symbol = bisect_right(ends, self._quantile())
        before = ends[symbol - 1] if symbol else 0
        self._take(before, ends[symbol] - before)
        return symbol

    def equal(self, bits: int) -> int:
        """One of 2^bits equally likely symbols."""
        weight = 1 << 24 - bits
        symbol = self._quantile() // weight
        self._take(symbol * weight, weight)
        return symbol

    def _quantile(self) -> int:
        q = (self._point - self._low) % MODULUS // (self._range >> 24)
        if q >= 1 << 24:
            raise ValueError("damaged payload")
        return q

    def _take(self, before: int, weight: int) -> None:
        scale = self._range >> 24
        self._low = (self._low + scale * before) % MODULUS
        self._range = scale * weight
        if self._range < 1 << 32:
            self._low = (self._low << 32) % MODULUS
            self._range <<= 32
            self._point = (self._point << 32) % MODULUS | self._next()

    def escaped(self, reaches: list[tuple[int, int]]) -> list[int]:
        """Values beyond (first, last) of their tables, one for each."""
        digits = [self.symbol(DIGITS) for _ in reaches]
        values = []
        for d, (first, last) in zip(digits, reaches, strict=True):
            r = self.equal(d + 1)
            e = 2**d + r // 2
            values.append(first - e if r % 2 else last + e)
            if abs(values[-1]) > 32767:
                raise ValueError("damaged payload")
        return values

    def finish(self) -> None:
        """To be called after the last symbol."""
        if self._at < len(self._words) or (self._point - self._low) % MODULUS >= 2**33 - 1:
            raise ValueError("the payload is longer than its symbols")
