"""Section 3, layers in whole numbers, and section 6's network of them."""

from __future__ import annotations

import numpy as np

ACTIVATION_LIMIT, LATENT_LIMIT = 2**28, 2**24


class Layer:
    """Weights [outputs, …] and bias [outputs] as whole numbers; `fraction` and `limit` are the inputs'."""

    def __init__(
        self, weight: np.ndarray, bias: np.ndarray, fraction: int = 14, limit: int = ACTIVATION_LIMIT
    ):
        weight, bias = weight.astype(np.float64), bias.astype(np.float64)
        if max(np.abs(weight).max(), np.abs(bias).max()) >= 2**24:
            raise ValueError("weights too large")
        for bits in range(24, 14 - fraction, -1):
            self.weight = np.rint(weight * 2.0**bits).astype(np.int64)
            self.bias = np.rint(bias * 2.0 ** (bits + fraction)).astype(np.int64)
            self.shift = bits + fraction - 14
            sums = np.abs(self.weight).reshape(len(weight), -1).sum(1).tolist()
            most = max(limit * total + abs(end) for total, end in zip(sums, self.bias.tolist(), strict=True))
            if most + 2 ** (self.shift - 1) < 2**53:
                return
        raise ValueError("weights too large")

    def settle(self, sums: np.ndarray) -> np.ndarray:
        """Σ V·x [outputs, …] to activations."""
        bias = self.bias.reshape(-1, *[1] * (sums.ndim - 1))
        out = sums + bias + (1 << self.shift - 1) >> self.shift
        return np.clip(out, -ACTIVATION_LIMIT, ACTIVATION_LIMIT)


def leaky_relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 655 * x + 32768 >> 16)


def convolve(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """k×k of stride 1 over x [inputs, rows, columns], in x's type."""
    rows, columns, half = *x.shape[1:], weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half)))
    out = np.zeros((len(weight), rows, columns), x.dtype)
    for u in range(weight.shape[2]):
        for v in range(weight.shape[3]):
            out += np.einsum("on,nij->oij", weight[:, :, u, v], padded[:, u : u + rows, v : v + columns])
    return out


def convolve_transposed(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Transposed 5×5 ↑2; `weight` is [inputs, outputs, 5, 5]."""
    _, rows, columns = x.shape
    out = np.zeros((weight.shape[1], 2 * rows + 3, 2 * columns + 3), x.dtype)
    for u in range(5):
        for v in range(5):
            out[:, u : u + 2 * rows : 2, v : v + 2 * columns : 2] += np.einsum(
                "no,nij->oij", weight[:, :, u, v], x
            )
    return out[:, 2 : 2 * rows + 2, 2 : 2 * columns + 2]


def shuffle(x: np.ndarray) -> np.ndarray:
    channels, rows, columns = x.shape
    parts = x.reshape(channels // 4, 2, 2, rows, columns)
    return parts.transpose(0, 3, 1, 4, 2).reshape(channels // 4, 2 * rows, 2 * columns)


def hyper_synthesis(weights: dict[str, np.ndarray], z: np.ndarray) -> np.ndarray:
    """Activations [N, h/4, w/4] to activations [2M, h, w]."""

    def convolved(name: str, x: np.ndarray) -> np.ndarray:
        layer = Layer(weights[f"{name}.weight"], weights[f"{name}.bias"])
        return layer.settle(convolve(x, layer.weight))

    def transposed(name: str, x: np.ndarray) -> np.ndarray:
        layer = Layer(weights[f"{name}.weight"].swapaxes(0, 1), weights[f"{name}.bias"])
        return layer.settle(convolve_transposed(x, layer.weight.swapaxes(0, 1)))

    if "h_s.8.weight" in weights:
        x = leaky_relu(convolved("h_s.0", z))
        x = leaky_relu(shuffle(convolved("h_s.2.0", x)))
        x = leaky_relu(convolved("h_s.4", x))
        x = leaky_relu(shuffle(convolved("h_s.6.0", x)))
        return convolved("h_s.8", x)
    x = leaky_relu(transposed("h_s.0", z))
    x = leaky_relu(transposed("h_s.2", x))
    return convolved("h_s.4", x)
