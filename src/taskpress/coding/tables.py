"""Integer tables of probability: one for each scale level of a Gaussian, one for each channel of z.

A table's weights are whole numbers that sum to 2^24 exactly; its last entry is the escape, behind which a
value that the table does not reach is written in full. They come from the arithmetic of `exact_math`, so
every machine finds the same. constriction turns floats into its own fixed point by adding one to each of them
scaled to 2^24 less their number: given weights less one, which sum to just that, it scales by 1.0 and adds
whole numbers below 2^53, and so keeps them as they are.
"""

from functools import lru_cache
from typing import NamedTuple

import constriction
import numpy as np

from taskpress.coding import exact_math
from taskpress.coding.entropy_models import EntropyBottleneck
from taskpress.errors import BitstreamError, CodecError

PRECISION = 24
TOTAL = 1 << PRECISION
# A table ends where less than this is left: Gaussians fit latents, but not that far out. Both are 3.7e-6.
TAIL = 2.0**-18
TAIL_LOGIT = 12.5
ESCAPE_WEIGHT = 1 << (PRECISION - 16)
# A scale's level is its exponent and the first bits of its mantissa.
OCTAVE_BITS = 3
LOWEST_SCALE = 0.11
# 7/64, the last boundary below 0.11, and 256.
LEVEL_LOW, LEVEL_HIGH = 0.109375, 256.0
SYMBOL_LIMIT = 2**15 - 1
Z_REACH = 511


class Table(NamedTuple):
    """Symbols low, low + 1, … and then the escape. `weights` is int64 and sums to 2^24."""

    low: int
    weights: np.ndarray
    model: constriction.stream.model.Categorical

    @property
    def escape(self) -> int:
        return len(self.weights) - 1


def make_table(low: int, mass: np.ndarray, beyond: float) -> Table:
    """The table of probabilities `mass` (float64) for symbols from `low` on; `beyond` is for all others."""
    weights = np.floor(np.append(mass, beyond) * TOTAL + 0.5).astype(np.int64)
    weights = np.maximum(weights, 1)
    weights[-1] = max(weights[-1], ESCAPE_WEIGHT)
    # What rounding left over goes to the most likely symbol, which notices it least; where even that has less
    # to give, nearly everything lies beyond the table.
    rest, most = TOTAL - weights.sum(), np.argmax(mass)
    weights[most if weights[most] + rest >= 1 else -1] += rest
    return Table(low, weights, _model(weights))


def _model(weights: np.ndarray) -> constriction.stream.model.Categorical:
    """Weights ≥ 1 that sum to 2^24, as constriction wants them: see above."""
    return constriction.stream.model.Categorical((weights - 1).astype(np.float64), perfect=False)


def _level_bits(scale: np.ndarray) -> np.ndarray:
    return scale.view(np.int64) >> (52 - OCTAVE_BITS)


_FIRST_LEVEL = int(_level_bits(np.array(LEVEL_LOW)))
LEVELS = int(_level_bits(np.array(LEVEL_HIGH))) - _FIRST_LEVEL


def scale_levels(scales: np.ndarray) -> np.ndarray:
    """uint8 levels of `scales`, float64 and contiguous: eight to an octave, by IEEE exponent and mantissa."""
    limited = np.minimum(np.maximum(scales, LEVEL_LOW), LEVEL_HIGH * (1 - 2.0**-30))
    return (_level_bits(limited) - _FIRST_LEVEL).astype(np.uint8)


def level_scale(level: int) -> float:
    """The middle of a level; the lowest also stands for all scales below, which mean 0.11."""
    if level == 0:
        return LOWEST_SCALE
    steps = 1 << OCTAVE_BITS
    octave, eighth = divmod(level + _FIRST_LEVEL, steps)
    return float(2.0 ** (octave - 1023) * (1 + (eighth + 0.5) / steps))


@lru_cache(maxsize=1)
def gaussian_tables() -> list[Table]:
    """One for each scale level: a zero-mean Gaussian over bins of width one, symmetric around zero."""
    tables = []
    for level in range(LEVELS):
        scale = level_scale(level)
        # 4.7 standard deviations leave 2^-18 outside.
        above = exact_math.normal_above((np.arange(int(5 * scale) + 3) + 0.5) / scale)
        reach = max(int(np.argmax(2 * above < TAIL)), 1)
        positive = above[:reach] - above[1 : reach + 1]
        centre = 1 - 2 * above[:1]
        mass = np.concatenate([positive[::-1], centre, positive])
        tables.append(make_table(-reach, mass, 2 * float(above[reach])))
    return tables


@lru_cache(maxsize=1)
def least_bits() -> float:
    """What the cheapest symbol of all Gaussian tables costs."""
    return min(float(-np.log2(table.weights.max() / TOTAL)) for table in gaussian_tables())


