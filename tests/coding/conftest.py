"""Codecs whose latents are worth coding, and pictures that look like something."""

import copy
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from taskpress.coding.allocation import AllocatorSettings
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


def with_allocator(codec: Codec, settings: AllocatorSettings) -> Codec:
    codec = copy.deepcopy(codec)
    codec.attach_allocator(settings, seed=3)
    return codec.eval()


def decisive(codec: Codec, settings: AllocatorSettings) -> Codec:
    """With an allocator whose maps have several levels, and gains that differ from channel to channel."""
    codec = with_allocator(codec, settings)
    allocator = codec.allocator
    assert allocator is not None
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        # At most about 1: a latent far beyond what its probabilities know is estimated at 30 bits a value,
        # where the coder has a cheaper way out.
        allocator.gains.log_gain.add_(0.2 * torch.randn_like(allocator.gains.log_gain) - 0.7)
        if settings.kind == "roi":
            torch.nn.init.normal_(allocator.foreground.weight)
            torch.nn.init.normal_(allocator.attention.excite.weight, std=0.1)
        else:
            torch.nn.init.normal_(allocator.classes.weight)
            torch.nn.init.normal_(allocator.policy[2].weight, std=4.0)
    return codec


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
