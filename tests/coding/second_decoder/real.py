"""Section 3, the real numbers that tables are made of: Python's floats, float64 one operation at a time."""

from __future__ import annotations

import math

INVERSE_LN2 = float.fromhex("0x1.71547652b82fep+0")
LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
TWO_OVER_ROOT_PI = float.fromhex("0x1.20dd750429b6dp+0")
ONE_OVER_ROOT_PI = float.fromhex("0x1.20dd750429b6dp-1")
ROOT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")


def exp(x: float) -> float:
    x = min(max(x, -700.0), 700.0)
    k = round(x * INVERSE_LN2)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    t = 1.0
    for i in range(14, 0, -1):
        t = 1 + (t * r) / i
    return math.ldexp(t, k)


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def tanh(x: float) -> float:
    e = exp(-2 * abs(x))
    sign = (x > 0) - (x < 0)
    return sign * ((1 - e) / (1 + e))


def softplus(x: float) -> float:
    e = exp(-abs(x))
    q = e / (2 + e)
    p = q * q
    t = 0.0
    for i in range(17, -1, -1):
        t = 1 / (2 * i + 1) + t * p
    return max(x, 0.0) + (2 * q) * t


def erfc(x: float) -> float:
    if x < 2.5:
        p = x * x
        d = 2 * p
        t = 1.0
        for i in range(60, 0, -1):
            t = 1 + (t * d) / (2 * i + 1)
        return 1 - ((TWO_OVER_ROOT_PI * x) * exp(-p)) * t
    f = x
    for i in range(80, 0, -1):
        f = x + (0.5 * i) / f
    return (ONE_OVER_ROOT_PI * exp(-x * x)) / f


def above(x: float) -> float:
    return 0.5 * erfc(x * ROOT_HALF)
