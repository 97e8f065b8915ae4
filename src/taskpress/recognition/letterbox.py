"""Fitting pictures onto a detector's canvas, differentiably, and boxes back into the picture's pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

GREY = 114.0 / 255.0
"""What YOLOX pads with."""


class Placement(NamedTuple):
    """How a picture lies on a canvas: scaled by these factors, its top left corner on the canvas's."""

    scale_x: float
    scale_y: float


def fitted_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width after the long side was scaled to `side` pixels, at least 1 pixel each."""
    ratio = side / max(height, width)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Scales [..., C, H, W] to `size` (height, width) bilinearly, differentiably; unchanged at its own."""
    if tuple(image.shape[-2:]) == size:
        return image
    batch = image.reshape(-1, *image.shape[-3:])
    # Anti-aliasing only acts where a picture shrinks; without it small objects would flicker away.
    batch = F.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=True)
    return batch.reshape(*image.shape[:-2], *size)


def letterbox(image: Tensor, size: tuple[int, int], canvas: tuple[int, int]) -> tuple[Tensor, Placement]:
    """Scales a picture to `size` and lays it on the top left of a grey canvas.

    image:  [..., 3, H, W] float in [0, 1]; gradients pass through
    size:   (height, width) in pixels; where it is (H, W) the pixels pass untouched
    canvas: (height, width) in pixels, at least `size`
    Returns the canvas [..., 3, *canvas] in the same range, and where the picture lies on it.
    """
    height, width = image.shape[-2:]
    image = resize(image, size)
    pad = (0, canvas[1] - size[1], 0, canvas[0] - size[0])
    if any(pad):
        image = F.pad(image, pad, value=GREY)
    return image, Placement(size[1] / width, size[0] / height)


def to_detector_pixels(image: Tensor) -> Tensor:
    """RGB in [0, 1] to what YOLOX and Detectron2 read: BGR in 0...255; [..., 3, H, W]."""
    return torch.flip(image, dims=[-3]) * 255.0
