"""Quantized latents to bytes and back: z by tables of the learned cumulative, y by Gaussians.

One range coder (constriction) holds z channel by channel, then y in the order of the wavefront. The values of
a step are coded grouped by scale level, each group with its level's table; what a table does not reach
follows after the step (after z), written in full.
"""

from collections.abc import Iterator
from typing import NamedTuple

import constriction
import numpy as np
import torch
from torch import Tensor

from taskpress.coding import tables
from taskpress.coding.context import ContextModel, wavefront
from taskpress.coding.fixed_point import ACTIVATION, LATENT, HyperSynthesis, to_fixed
from taskpress.coding.hyperprior import HyperpriorModel
from taskpress.coding.tables import SYMBOL_LIMIT
from taskpress.errors import BitstreamError, CodecError

# Part of every codec's fingerprint: to be changed with anything that changes what a payload means.
CODING = "fixed point 2"


class Latents(NamedTuple):
    """One picture's quantized latents.

    z_symbols  [N, h/4, w/4] int64, whole offsets from the medians
    y_symbols  [h·w, M] int64 in coding order, whole offsets from the means, with their levels y_levels uint8
    bounds     where each step begins in coding order, and h·w at the end
    z_hat, y_hat  [N, h/4, w/4] and [M, h, w] float32, what the decoder will have
    """

    z_symbols: np.ndarray
    y_symbols: np.ndarray
    y_levels: np.ndarray
    bounds: list[int]
    z_hat: Tensor
    y_hat: Tensor


