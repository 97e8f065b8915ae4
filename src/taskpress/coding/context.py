"""Mean and scale of every latent value, position by position in the order of a wavefront.

The 5×5 context reaches two rows up and two columns to either side, so a position depends only on positions
with a smaller t = column + 3·row: all positions of one t are worked at once. 61 steps for 16×16 positions.

    row 0   0  1  2  3  4  5
    row 1   3  4  5  6  7  8        numbers: t, the step in which a position is coded
    row 2   6  7  8  9 10 11

Encoder and decoder must find the very same probabilities. Everything here runs in float64, on the CPU, on
one thread, with the same shapes on either side; means are then rounded to multiples of 1/256 and scales to
the nearest of 128 levels. What float64 sums differ by between machines (about 1e-13) can flip such a rounding
only where a value lies that close to a tie: practically never, but not never by construction. Exactness by
construction needs fixed-point arithmetic.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from taskpress.coding.entropy_models import SCALE_BOUND
from taskpress.coding.models import HyperpriorModel

MEAN_GRID = 256
MEAN_LIMIT = 2.0**14
SCALE_LEVELS = 128
SCALE_MAX = 256.0
SLOPE = 0.01
TAPS = [(row, column) for row in range(-2, 1) for column in range(-2, 3) if (row, column) < (0, 0)]

_LOG_LOW = math.log(SCALE_BOUND)
_LOG_STEP = (math.log(SCALE_MAX) - _LOG_LOW) / (SCALE_LEVELS - 1)
SCALE_TABLE = torch.exp(_LOG_LOW + _LOG_STEP * torch.arange(SCALE_LEVELS, dtype=torch.float64))
# Half way (in the logarithm) between neighbours: where the nearest level changes.
_SCALE_EDGES = torch.exp(_LOG_LOW + _LOG_STEP * (torch.arange(SCALE_LEVELS - 1, dtype=torch.float64) + 0.5))

# Gets (first, last) of the positions in coding order, their means (on the grid) and scales (not yet on
# levels), each [last - first, M]; gives their decoded values, same shape.
Visit = Callable[[int, int, Tensor, Tensor], Tensor]


class Wavefront(NamedTuple):
    """The order of the positions of an h×w latent.

    order    [h·w] int64, position (row·w + column) of the i-th visited
    bounds   where each step begins in `order`, and h·w at the end
    own      [h·w] int64, index of the i-th visited in the padded buffer
    context  [h·w · 12] int64, indices there of what the i-th visited depends on
    padded   rows of the padded buffer
    """

    order: Tensor
    bounds: list[int]
    own: Tensor
    context: Tensor
    padded: int


@lru_cache(maxsize=8)
def wavefront(height: int, width: int) -> Wavefront:
    """The schedule for an h×w latent, padded by two rows above and two columns on either side."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    steps = (columns + 3 * rows).flatten()
    order = torch.argsort(steps, stable=True)
    counts = torch.bincount(steps)
    bounds = [0, *torch.cumsum(counts[counts > 0], 0).tolist()]
    stride = width + 4
    own = ((rows + 2) * stride + columns + 2).flatten()[order]
    shifts = torch.tensor([row * stride + column for row, column in TAPS])
    return Wavefront(order, bounds, own, (own[:, None] + shifts).flatten(), (height + 2) * stride)


class ContextModel:
    """The part of a model that decides y's probabilities, frozen in float64.

    Built from the weights as they are; later changes to the model do not reach it.
    """

    def __init__(self, model: HyperpriorModel) -> None:
        self.channels = model.M
        self.layers: list[tuple[Tensor, Tensor]] = []
        if model.context_prediction is None or model.entropy_parameters is None:
            return
        weight = model.context_prediction.weight.detach()
        taps = torch.stack([weight[:, :, row + 2, column + 2] for row, column in TAPS])
        # [12·M, 2M]: neighbourhood, tap by tap, to context features.
        self.context_weight = _frozen(taps.permute(0, 2, 1).reshape(-1, weight.shape[0]))
        context_bias = _frozen(_bias(model.context_prediction))
        for layer in model.entropy_parameters:
            if isinstance(layer, torch.nn.Conv2d):
                self.layers.append((_frozen(layer.weight[:, :, 0, 0].t()), _frozen(_bias(layer))))
        first, bias = self.layers[0]
        # The first layer is linear in what h_s and what the context say: the former is done for all at once.
        self.from_params, self.from_context = first[: 2 * self.channels], first[2 * self.channels :]
        self.first_bias = bias + context_bias @ self.from_context

    def scan(self, params: Tensor, visit: Visit) -> Tensor:
        """Walks the latent; `params` is h_s's output, float64 [2M, h, w]. Returns ŷ, float64 [M, h, w].

        `visit` is called once a step, or once in all for a model without context.
        """
        channels = self.channels
        _, height, width = params.shape
        flat = params.reshape(2 * channels, -1).t()
        if not self.layers:
            decoded = visit(0, height * width, *on_grid(flat))
            return decoded.t().reshape(channels, height, width)

        schedule = wavefront(height, width)
        base = torch.addmm(self.first_bias, flat[schedule.order], self.from_params)
        values = torch.zeros(schedule.padded, channels, dtype=torch.float64)
        (second, second_bias), (third, third_bias) = self.layers[1:]
        taps = len(TAPS)
        for first, last in zip(schedule.bounds[:-1], schedule.bounds[1:], strict=True):
            around = values.index_select(0, schedule.context[first * taps : last * taps])
            context = around.view(last - first, taps * channels) @ self.context_weight
            hidden = torch.addmm(base[first:last], context, self.from_context)
            hidden = torch.addmm(second_bias, F.leaky_relu_(hidden, SLOPE), second)
            hidden = torch.addmm(third_bias, F.leaky_relu_(hidden, SLOPE), third)
            decoded = visit(first, last, *on_grid(hidden))
            values.index_copy_(0, schedule.own[first:last], decoded)
        inside = values.view(height + 2, width + 4, channels)[2:, 2:-2]
        return inside.permute(2, 0, 1)


def on_grid(gaussian: Tensor) -> tuple[Tensor, Tensor]:
    """[n, 2M] scales and means → (means rounded to the grid, scales as they are), each [n, M]."""
    scales, means = gaussian.chunk(2, 1)
    return (means * MEAN_GRID).round_().mul_(1 / MEAN_GRID).clamp_(-MEAN_LIMIT, MEAN_LIMIT), scales


def scale_levels(scales: Tensor) -> Tensor:
    """int64 indices into SCALE_TABLE of the levels nearest to `scales` (float64), same shape."""
    return torch.bucketize(scales.contiguous(), _SCALE_EDGES)


def _frozen(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64, copy=True).contiguous()


def _bias(layer: torch.nn.Conv2d) -> Tensor:
    if layer.bias is None:
        return torch.zeros(layer.out_channels)
    return layer.bias.detach()
