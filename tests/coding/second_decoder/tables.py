"""Section 5: tables of weights."""

from __future__ import annotations

import math
from functools import cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from .range_coder import RangeDecoder
from .real import above, sigmoid, softplus, tanh

TOTAL = 1 << 24


class Table(NamedTuple):
    """Symbols from `first` to `last`, their cumulative weights, and at the end the escape's."""

    first: int
    ends: list[int]

    @property
    def last(self) -> int:
        return self.first + len(self.ends) - 2

    def decode(self, coder: RangeDecoder) -> int | None:
        """A value, or None for one that is escaped."""
        value = self.first + coder.symbol(self.ends)
        return value if value <= self.last else None


def make_table(first: int, masses: list[float], beyond: float) -> Table:
    weights = [max(math.floor(m * TOTAL + 0.5), 1) for m in masses]
    weights.append(max(math.floor(beyond * TOTAL + 0.5), 256))
    rest, most = TOTAL - sum(weights), masses.index(max(masses))
    weights[most if weights[most] + rest >= 1 else -1] += rest
    return Table(first, list(accumulate(weights)))


@cache
def gaussian_table(level: int) -> Table:
    scale = 2.0 ** ((level + 6) // 8 - 4) * (1 + ((level + 6) % 8 + 0.5) / 8) if level else 0.11
    a = [above(0.5 / scale)]
    while len(a) < 2 or 2 * a[-1] >= 2.0**-18:
        a.append(above((len(a) + 0.5) / scale))
    reach = len(a) - 1
    sides = [a[k - 1] - a[k] for k in range(1, reach + 1)]
    return make_table(-reach, [*reversed(sides), 1 - 2 * a[0], *sides], 2 * a[reach])


class Cumulative:
    """The learned cumulative of one channel of z."""

    def __init__(self, weights: dict[str, np.ndarray], channel: int) -> None:
        def values(name: str) -> list:
            return weights[f"entropy_bottleneck.{name}"][channel].tolist()

        self.median = values("quantiles")[0][1]
        self.matrices = [[[softplus(a) for a in row] for row in values(f"matrices.{i}")] for i in range(5)]
        self.biases = [[b for (b,) in values(f"biases.{i}")] for i in range(5)]
        self.factors = [[tanh(g) for (g,) in values(f"factors.{i}")] for i in range(4)]

    def logit(self, offset: float) -> float:
        v = [self.median + offset]
        for i in range(5):
            u = []
            for j, (row, bias) in enumerate(zip(self.matrices[i], self.biases[i], strict=True)):
                total = row[0] * v[0]
                for a, x in zip(row[1:], v[1:], strict=True):
                    total = total + a * x
                total = total + bias
                u.append(total + self.factors[i][j] * tanh(total) if i < 4 else total)
            v = u
        return v[0]

    def past(self, logit: float) -> int:
        low, high = -512, 511
        for _ in range(10):
            middle = (low + high) // 2
            if self.logit(middle + 0.5) > logit:
                high = middle
            else:
                low = middle
        return high

    def mass(self, k: int) -> float:
        a, b = self.logit(k - 0.5), self.logit(k + 0.5)
        if b + a > 0:
            a, b = -a, -b
        return abs(sigmoid(b) - sigmoid(a))

    def table(self) -> Table:
        first, last = min(self.past(-12.5), 0), max(self.past(12.5), 1)
        beyond = sigmoid(self.logit(first - 0.5)) + sigmoid(-self.logit(last + 0.5))
        return make_table(first, [self.mass(k) for k in range(first, last + 1)], beyond)
