"""Codecs whose latents are worth coding, and pictures that look like something."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from taskpress.coding.codec import Codec

ARCHITECTURES = ("cheng2020-attention", "cheng2020-anchor", "joint-autoregressive", "mean-scale-hyperprior")


def draw(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: smooth shapes, edges and a little grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    rows, columns = np.mgrid[:height, :width]
    edge = (rows - columns * rng.uniform(-1, 2) > height * rng.uniform(0, 0.5))[..., None]
    return np.clip(smooth + 60 * edge + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def last_convolution(layers: nn.Sequential) -> nn.Conv2d:
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)][-1]


@cache
@torch.no_grad()
def enlivened(architecture: str, channels: int = 16) -> Codec:
    """A codec whose y and z spread over many values, with scales that fit, as training would make them."""
    codec = Codec.create(architecture, channels, seed=1)
    model = codec.model
    x = torch.from_numpy(draw(128, 128)).permute(2, 0, 1)[None] / 255
    last_convolution(model.g_a).weight.mul_(2 / model.g_a(x).std())
    last_convolution(model.h_a).weight.mul_(3 / model.h_a(model.g_a(x)).std())
    gaussian = last_convolution(model.entropy_parameters or model.h_s)
    gaussian.weight.mul_(4)
    gaussian.bias[: codec.latent_channels] += 1.5
    return codec.eval()


@pytest.fixture
def lively() -> Callable[..., Codec]:
    """lively(architecture, channels=16): shared, not to be changed; deepcopy it for that."""
    return enlivened


@pytest.fixture(params=ARCHITECTURES)
def codec(request: pytest.FixtureRequest) -> Codec:
    """One codec of every architecture."""
    return enlivened(request.param)


@pytest.fixture
def picture() -> Callable[..., np.ndarray]:
    """picture(height, width, seed=0): uint8 [height, width, 3]."""
    return draw
