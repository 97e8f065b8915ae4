"""Binary range coding in whole numbers: bytes for yes/no decisions whose odds both sides count alike.

The interval of Martin's range coder (1979): 32 bits wide at most, renormalized byte by byte, a carry is added
to the bytes already written. No floating point takes part, so every machine decodes what any other wrote.
"""

TOP = 1 << 32
BOTTOM = 1 << 24


class Odds:
    """How often a decision fell out as no and as yes; halved at 256, so that the recent counts most."""

    __slots__ = ("no", "yes")

    def __init__(self, no: int, yes: int) -> None:
        self.no, self.yes = no, yes

    def count(self, bit: bool) -> None:
        if bit:
            self.yes += 1
        else:
            self.no += 1
        if self.no + self.yes >= 256:
            self.no, self.yes = (self.no + 1) // 2, (self.yes + 1) // 2


class BinaryEncoder:
    """Writes decisions; `finish` gives the bytes, without trailing zeros."""

    def __init__(self) -> None:
        self._low, self._range = 0, TOP - 1
        self._bytes = bytearray()

    def code(self, odds: Odds, bit: bool) -> bool:
        """Writes one decision at the odds as they stand; returns it."""
        split = self._range * odds.no // (odds.no + odds.yes)
        if bit:
            self._low, self._range = self._low + split, self._range - split
        else:
            self._range = split
        while self._range < BOTTOM:
            self._shift()
            self._range <<= 8
        return bit

    def finish(self) -> bytes:
        # Of all values in the interval, one that ends in as many zeros as possible.
        for zeros in range(32, -1, -1):
            value = -(-self._low >> zeros) << zeros
            if value < self._low + self._range:
                break
        self._low = value
        for _ in range(4):
            self._shift()
        return bytes(self._bytes.rstrip(b"\0"))

    def _shift(self) -> None:
        if self._low >= TOP:
            place = len(self._bytes) - 1
            while self._bytes[place] == 0xFF:
                self._bytes[place] = 0
                place -= 1
            self._bytes[place] += 1
            self._low -= TOP
        self._bytes.append(self._low >> 24)
        self._low = (self._low & (BOTTOM - 1)) << 8


class BinaryDecoder:
    """Reads what `BinaryEncoder` wrote; behind the end of the bytes there are zeros."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._range = data, 4, TOP - 1
        self._value = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def code(self, odds: Odds, bit: bool = False) -> bool:
        """Reads one decision at the odds as they stand; `bit` is what an encoder is told, unused here."""
        split = self._range * odds.no // (odds.no + odds.yes)
        bit = self._value >= split
        if bit:
            self._value, self._range = self._value - split, self._range - split
        else:
            self._range = split
        while self._range < BOTTOM:
            byte = self._data[self._at] if self._at < len(self._data) else 0
            self._at += 1
            self._value = (self._value << 8 | byte) & (TOP - 1)
            self._range <<= 8
        return bit
