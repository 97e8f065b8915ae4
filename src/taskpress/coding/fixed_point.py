"""Layers in whole numbers: the same result on every machine, in whatever order sums are taken.

A number x stands for x·2^fraction, rounded to a whole number and limited to ±limit: activations have 14
fractional bits and stay within ±2^28, so that 16384 is the largest. Weights get as many fractional bits as
keep every possible sum below 2^53. Up to there float64 holds whole numbers exactly, so products and sums of
them have no rounding whose place could matter: not the order of summation, nor threads, instruction set, BLAS
or device. What float64 units are best at remains possible, large matrix products.

Between layers a sum is brought back to 14 fractional bits by ⌊sum·2^-shift + ½⌋ and limited. The shift is a
power of two and is folded into the weights, the ½ into the bias, both exactly. Leaky ReLU's slope is
655/65536.

All of it follows from the float32 weights alone, by roundings that IEEE 754 fixes: a codec file needs no
tables, and no calibration.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taskpress.errors import CodecError


class Format(NamedTuple):
    """Whole numbers in units of 2^-fraction, within ±limit."""

    fraction: int
    limit: int


ACTIVATION = Format(14, 2**28)
LATENT = Format(8, 2**24)
SLOPE = 0.01
SLOPE_FACTOR = round(SLOPE * 2**16) / 2**16
EXACT = 2**53
MOST_BITS = 24

product = np.matmul


class Layer(NamedTuple):
    """Weights [outputs, …] and bias [outputs], float64 and scaled: settle(weight·x + bias) is the layer.

    `shift` is by how many bits they are scaled: weight·2^shift and bias·2^shift are whole numbers.
    """

    weight: np.ndarray
    bias: np.ndarray
    shift: int


def quantize_layer(weight: Tensor, bias: Tensor | None, source: Format, name: str) -> Layer:
    """The layer of float weights [outputs, …] whose inputs are of format `source`; outputs are activations.

    CodecError, naming the layer, for weights that are not finite or too large for exact sums.
    """
    real = weight.detach().to("cpu", torch.float64).numpy()
    offset = np.zeros(len(real)) if bias is None else bias.detach().to("cpu", torch.float64).numpy()
    if not (np.isfinite(real).all() and np.isfinite(offset).all()):
        raise CodecError(f"{name} holds weights that are not finite")
    # Fewer bits would leave no place for the half.
    fewest = ACTIVATION.fraction + 1 - source.fraction
    if max(np.abs(real).max(), np.abs(offset).max()) < 2.0**24:
        for bits in range(MOST_BITS, fewest - 1, -1):
            whole, whole_offset = np.rint(real * 2.0**bits), np.rint(offset * 2.0 ** (bits + source.fraction))
            shift = bits + source.fraction - ACTIVATION.fraction
            # Far too large first, where int64 would overflow; then exactly, in Python's integers: a bound on
            # exactness must not be inexact itself.
            if np.abs(whole).reshape(len(whole), -1).sum(1).max() * source.limit > 2 * EXACT:
                continue
            sums = np.abs(whole).astype(np.int64).reshape(len(whole), -1).sum(1).tolist()
            ends = np.abs(whole_offset).astype(np.int64).tolist()
            most = max(s * source.limit + end for s, end in zip(sums, ends, strict=True))
            if most + 2 ** (shift - 1) < EXACT:
                scale = 2.0**-shift
                return Layer(whole * scale, whole_offset * scale + 0.5, shift)
    raise CodecError(f"{name} has weights too large for exact sums (up to {np.abs(real).max():.3g})")


def settle(sums: np.ndarray) -> np.ndarray:
    """Layer's sums to activations, in place; the half is in the bias already."""
    np.floor(sums, out=sums)
    np.maximum(sums, -ACTIVATION.limit, out=sums)
    return np.minimum(sums, ACTIVATION.limit, out=sums)


def leaky_relu(x: np.ndarray, scratch: np.ndarray) -> np.ndarray:
    """Leaky ReLU of activations, in place; `scratch` has x's shape."""
    np.multiply(x, SLOPE_FACTOR, out=scratch)
    scratch += 0.5
    np.floor(scratch, out=scratch)
    return np.maximum(x, scratch, out=x)


def to_fixed(values: np.ndarray, form: Format) -> np.ndarray:
    """float64 whole numbers of that format nearest to float64 `values`."""
    return np.clip(np.rint(values * 2.0**form.fraction), -form.limit, form.limit)


def convolve(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`layer` with other weights. On the CPU torch convolves float64 by matrix products alone."""
    assert not isinstance(layer.padding, str)
    if isinstance(layer, nn.ConvTranspose2d):
        return F.conv_transpose2d(x, weight, bias, layer.stride, layer.padding, layer.output_padding)
    return F.conv2d(x, weight, bias, layer.stride, layer.padding)


class HyperSynthesis:
    """h_s in whole numbers: convolutions, transposed ones, leaky ReLU and pixel shuffle."""

    def __init__(self, layers: nn.Sequential) -> None:
        self.steps: list[tuple[nn.Module, Layer | None]] = []
        # A layer that stands there twice works twice.
        for name, module in layers.named_modules(remove_duplicate=False):
            if isinstance(module, nn.Sequential):
                continue
            layer = None
            if isinstance(module, nn.ConvTranspose2d):
                # Outputs first, to be bounded; back again to be used.
                layer = quantize_layer(module.weight.transpose(0, 1), module.bias, ACTIVATION, f"h_s.{name}")
                layer = layer._replace(weight=layer.weight.swapaxes(0, 1))
            elif isinstance(module, nn.Conv2d):
                layer = quantize_layer(module.weight, module.bias, ACTIVATION, f"h_s.{name}")
            elif isinstance(module, nn.LeakyReLU):
                assert module.negative_slope == SLOPE
            else:
                assert isinstance(module, nn.PixelShuffle)
            self.steps.append((module, layer))

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Activations [N, h/4, w/4] → activations [2M, h, w]."""
        x = torch.from_numpy(z[None])
        with torch.inference_mode():
            for module, layer in self.steps:
                if layer is not None and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    x = convolve(module, x, torch.from_numpy(layer.weight), torch.from_numpy(layer.bias))
                    settle(x.numpy())
                elif isinstance(module, nn.PixelShuffle):
                    x = module(x)
                else:
                    leaky_relu(x.numpy(), np.empty(x.shape, dtype=z.dtype))
        return np.ascontiguousarray(x[0].numpy())
