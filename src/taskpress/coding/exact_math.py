"""Functions that give the same bits on every machine.

`np.exp`, `torch.tanh` or a libm's `erf` differ by instruction set and library in their last bits, and a last
bit can decide how a probability is rounded. Sums, differences, products, quotients and roundings of single
float64 numbers may not differ: IEEE 754 fixes them. All here is made of those, elementwise and in written
order; accurate to about 1e-13, which the tests hold against scipy and mpmath.
"""

import math

import numpy as np

# ln 2 in two parts, the first with so few bits that its small multiples are exact.
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_INVERSE_LN2 = float.fromhex("0x1.71547652b82fep+0")
_TWO_OVER_ROOT_PI = float.fromhex("0x1.20dd750429b6dp+0")
# Beyond these, e^x would leave float64's normal range.
_EXP_LIMIT = 700.0


def exp(x: np.ndarray) -> np.ndarray:
    """e^x, x limited to ±700. Halvings of ln 2 are split off, the rest is a Taylor polynomial."""
    x = np.minimum(np.maximum(x, -_EXP_LIMIT), _EXP_LIMIT)
    k = np.rint(x * _INVERSE_LN2)
    rest = (x - k * _LN2_HIGH) - k * _LN2_LOW
    # |rest| ≤ 0.35: the 14th term is below 1e-17.
    total = np.ones_like(rest)
    for i in range(14, 0, -1):
        total = 1.0 + total * rest / i
    return np.ldexp(total, k.astype(np.int32))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + exp(-x))


def tanh(x: np.ndarray) -> np.ndarray:
    """tanh x, to 1e-16 absolute."""
    small = exp(-2.0 * np.abs(x))
    return np.sign(x) * ((1.0 - small) / (1.0 + small))


def softplus(x: np.ndarray) -> np.ndarray:
    """ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)."""
    small = exp(-np.abs(x))
    # ln(1 + t) = 2 artanh(t / (2 + t)), whose argument is at most 1/3: 1/9^17 is below 1e-16.
    ratio = small / (2.0 + small)
    square = ratio * ratio
    total = np.zeros_like(ratio)
    for i in range(17, -1, -1):
        total = 1.0 / (2 * i + 1) + total * square
    return np.maximum(x, 0.0) + 2.0 * ratio * total


def erfc(x: np.ndarray) -> np.ndarray:
    """1 - erf(x) for x ≥ 0: erf's series of positive terms below 2.5, a continued fraction above.

    The smaller the result the fewer correct digits the series leaves it: absolute error 1e-15 below 2.5,
    relative error 1e-13 above.
    """
    x = np.asarray(x, dtype=np.float64)
    near, far = np.minimum(x, 2.5), np.maximum(x, 2.5)
    square = near * near
    series = np.ones_like(near)
    for i in range(60, 0, -1):
        series = 1.0 + series * (2.0 * square) / (2 * i + 1)
    inside = 1.0 - _TWO_OVER_ROOT_PI * near * exp(-square) * series
    # Lentz backwards: erfc(x) = e^-x² / √π · 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + …)))).
    fraction = far
    for i in range(80, 0, -1):
        fraction = far + 0.5 * i / fraction
    outside = 0.5 * _TWO_OVER_ROOT_PI * exp(-far * far) / fraction
    return np.where(x < 2.5, inside, outside)


def normal_above(x: np.ndarray) -> np.ndarray:
    """P(standard normal > x) for x ≥ 0."""
    return 0.5 * erfc(x * math.sqrt(0.5))