def z_tables(bottleneck: EntropyBottleneck) -> list[Table]:
    """One for each channel, symbols being offsets from the median; CodecError where weights are not finite.

    A table covers what the learned cumulative calls likely, at most ±511, and never consults the tail
    quantiles, which may not have converged.
    """
    numbers = [
        [p.detach().to("cpu").double().numpy() for p in group]
        for group in (bottleneck.matrices, bottleneck.biases, bottleneck.factors)
    ]
    medians = bottleneck.quantiles[:, 0, 1].detach().to("cpu").double().numpy()
    if not all(np.isfinite(p).all() for group in (*numbers, [medians]) for p in group):
        raise CodecError("the entropy bottleneck holds weights that are not finite")
    matrices = [exact_math.softplus(matrix) for matrix in numbers[0]]
    factors = [exact_math.tanh(factor) for factor in numbers[2]]

    def below(offset: np.ndarray) -> np.ndarray:
        """Logits of P(value ≤ median + offset), [C, n] for offsets [C, n] or [n]."""
        logits = [medians[:, None] + offset]
        for i, (matrix, bias) in enumerate(zip(matrices, numbers[1], strict=True)):
            # Written-out sums: a matrix product would add in an order of its own.
            mixed = []
            for row in range(matrix.shape[1]):
                total = matrix[:, row, :1] * logits[0]
                for column in range(1, matrix.shape[2]):
                    total = total + matrix[:, row, column : column + 1] * logits[column]
                total = total + bias[:, row]
                if i < len(factors):
                    total = total + factors[i][:, row] * exact_math.tanh(total)
                mixed.append(total)
            logits = mixed
        return logits[0]

    ends = []
    for logit, side in ((-TAIL_LOGIT, -1), (TAIL_LOGIT, 1)):
        # The first whole offset at which the cumulative is past `logit`, by halving.
        outer, inner = np.full(len(medians), -Z_REACH - 1), np.full(len(medians), Z_REACH)
        for _ in range(10):
            middle = (outer + inner) >> 1
            past = below(middle[:, None] + 0.5)[:, 0] > logit
            outer, inner = np.where(past, outer, middle), np.where(past, middle, inner)
        ends.append(np.minimum(inner, 0) if side < 0 else np.maximum(inner, 1))
    low, high = (end.tolist() for end in ends)
    edges = np.arange(min(low), max(high) + 2) - 0.5
    logits = below(edges)
    # On whichever side both are small, where the difference keeps its digits.
    sign = np.where(logits[:, 1:] + logits[:, :-1] > 0, -1.0, 1.0)
    mass = np.abs(exact_math.sigmoid(sign * logits[:, 1:]) - exact_math.sigmoid(sign * logits[:, :-1]))
    outside = exact_math.sigmoid(logits), exact_math.sigmoid(-logits)
    tables = []
    for channel, (first, last) in enumerate(zip(low, high, strict=True)):
        left, right = first - min(low), last - min(low) + 1
        beyond = float(outside[0][channel, left] + outside[1][channel, right])
        tables.append(make_table(first, mass[channel, left:right], beyond))
    return tables


# An escaped value's excess + 1 has 1…16 binary digits; each digit more is half as likely.
_DIGITS = 16
_DIGITS_MODEL = _model(TOTAL >> np.minimum(np.arange(1, _DIGITS + 1), _DIGITS - 1))
_UNIFORM = constriction.stream.model.Uniform()


def encode_escaped(
    coder: constriction.stream.queue.RangeEncoder, values: np.ndarray, low: np.ndarray, high: np.ndarray
) -> None:
    """Exp-Golomb code of int64 `values` that lie outside low…high; a sign, and how far."""
    negative = values < low
    excess = np.where(negative, low - values, values - high)
    digits = np.frexp(excess.astype(np.float64))[1] - 1
    coder.encode(digits.astype(np.int32), _DIGITS_MODEL)
    rest = 2 * (excess - (1 << digits)) + negative
    coder.encode(rest.astype(np.int32), _UNIFORM, (2 << digits).astype(np.int32))


def decode_escaped(
    coder: constriction.stream.queue.RangeDecoder, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """int64 values outside low…high, as many as those; BitstreamError for one that no encoder writes."""
    digits = coder.decode(_DIGITS_MODEL, len(low)).astype(np.int64)
    rest = coder.decode(_UNIFORM, (2 << digits).astype(np.int32)).astype(np.int64)
    excess = (1 << digits) + (rest >> 1)
    values = np.where(rest & 1, low - excess, high + excess)
    if np.abs(values).max(initial=0) > SYMBOL_LIMIT:
        raise BitstreamError("the payload holds a value out of range")
    return values
