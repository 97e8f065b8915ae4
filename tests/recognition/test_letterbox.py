from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from taskpress.recognition.letterbox import GREY, fitted_size, letterbox, to_detector_pixels


def test_a_fitting_picture_passes_untouched() -> None:
    image = torch.rand(3, 20, 30)
    canvas, placement = letterbox(image, (20, 30), (32, 32))
    assert torch.equal(canvas[:, :20, :30], image)
    assert (canvas[:, 20:] == GREY).all()
    assert (canvas[:, :, 30:] == GREY).all()
    assert placement == (1.0, 1.0)


@pytest.mark.parametrize("size", [(40, 30), (97, 64), (160, 120)])
def test_scales_like_pillow(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    canvas, placement = letterbox(image, size, size)
    got = (canvas * 255).permute(1, 2, 0).numpy()
    assert np.abs(got - expected).max() <= 1.01  # Pillow rounds after each of its two passes
    assert placement == (size[1] / 60, size[0] / 80)


def test_a_batch_is_scaled_as_its_pictures_are() -> None:
    batch = torch.rand(2, 3, 50, 40)
    canvas, _ = letterbox(batch, (25, 20), (32, 32))
    one, _ = letterbox(batch[1], (25, 20), (32, 32))
    assert torch.equal(canvas[1], one)


def test_gradient_is_the_derivative() -> None:
    image = torch.rand(3, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: letterbox(x, (3, 4), (4, 4))[0], image)


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((416, 300), 416, (416, 300)),
        ((640, 480), 416, (416, 312)),
        ((1, 900), 416, (1, 416)),
        ((50, 100), 416, (208, 416)),
    ],
)
def test_long_side_is_the_canvas(size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert fitted_size(*size, side) == expected


def test_detector_pixels_are_bgr_bytes() -> None:
    red = torch.tensor([1.0, 0.0, 0.5])[:, None, None].expand(3, 2, 2)
    assert to_detector_pixels(red)[:, 0, 0].tolist() == [127.5, 0.0, 255.0]
