"""The wavefront against a position-by-position walk in Python-sized integers."""

import numpy as np
import pytest
import torch
from torch import nn

from taskpress.coding.codec import Codec
from taskpress.coding.context import TAPS, ContextModel, wavefront
from taskpress.coding.tables import LEVELS, level_scale, scale_levels

Integers = np.ndarray


def whole(layer: nn.Conv2d, fraction: int, limit: int) -> tuple[Integers, Integers, int]:
    """Weights and bias as whole numbers and the shift back: the format of docs/how-it-works.md, afresh."""
    weight = layer.weight.detach().double().numpy()
    bias = layer.bias.detach().double().numpy()
    for bits in range(24, 0, -1):
        w = np.rint(weight * 2.0**bits).astype(np.int64)
        b = np.rint(bias * 2.0 ** (bits + fraction)).astype(np.int64)
        shift = bits + fraction - 14
        if (np.abs(w).reshape(len(w), -1).sum(1) * limit + np.abs(b)).max() + (1 << (shift - 1)) < 2**53:
            return w, b, shift
    raise AssertionError


def apply(x: Integers, layer: tuple[Integers, Integers, int]) -> Integers:
    """int64 [inputs] → [outputs], rounded half up and limited."""
    weight, bias, shift = layer
    return np.clip((weight @ x + bias + (1 << (shift - 1))) >> shift, -(2**28), 2**28)


def position_by_position(codec: Codec, params: Integers, y: np.ndarray) -> Integers:
    """ŷ·256 [M, h, w] int64: raster order, one 5×5 neighbourhood after the other."""
    model = codec.model
    assert model.context_prediction is not None and model.entropy_parameters is not None
    with torch.no_grad():
        # What is masked must not count towards the bound either.
        model.context_prediction.weight.mul_(model.context_prediction.mask)
    around = whole(model.context_prediction, 8, 2**24)
    layers = [whole(m, 14, 2**28) for m in model.entropy_parameters if isinstance(m, nn.Conv2d)]
    channels, height, width = y.shape
    y_hat = np.zeros((channels, height + 4, width + 4), dtype=np.int64)
    for row in range(height):
        for column in range(width):
            crop = y_hat[:, row : row + 5, column : column + 5]
            flat = (around[0].reshape(len(around[0]), -1), *around[1:])
            x = np.concatenate([params[:, row, column], apply(crop.reshape(-1), flat)])
            for i, (weight, bias, shift) in enumerate(layers):
                x = apply(x, (weight[:, :, 0, 0], bias, shift))
                if i < 2:
                    x = np.maximum(x, (x * 655 + (1 << 15)) >> 16)
            means = np.clip((x[channels:] + 32) >> 6, -(2**22), 2**22)
            symbols = np.rint(y[:, row, column] - means / 256).astype(np.int64)
            y_hat[:, row + 2, column + 2] = 256 * symbols + means
    return y_hat[:, 2:-2, 2:-2]


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (1, 9), (9, 1), (8, 5)])
@pytest.mark.parametrize("architecture", ["cheng2020-anchor", "joint-autoregressive"])
def test_wavefront_is_the_raster_scan(lively, architecture: str, size: tuple[int, int]) -> None:
    codec = lively(architecture)
    channels = codec.latent_channels
    rng = np.random.default_rng(3)
    y = 3 * rng.normal(size=(channels, *size))
    params = np.rint(rng.normal(size=(2 * channels, *size)) * 2**14)
    flat = y.reshape(channels, -1).T[wavefront(*size).order]

    def visit(first: int, last: int, means: np.ndarray, levels: np.ndarray) -> np.ndarray:
        return np.rint(flat[first:last] - means / 256)

    found = ContextModel(codec.model).scan(params, visit)
    expected = position_by_position(codec, params.astype(np.int64), y)
    assert np.array_equal(found, expected)
    assert np.abs(expected).max() > 256


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (16, 16), (7, 3)])
def test_every_position_once_and_after_what_it_needs(size: tuple[int, int]) -> None:
    height, width = size
    schedule = wavefront(height, width)
    assert sorted(schedule.order.tolist()) == list(range(height * width))
    step_of = {}
    for step, (first, last) in enumerate(zip(schedule.bounds[:-1], schedule.bounds[1:], strict=True)):
        for position in schedule.order[first:last].tolist():
            step_of[divmod(position, width)] = step
    for (row, column), step in step_of.items():
        for up in range(3):
            for side in range(-2, 3):
                needed = (row - up, column + side)
                if (up > 0 or side < 0) and needed in step_of:
                    assert step_of[needed] < step
    # No step without positions, no more steps than the diagonal needs.
    assert len(schedule.bounds) - 1 <= width + 3 * (height - 1)


def test_taps_are_the_mask() -> None:
    mask = Codec.create("cheng2020-anchor", 4).model.context_prediction.mask[0, 0]
    assert {(row + 2, column + 2) for row, column in TAPS} == {tuple(at) for at in mask.nonzero().tolist()}
    assert len(TAPS) == 12


def test_scale_levels_are_where_they_should() -> None:
    levels = scale_levels(np.array([-5.0, 0.0, 0.11, 0.117, 0.12, 1.0, 1.124, 1.126, 255.9, 256.0, 1e9]))
    assert levels.tolist() == [0, 0, 0, 0, 1, 26, 26, 27, LEVELS - 1, LEVELS - 1, LEVELS - 1]
    scales = np.array([level_scale(level) for level in range(LEVELS)])
    assert scale_levels(scales).tolist() == list(range(LEVELS))
    assert (np.diff(np.log(scales)) < 0.12).all()
