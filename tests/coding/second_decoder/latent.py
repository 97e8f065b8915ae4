"""Sections 6 and 7: from the payload to ŷ."""

from __future__ import annotations

import numpy as np

from .container import Codec
from .range_coder import RangeDecoder
from .tables import Cumulative, Table, gaussian_table
from .whole import ACTIVATION_LIMIT, LATENT_LIMIT, Layer, hyper_synthesis, leaky_relu

TAPS = [(u, v) for u in range(3) for v in range(5) if u <= 1 or v <= 1]


def decode_latent(codec: Codec, payload: bytes, height: int, width: int) -> np.ndarray:
    """ŷ · 2^8, int64 [M, h, w], of a payload behind its level map."""
    coder = RangeDecoder(payload)
    z = decode_hyper_latent(codec, coder, height // 4, width // 4)
    params = hyper_synthesis(codec.weights, z)
    if codec.architecture == "mean-scale-hyperprior":
        rows, columns = np.divmod(np.arange(height * width), width)
        y = decode_step(coder, params[:, rows, columns].T).T.reshape(-1, height, width)
    else:
        y = decode_wavefront(codec, coder, params)
    coder.finish()
    return y


def decode_hyper_latent(codec: Codec, coder: RangeDecoder, height: int, width: int) -> np.ndarray:
    """z as activations, int64 [N, h/4, w/4]."""
    cumulatives = [Cumulative(codec.weights, channel) for channel in range(codec.channels)]
    tables = [cumulative.table() for cumulative in cumulatives]
    of_values = [table for table in tables for _ in range(height * width)]
    values = with_escaped(coder, [table.decode(coder) for table in of_values], of_values)
    offsets = np.array(values).reshape(-1, height, width)
    medians = np.array([round(cumulative.median * 2.0**14) for cumulative in cumulatives])
    medians = np.clip(medians, -ACTIVATION_LIMIT, ACTIVATION_LIMIT)
    return np.clip(medians[:, None, None] + offsets * 2**14, -ACTIVATION_LIMIT, ACTIVATION_LIMIT)


def with_escaped(coder: RangeDecoder, values: list[int | None], tables: list[Table]) -> list[int]:
    """The values, those escaped (None) read from what follows."""
    places = [i for i, value in enumerate(values) if value is None]
    found = coder.escaped([(tables[i].first, tables[i].last) for i in places])
    for i, value in zip(places, found, strict=True):
        values[i] = value
    return values


def decode_step(coder: RangeDecoder, params: np.ndarray) -> np.ndarray:
    """ŷ · 2^8 [n, M] of a step's positions from their scales and means, activations [n, 2M]."""
    scales, means = np.split(params, 2, axis=1)
    means = means + 32 >> 6
    levels = [scale_level(x) for x in scales.ravel().tolist()]
    values: list[int | None] = [None] * len(levels)
    for i in sorted(range(len(levels)), key=levels.__getitem__):
        values[i] = gaussian_table(levels[i]).decode(coder)
    offsets = with_escaped(coder, values, [gaussian_table(level) for level in levels])
    return np.array(offsets).reshape(means.shape) * 2**8 + means


def scale_level(x: int) -> int:
    if x <= 1792:
        return 0
    if x >= 2**22:
        return 89
    e = x.bit_length() - 1
    return 8 * (e - 14) + (8 * x >> e) - 8 + 26


def decode_wavefront(codec: Codec, coder: RangeDecoder, params: np.ndarray) -> np.ndarray:
    weights = codec.weights
    context = Layer(
        np.stack([weights["context_prediction.weight"][:, :, u, v] for u, v in TAPS], axis=2),
        weights["context_prediction.bias"],
        8,
        LATENT_LIMIT,
    )
    layers = [
        Layer(weights[f"entropy_parameters.{i}.weight"][:, :, 0, 0], weights[f"entropy_parameters.{i}.bias"])
        for i in (0, 2, 4)
    ]
    _, height, width = params.shape
    # Two rows above and two columns on either side of zeros.
    y = np.zeros((codec.latent_channels, height + 2, width + 4), np.int64)
    for t in range(width + 3 * (height - 1)):
        rows = np.array([i for i in range(height) if 0 <= t - 3 * i < width])
        columns = t - 3 * rows
        around = np.stack([y[:, rows + u, columns + v] for u, v in TAPS], axis=1)
        near = context.settle(np.einsum("onk,nkp->op", context.weight, around))
        x = np.concatenate([params[:, rows, columns], near])
        for layer in layers[:2]:
            x = leaky_relu(layer.settle(layer.weight @ x))
        x = layers[2].settle(layers[2].weight @ x)
        y[:, rows + 2, columns + 2] = decode_step(coder, x.T).T
    return y[:, 2:, 2:-2]
