import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from taskpress.evaluation.allocation import (
    Allocation,
    allocate,
    area_in_boxes,
    bits_per_pixel,
    dataset_share,
    share_in_boxes,
)
from taskpress.evaluation.allocation_figure import Drawn, allocation_figure

from .conftest import Squares


class FakeCodec(nn.Module):
    """Spends its bits on bright pixels: each latent position costs the sum of the red channel it covers."""

    stride = 16

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def estimate(self, batch: torch.Tensor) -> SimpleNamespace:
        assert not self.training
        height, width = batch.shape[-2:]
        padded = nn.functional.pad(batch[:, 0], (0, -width % 64, 0, -height % 64))
        return SimpleNamespace(rate_map=nn.functional.avg_pool2d(padded, 16) * 256)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Allocation, torch.Tensor]:
    height, width = draw(st.integers(1, 100)), draw(st.integers(1, 100))
    h, w = 4 * -(-height // 64), 4 * -(-width // 64)
    cells = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).exponential(size=(h, w))
    coordinate = st.integers(-20, 120)
    boxes = draw(st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=5))
    corners = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in boxes]
    return Allocation(cells, (height, width)), torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)


def rasterized(boxes: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    for x0, y0, x1, y1 in boxes.int().tolist():
        mask[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
    return mask


@settings(max_examples=80, deadline=None)
@given(pictures())
def test_share_is_that_of_counted_pixels(picture: tuple[Allocation, torch.Tensor]) -> None:
    allocation, boxes = picture
    mask = rasterized(boxes, allocation.size)
    pixels = bits_per_pixel(allocation)
    assert pixels.shape == allocation.size
    assert pixels.sum() == pytest.approx(allocation.cells.sum())
    assert pixels.mean() == pytest.approx(allocation.bpp)
    share = share_in_boxes(allocation.cells, boxes, allocation.size)
    assert share == pytest.approx(pixels[mask].sum() / pixels.sum(), abs=1e-9)
    assert area_in_boxes(boxes, allocation.size) == mask.sum()


def test_half_a_cell_counts_half() -> None:
    cells = np.array([[8.0, 2.0], [0.0, 0.0]])
    half = torch.tensor([[0.0, 0.0, 8.0, 16.0]])
    assert share_in_boxes(cells, half, (32, 32)) == pytest.approx(0.4)
    fractional = torch.tensor([[0.0, 0.0, 0.5, 16.0], [0.25, 0.0, 0.5, 8.0]])
    assert share_in_boxes(cells, fractional, (32, 32)) == pytest.approx(0.8 * 0.5 / 16)


def test_everything_and_nothing() -> None:
    cells = np.ones((4, 4))
    assert share_in_boxes(cells, torch.tensor([[-5.0, -5.0, 99.0, 99.0]]), (50, 40)) == pytest.approx(1)
    assert share_in_boxes(cells, torch.zeros(0, 4), (50, 40)) == 0
    assert share_in_boxes(cells, torch.tensor([[60.0, 0.0, 70.0, 9.0]]), (50, 40)) == 0
    assert np.isnan(share_in_boxes(np.zeros((4, 4)), torch.tensor([[0.0, 0.0, 9.0, 9.0]]), (50, 40)))


def test_data_set_share_scales_boxes_with_the_pictures() -> None:
    data = Squares()
    labels = [data[index].annotations for index in (0, 1, 2)]
    plain = dataset_share(FakeCodec(), data, labels)
    assert plain.area == pytest.approx(sum(w * h for w, h in ((30, 30), (40, 32), (40, 40))) / (3 * 64 * 80))
    doubled = dataset_share(FakeCodec(), data, labels, resize=160)
    assert doubled.area == pytest.approx(plain.area)
    # Twice the size leaves a quarter of each cell's neighbourhood: the red square stands out more sharply.
    assert doubled.share > plain.share
    assert 0 < plain.share < 1


def test_allocation_asks_the_codec_as_it_codes() -> None:
    codec = FakeCodec().train()
    image = Squares()[0].image
    allocation = allocate(codec, image)
    assert allocation.cells.shape == (4, 8)
    assert allocation.bpp == pytest.approx(image[..., 0].mean() / 255)


def test_figure_has_a_panel_per_codec() -> None:
    image = Squares()[0].image
    boxes = Squares()[0].annotations.boxes
    allocation = allocate(FakeCodec(), image)
    one = allocation_figure(image, boxes, [Drawn("a", allocation)])
    two = allocation_figure(image, torch.zeros(0, 4), [Drawn("a", allocation), Drawn("b", allocation)])
    sizes = [Image.open(io.BytesIO(data)).size for data in (one, two)]
    assert sizes[1][0] > sizes[0][0]
    assert sizes[1][1] == sizes[0][1]