class EntropyCoder:
    """Everything of a model that decides probabilities, frozen in whole numbers on the CPU.

    CodecError for weights that are not finite, or too large for exact sums.
    """

    def __init__(self, model: HyperpriorModel) -> None:
        self.channels = model.M
        self.h_s = HyperSynthesis(model.h_s)
        self.context = ContextModel(model)
        self.z_tables = tables.z_tables(model.entropy_bottleneck)
        self.medians = model.entropy_bottleneck.quantiles[:, 0, 1].detach().to("cpu").double().numpy()
        self.y_tables = tables.gaussian_tables()
        self.y_low = np.array([table.low for table in self.y_tables])
        self.y_escape = np.array([table.escape for table in self.y_tables])

    def quantize(self, y: Tensor, z: Tensor) -> Latents:
        """y [M, h, w] and z [N, h/4, w/4], as the encoder rounds them: y around its mean, in coding order.

        CodecError for latents that are not finite.
        """
        flat = y.detach().to("cpu").double().numpy().reshape(self.channels, -1).T
        offsets = z.detach().to("cpu").double().numpy() - self.medians[:, None, None]
        if not (np.isfinite(flat).all() and np.isfinite(offsets).all()):
            raise CodecError("the codec's analysis of this picture gives values that are not finite")
        z_symbols = _whole(offsets)
        height, width = y.shape[1:]
        bounds = [0, height * width]
        if self.context.layers:
            schedule = wavefront(height, width)
            flat, bounds = flat[schedule.order], schedule.bounds
        y_symbols = np.empty(flat.shape, dtype=np.int64)
        y_levels = np.empty(flat.shape, dtype=np.uint8)

        def visit(first: int, last: int, means: np.ndarray, levels: np.ndarray) -> np.ndarray:
            step = _whole(flat[first:last] - means * 2.0**-LATENT.fraction)
            y_symbols[first:last] = step
            y_levels[first:last] = levels
            return step

        y_hat = self.context.scan(self._params(z_symbols), visit)
        z_hat = z_symbols + self.medians[:, None, None]
        return Latents(
            z_symbols.astype(np.int64),
            y_symbols,
            y_levels,
            bounds,
            torch.from_numpy(z_hat).float(),
            _real(y_hat),
        )

    def encode(self, latents: Latents) -> bytes:
        """The payload: little-endian 32-bit words."""
        coder = constriction.stream.queue.RangeEncoder()
        z = latents.z_symbols.reshape(len(self.z_tables), -1)
        low, escape = self._z_reach(z.shape[1])
        index = _index(z, low, escape)
        for symbols, table in zip(index.astype(np.int32), self.z_tables, strict=True):
            coder.encode(symbols, table.model)
        _encode_outside(coder, z, index, low, escape)
        low, escape = self.y_low[latents.y_levels], self.y_escape[latents.y_levels]
        index = _index(latents.y_symbols, low, escape)
        for first, last in zip(latents.bounds[:-1], latents.bounds[1:], strict=True):
            levels = latents.y_levels[first:last].reshape(-1)
            symbols = index[first:last].reshape(-1)
            order = np.argsort(levels, kind="stable")
            symbols = symbols[order].astype(np.int32)
            for level, begin, end in _groups(levels):
                coder.encode(symbols[begin:end], self.y_tables[level].model)
            step = slice(first, last)
            _encode_outside(coder, latents.y_symbols[step], index[step], low[step], escape[step])
        return coder.get_compressed().astype("<u4").tobytes()

    def check_length(self, length: int, height: int, width: int) -> None:
        """BitstreamError where a payload of so many bytes is too short for a latent of this size.

        An honest payload of so many symbols has a least length; a shorter one is to be refused before
        anything of the picture's size is allocated.
        """
        count = height * width * self.channels
        if 8 * length + 32 < 0.5 * tables.least_bits() * count:
            raise BitstreamError(f"a payload of {length} bytes is too short for the picture's size")

    def decode(self, payload: bytes, height: int, width: int) -> Tensor:
        """ŷ float32 [M, h, w] from a payload of whole words. BitstreamError where it cannot be one."""
        self.check_length(len(payload), height, width)
        try:
            return self._decode(payload, height, width)
        except (AssertionError, ValueError) as error:
            raise BitstreamError(f"the payload cannot be decoded ({error})") from error

    def _decode(self, payload: bytes, height: int, width: int) -> Tensor:
        coder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))
        count = (height // 4) * (width // 4)
        index = np.stack([coder.decode(table.model, count) for table in self.z_tables]).astype(np.int64)
        z_symbols = _decode_outside(coder, index, *self._z_reach(count))

        def visit(first: int, last: int, means: np.ndarray, levels: np.ndarray) -> np.ndarray:
            flat = levels.reshape(-1)
            symbols = np.empty(len(flat), dtype=np.int32)
            for level, begin, end in _groups(flat):
                symbols[begin:end] = coder.decode(self.y_tables[level].model, end - begin)
            index = np.empty(len(flat), dtype=np.int64)
            index[np.argsort(flat, kind="stable")] = symbols
            values = _decode_outside(coder, index, self.y_low[flat], self.y_escape[flat])
            return values.reshape(means.shape).astype(np.float64)

        params = self._params(z_symbols.reshape(-1, height // 4, width // 4))
        y_hat = self.context.scan(params, visit)
        if not coder.maybe_exhausted():
            raise BitstreamError("the payload is longer than its symbols")
        return _real(y_hat)

    def _params(self, z_symbols: np.ndarray) -> np.ndarray:
        """h_s's output for z's symbols [N, h/4, w/4]."""
        scaled = to_fixed(self.medians, ACTIVATION)[:, None, None] + z_symbols * 2.0**ACTIVATION.fraction
        return self.h_s(np.clip(scaled, -ACTIVATION.limit, ACTIVATION.limit))

    def _z_reach(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Lowest symbols and escapes of z's tables, [N, count] each."""
        low, escape = np.array([(table.low, table.escape) for table in self.z_tables]).T[:, :, None]
        return np.repeat(low, count, axis=1), np.repeat(escape, count, axis=1)


def _whole(offsets: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(offsets), -SYMBOL_LIMIT, SYMBOL_LIMIT)


def _real(y_hat: np.ndarray) -> Tensor:
    """ŷ·256 to ŷ; |ŷ| is below 2^16, so float32 holds it exactly."""
    return torch.from_numpy((y_hat * 2.0**-LATENT.fraction).astype(np.float32))


def _groups(levels: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(level, begin, end) of each level that occurs, once values are sorted by level."""
    counts = np.bincount(levels)
    present = np.flatnonzero(counts)
    ends = np.cumsum(counts[present])
    return zip(present.tolist(), (ends - counts[present]).tolist(), ends.tolist(), strict=True)


def _index(values: np.ndarray, low: np.ndarray, escape: np.ndarray) -> np.ndarray:
    """Places of values in their tables; the escape's for what lies outside."""
    index = values - low
    return np.where((index < 0) | (index > escape), escape, index)


def _encode_outside(
    coder: constriction.stream.queue.RangeEncoder,
    values: np.ndarray,
    index: np.ndarray,
    low: np.ndarray,
    escape: np.ndarray,
) -> None:
    outside = index == escape
    if outside.any():
        first = low[outside]
        tables.encode_escaped(coder, values[outside], first, first + escape[outside] - 1)


def _decode_outside(
    coder: constriction.stream.queue.RangeDecoder, index: np.ndarray, low: np.ndarray, escape: np.ndarray
) -> np.ndarray:
    """Values of places in tables, those outside read from what follows."""
    values = index + low
    outside = index == escape
    if outside.any():
        first = low[outside]
        values[outside] = tables.decode_escaped(coder, first, first + escape[outside] - 1)
    return values
