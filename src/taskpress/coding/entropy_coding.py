"""Quantized latents to bytes and back: z by tables of the learned cumulative, y by Gaussians.

One range coder (constriction) holds z channel by channel, then y in the order of the wavefront.
"""

import copy
from typing import NamedTuple

import constriction
import numpy as np
import torch
from torch import Tensor

from taskpress.coding.context import SCALE_TABLE, ContextModel, scale_levels, wavefront
from taskpress.coding.entropy_models import EntropyBottleneck
from taskpress.coding.errors import BitstreamError
from taskpress.coding.models import HyperpriorModel
from taskpress.coding.threads import single_thread

Y_LIMIT = 1023
Z_LIMIT = 511
Z_TAIL_LOGIT = 20.7
COUNT_BITS = 24
# Every other symbol keeps at least 2^-24 of the probability, so none is ever free.
LEAST_BITS = 2 * Y_LIMIT * 2.0**-COUNT_BITS * np.log2(np.e)
GAUSSIAN = constriction.stream.model.QuantizedGaussian(-Y_LIMIT, Y_LIMIT, 0.0)
STDS = SCALE_TABLE.numpy()


class Latents(NamedTuple):
    """One picture's quantized latents.

    z_symbols  [N, h/4, w/4] int32, offset from the bottom of each channel's table
    y_symbols  [h·w·M] int32 in coding order, with their scale levels y_levels (int64)
    z_hat, y_hat  [N, h/4, w/4] and [M, h, w] float32, what the decoder will have
    """

    z_symbols: np.ndarray
    y_symbols: np.ndarray
    y_levels: np.ndarray
    z_hat: Tensor
    y_hat: Tensor


class EntropyCoder:
    """Everything of a model that decides probabilities, frozen in float64 on the CPU."""

    def __init__(self, model: HyperpriorModel) -> None:
        with torch.inference_mode(), single_thread():
            self.channels = model.M
            self.h_s = copy.deepcopy(model.h_s).to("cpu", torch.float64)
            self.context = ContextModel(model)
            bottleneck = copy.deepcopy(model.entropy_bottleneck).to("cpu")
            self.medians = bottleneck.quantiles[:, 0, 1].to(torch.float64).reshape(-1, 1, 1)
            self.z_low, self.z_counts = z_tables(bottleneck)
            sizes = torch.tensor([len(counts) for counts in self.z_counts])
            self.z_size = sizes.reshape(-1, 1, 1)

    def quantize(self, y: Tensor, z: Tensor) -> Latents:
        """y [M, h, w] and z [N, h/4, w/4], as the encoder rounds them: y around its mean, in coding order."""
        with torch.inference_mode(), single_thread():
            z = z.to("cpu", torch.float64)
            symbols = torch.round(z - self.medians) - self.z_low
            z_symbols = symbols.clamp_(torch.zeros(()), self.z_size - 1)
            z_hat = z_symbols + self.z_low + self.medians
            height, width = y.shape[1:]
            flat = y.to("cpu", torch.float64).flatten(1).t()
            if self.context.layers:
                flat = flat[wavefront(height, width).order]
            coded: list[Tensor] = []
            spreads: list[Tensor] = []

            def visit(first: int, last: int, means: Tensor, scales: Tensor) -> Tensor:
                step = (flat[first:last] - means).round_().clamp_(-Y_LIMIT, Y_LIMIT)
                coded.append(step)
                spreads.append(scales)
                return step + means

            y_hat = self.context.scan(self.h_s(z_hat[None])[0], visit)
            return Latents(
                z_symbols.to(torch.int32).numpy(),
                torch.cat(coded).to(torch.int32).flatten().numpy(),
                scale_levels(torch.cat(spreads)).flatten().numpy(),
                z_hat.to(torch.float32),
                y_hat.to(torch.float32),
            )

    def encode(self, latents: Latents) -> bytes:
        """The payload: little-endian 32-bit words."""
        coder = constriction.stream.queue.RangeEncoder()
        for symbols, counts in zip(latents.z_symbols, self.z_counts, strict=True):
            coder.encode(symbols.ravel(), _categorical(counts))
        coder.encode(latents.y_symbols, GAUSSIAN, STDS[latents.y_levels])
        return coder.get_compressed().astype("<u4").tobytes()

    def decode(self, payload: bytes, height: int, width: int) -> Tensor:
        """ŷ float32 [M, h, w] from a payload of whole words. BitstreamError where it cannot be one.

        An honest payload of so many symbols has a least length; a shorter one is refused before anything of
        the picture's size is allocated.
        """
        count = height * width * self.channels
        if 8 * len(payload) + 32 < 0.5 * LEAST_BITS * count:
            raise BitstreamError(f"a payload of {len(payload)} bytes is too short for the picture's size")
        try:
            return self._decode(payload, height, width)
        except (AssertionError, ValueError) as error:
            raise BitstreamError(f"the payload cannot be decoded ({error})") from error

    def _decode(self, payload: bytes, height: int, width: int) -> Tensor:
        coder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))
        rows, columns = height // 4, width // 4
        z_symbols = np.stack(
            [coder.decode(_categorical(counts), rows * columns) for counts in self.z_counts]
        ).reshape(-1, rows, columns)

        def visit(first: int, last: int, means: Tensor, scales: Tensor) -> Tensor:
            stds = SCALE_TABLE[scale_levels(scales)].flatten()
            symbols = coder.decode(GAUSSIAN, stds.numpy())
            return torch.from_numpy(symbols).view(means.shape) + means

        with torch.inference_mode(), single_thread():
            z_hat = torch.from_numpy(z_symbols).to(torch.float64) + self.z_low + self.medians
            y_hat = self.context.scan(self.h_s(z_hat[None])[0], visit)
            if not coder.maybe_exhausted():
                raise BitstreamError("the payload is longer than its symbols")
            return y_hat.to(torch.float32)


def z_tables(bottleneck: EntropyBottleneck) -> tuple[Tensor, list[np.ndarray]]:
    """(lowest symbol [N, 1, 1] float64, counts per channel), symbols being offsets from the median.

    A table covers what the learned cumulative calls possible (all but 1e-9 on either side), at most ±511,
    and never consults the tail quantiles, which may not have converged. Counts are whole numbers that about
    sum to 2^24, so that they are the same on every machine.
    """
    medians = bottleneck.quantiles[:, 0, 1].to(torch.float64)
    low = torch.floor(bottleneck.quantile_of(-Z_TAIL_LOGIT) - medians).clamp_(-Z_LIMIT, 0)
    high = torch.ceil(bottleneck.quantile_of(Z_TAIL_LOGIT) - medians).clamp_(1, Z_LIMIT)
    steps = torch.arange(-Z_LIMIT, Z_LIMIT + 2, dtype=torch.float64) - 0.5
    logits = bottleneck.logits_cumulative((medians[:, None] + steps)[:, None])[:, 0]
    upper, lower = logits[:, 1:], logits[:, :-1]
    # On whichever side both are small, where the difference keeps its digits.
    sign = torch.where(upper + lower > 0, -1.0, 1.0)
    mass = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
    counts = (mass * 2**COUNT_BITS).round_().clamp_(1)
    tables = []
    for row, first, last in zip(counts.numpy(), low.tolist(), high.tolist(), strict=True):
        tables.append(row[int(first) + Z_LIMIT : int(last) + Z_LIMIT + 1].copy())
    return low.reshape(-1, 1, 1), tables


def _categorical(counts: np.ndarray) -> constriction.stream.model.Categorical:
    return constriction.stream.model.Categorical(counts, perfect=False)
