"""The wavefront against a position-by-position walk with plain convolutions."""

import copy

import pytest
import torch
import torch.nn.functional as F

from taskpress.coding.codec import Codec
from taskpress.coding.context import ContextModel, on_grid, wavefront


def position_by_position(codec: Codec, params: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """ŷ [M, h, w] float64: raster order, one 5×5 convolution for each position."""
    model = copy.deepcopy(codec.model).double()
    assert model.context_prediction is not None and model.entropy_parameters is not None
    weight = model.context_prediction.weight * model.context_prediction.mask
    _, height, width = y.shape
    y_hat = F.pad(torch.zeros_like(y), (2, 2, 2, 2))
    for row in range(height):
        for column in range(width):
            crop = y_hat[None, :, row : row + 5, column : column + 5]
            context = F.conv2d(crop, weight, model.context_prediction.bias)
            joined = torch.cat((params[None, :, row : row + 1, column : column + 1], context), 1)
            means, _ = on_grid(model.entropy_parameters(joined)[:, :, 0, 0])
            y_hat[:, row + 2, column + 2] = torch.round(y[:, row, column] - means[0]) + means[0]
    return y_hat[:, 2:-2, 2:-2]


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (1, 9), (9, 1), (8, 5)])
@pytest.mark.parametrize("architecture", ["cheng2020-anchor", "joint-autoregressive"])
@torch.no_grad()
def test_wavefront_is_the_raster_scan(lively, architecture: str, size: tuple[int, int]) -> None:
    codec = lively(architecture)
    channels = codec.latent_channels
    generator = torch.Generator().manual_seed(3)
    y = 3 * torch.randn(channels, *size, generator=generator).double()
    params = torch.randn(2 * channels, *size, generator=generator).double()
    flat = y.flatten(1).t()[wavefront(*size).order]

    def visit(first: int, last: int, means: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        return torch.round(flat[first:last] - means) + means

    found = ContextModel(codec.model).scan(params, visit)
    assert torch.equal(found, position_by_position(codec, params, y))


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
