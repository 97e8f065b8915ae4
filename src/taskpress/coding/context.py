"""Mean and scale of every latent value, position by position in the order of a wavefront.

The 5×5 context reaches two rows up and two columns to either side, so a position depends only on positions
with a smaller t = column + 3·row: all positions of one t are worked at once. 61 steps for 16×16 positions.

    row 0   0  1  2  3  4  5
    row 1   3  4  5  6  7  8        numbers: t, the step in which a position is coded
    row 2   6  7  8  9 10 11

Everything here is in whole numbers (`fixed_point`), so encoder and decoder find the very same probabilities,
wherever each of them runs. Means and ŷ are multiples of 1/256, scales fall on levels.

A step is small and reads all weights, which is what it costs. So the context's share of several steps is
computed at once, from what was decoded before the first of them, and every step adds what has come since.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from taskpress.coding.fixed_point import (
    ACTIVATION,
    LATENT,
    Layer,
    leaky_relu,
    product,
    quantize_layer,
    settle,
)
from taskpress.coding.hyperprior import HyperpriorModel
from taskpress.coding.tables import scale_levels
from taskpress.coding.threads import single_blas_thread

# In the order in which they become known: a tap at (row, column) was decoded -(column + 3·row) steps ago.
TAPS = sorted(
    ((row, column) for row in range(-2, 1) for column in range(-2, 3) if (row, column) < (0, 0)),
    key=lambda tap: -(tap[1] + 3 * tap[0]),
)
# Steps whose context is begun together, and how many taps were decoded at most so long ago (in t, which
# latents less than three positions wide do not take one by one).
AHEAD = 4
RECENT = [sum(-(column + 3 * row) <= ago for row, column in TAPS) for ago in range(3 * AHEAD)]

# Gets (first, last) of the positions in coding order, their means (float64, in units of 1/256) and scale
# levels (uint8), each [last - first, M]; gives whole offsets from the means, float64 of the same shape.
Visit = Callable[[int, int, np.ndarray, np.ndarray], np.ndarray]


class Wavefront(NamedTuple):
    """The order of the positions of an h×w latent.

    order    [h·w] int64, position (row·w + column) of the i-th visited
    bounds   where each step begins in `order`, and h·w at the end
    times    t of each step
    own      [h·w] int64, index of the i-th visited in the padded buffer
    context  [h·w, 12] int64, indices there of what the i-th visited depends on
    padded   rows of the padded buffer
    """

    order: np.ndarray
    bounds: list[int]
    times: list[int]
    own: np.ndarray
    context: np.ndarray
    padded: int


@lru_cache(maxsize=8)
def wavefront(height: int, width: int) -> Wavefront:
    """The schedule for an h×w latent, padded by two rows above and two columns on either side."""
    rows, columns = np.divmod(np.arange(height * width), width)
    steps = columns + 3 * rows
    order = np.argsort(steps, kind="stable")
    counts = np.bincount(steps)
    times = np.flatnonzero(counts)
    bounds = [0, *np.cumsum(counts[times]).tolist()]
    stride = width + 4
    own = ((rows + 2) * stride + columns + 2)[order]
    shifts = np.array([row * stride + column for row, column in TAPS])
    return Wavefront(order, bounds, times.tolist(), own, own[:, None] + shifts, (height + 2) * stride)


class ContextModel:
    """The part of a model that decides y's probabilities, frozen in whole numbers.

    Built from the weights as they are; later changes to the model do not reach it. CodecError for weights
    that whole numbers cannot hold.
    """

    def __init__(self, model: HyperpriorModel) -> None:
        self.channels = model.M
        self.layers: list[Layer] = []
        if model.context_prediction is None or model.entropy_parameters is None:
            return
        # [2M, 12·M]: neighbourhood, tap by tap, to context features.
        weight = model.context_prediction.weight.detach()
        taps = torch.stack([weight[:, :, row + 2, column + 2] for row, column in TAPS], 1).flatten(1)
        bias = model.context_prediction.bias
        self.layers.append(_transposed(quantize_layer(taps, bias, LATENT, "context_prediction")))
        for name, module in enumerate(model.entropy_parameters):
            if isinstance(module, nn.Conv2d):
                layer = quantize_layer(
                    module.weight[:, :, 0, 0], module.bias, ACTIVATION, f"entropy_parameters.{name}"
                )
                self.layers.append(_transposed(layer))

    def scan(self, params: np.ndarray, visit: Visit) -> np.ndarray:
        """Walks the latent; `params` is h_s's output, activations [2M, h, w]. Returns ŷ·256, [M, h, w].

        `visit` is called once a step, or once in all for a model without context.
        """
        channels = self.channels
        _, height, width = params.shape
        flat = params.reshape(2 * channels, -1).T
        if not self.layers:
            means, levels = gaussians(np.ascontiguousarray(flat))
            decoded = visit(0, height * width, means, levels) * 2**LATENT.fraction + means
            return decoded.T.reshape(channels, height, width)

        schedule = wavefront(height, width)
        flat = flat[schedule.order]
        around, first, second, third = self.layers
        # The first layer is linear in what h_s and what the context say: the former is done ahead, too.
        from_params, from_context = first.weight[: 2 * channels], first.weight[2 * channels :]
        steps = list(zip(schedule.times, schedule.bounds[:-1], schedule.bounds[1:], strict=True))
        widest = max(end - begin for _, begin, end in steps)
        taps = len(TAPS)

        def buffer(rows: int, width: int) -> np.ndarray:
            return np.empty((rows, width), dtype=params.dtype)

        # What is not decoded yet counts as zero.
        values = np.zeros((schedule.padded, channels), dtype=params.dtype)
        gathered = buffer(AHEAD * widest * taps, channels)
        begun, based = buffer(AHEAD * widest, 2 * channels), buffer(AHEAD * widest, first.weight.shape[1])
        outputs = [buffer(widest, layer.weight.shape[1]) for layer in self.layers]
        scratch = [np.empty_like(output) for output in outputs]

        def neighbourhood(begin: int, end: int, count: int) -> np.ndarray:
            """[end - begin, count·M]: the first `count` taps of these positions."""
            rows = gathered[: (end - begin) * count]
            np.take(values, schedule.context[begin:end, :count].reshape(-1), 0, out=rows, mode="clip")
            return rows.reshape(end - begin, count * channels)

        # Steps are so small that handing them to other threads takes longer, far longer on a busy machine.
        with single_blas_thread():
            for at in range(0, len(steps), AHEAD):
                block = steps[at : at + AHEAD]
                since, start, stop = block[0][0], block[0][1], block[-1][2]
                context = product(neighbourhood(start, stop, taps), around.weight, out=begun[: stop - start])
                context += around.bias
                base = product(flat[start:stop], from_params, out=based[: stop - start])
                base += first.bias
                for time, begin, end in block:
                    size, own = end - begin, slice(begin - start, end - start)
                    x = context[own]
                    if recent := RECENT[time - since]:
                        near = neighbourhood(begin, end, recent)
                        x += product(near, around.weight[: near.shape[1]], out=scratch[0][:size])
                    x = product(settle(x), from_context, out=outputs[1][:size])
                    x += base[own]
                    x = leaky_relu(settle(x), scratch[1][:size])
                    x = product(x, second.weight, out=outputs[2][:size])
                    x += second.bias
                    x = leaky_relu(settle(x), scratch[2][:size])
                    x = product(x, third.weight, out=outputs[3][:size])
                    x += third.bias
                    means, levels = gaussians(settle(x))
                    decoded = visit(begin, end, means, levels) * 2**LATENT.fraction
                    decoded += means
                    values[schedule.own[begin:end]] = decoded
        inside = values.reshape(height + 2, width + 4, channels)[2:, 2:-2]
        return inside.transpose(2, 0, 1)


def gaussians(activations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, 2M] scales and means → (means in units of 1/256, scale levels), each [n, M]."""
    half = activations.shape[1] // 2
    scales, means = activations[:, :half], activations[:, half:]
    means = np.floor(means * 2.0 ** (LATENT.fraction - ACTIVATION.fraction) + 0.5)
    return means, scale_levels(scales * 2.0**-ACTIVATION.fraction)


def _transposed(layer: Layer) -> Layer:
    return layer._replace(weight=np.ascontiguousarray(layer.weight.T))
