"""Strip by strip, a transform gives what it gives for the whole picture."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from taskpress.coding import strips
from taskpress.coding.codec import Codec
from taskpress.coding.grid import Box
from taskpress.coding.images import Picture, open_picture, to_tensor
from taskpress.coding.layers import AttentionBlock, ResidualBlockUpsample
from taskpress.coding.streams import build_stream, in_strips, reach_of
from taskpress.coding.transforms import Transform, build_transforms

ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


@torch.inference_mode()
def farthest_influence(layers: nn.Module, channels: int, rows: int) -> float:
    """Rows of input between a row of output's own place and the farthest that changes it.

    A value that is not a number makes everything that depends on it none.
    """
    farthest = 0.0
    for spoilt in range(rows // 2 - 8, rows // 2 + 8):
        x = torch.rand(1, channels, rows, 64 if channels == 3 else 4)
        x[:, :, spoilt] = torch.nan
        outcome = layers(x)
        scale = outcome.shape[2] / rows
        for row in torch.nonzero(outcome.isnan().any(1).any(2)[0])[:, 0].tolist():
            own = range(int(row / scale), max(int((row + 1) / scale), int(row / scale) + 1))
            farthest = max(farthest, own.start - spoilt, spoilt - (own.stop - 1))
    return farthest


def test_reach_is_how_far_a_transform_looks(codec: Codec) -> None:
    model = codec.model
    assert farthest_influence(model.g_a, 3, 512) == build_stream(model.g_a).reach
    rows = build_stream(model.g_s).reach
    assert rows <= farthest_influence(model.g_s, codec.latent_channels, 64) < rows + 1
    assert build_stream(model.g_a).scale == 1 / build_stream(model.g_s).scale == 1 / 16


class Doubling(nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Softmax(),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, (3, 1), padding=(1, 0)),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.ConvTranspose2d(4, 4, 5, stride=2, padding=2),
        nn.BatchNorm2d(4),
        nn.utils.spectral_norm(nn.Conv2d(4, 4, 3, padding=1)),
        nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.PixelShuffle(2)),
        Doubling(4, 4, 1),
    ],
    ids=repr,
)
def test_an_unknown_layer_is_no_guess(layer: nn.Module) -> None:
    layers = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), layer)
    assert reach_of(layers) is None
    with pytest.raises(TypeError, match=type(layer).__name__):
        build_stream(layers)


def test_blocks_with_other_parts_are_no_guess() -> None:
    gate, longer = AttentionBlock(4), ResidualBlockUpsample(4)
    gate.conv_b = nn.Sequential(nn.Conv2d(4, 4, 9, padding=4))
    longer.upsample = nn.Sequential(nn.Conv2d(4, 16, 9, padding=4), nn.PixelShuffle(2))
    for block in (gate, longer):
        assert reach_of(block) is None
    assert reach_of(AttentionBlock(4)) and reach_of(ResidualBlockUpsample(4))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 5, 2, 2, groups=4),
        nn.ConvTranspose2d(4, 6, 5, 2, 2, 1, groups=2),
        nn.GELU(),
        nn.PReLU(4),
    ],
    ids=repr,
)
def test_layers_of_other_codecs_stream(layer: nn.Module) -> None:
    x = torch.rand(1, 4, 32, 8)
    with torch.inference_mode():
        layers = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), layer)
        torch.testing.assert_close(torch.cat([*in_strips(layers, x.split(6, 2))], 2), layers(x))


def test_strips_of_any_height_give_the_whole(codec: Codec) -> None:
    model = codec.model
    x = torch.rand(1, 3, 448, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        y = model.g_a(x)
        x_hat = model.g_s(y)

    @settings(max_examples=6, deadline=None)
    @given(cuts=st.sets(st.integers(1, 27), max_size=8))
    @torch.inference_mode()
    def check(cuts: set[int]) -> None:
        places = sorted(cuts)
        above = in_strips(model.g_a, x.tensor_split([16 * place for place in places], 2))
        torch.testing.assert_close(torch.cat(list(above), 2), y, **ROUNDING)
        below = in_strips(model.g_s, y.tensor_split(places, 2))
        torch.testing.assert_close(torch.cat(list(below), 2), x_hat, **ROUNDING)

    check()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little pictures are worked on as huge ones are: in bands, and these in strips."""
    monkeypatch.setattr(strips, "BAND", 192)
    monkeypatch.setattr(strips, "STRIP_VALUES", 16 * 64 * 400)


@pytest.mark.parametrize("architecture", ["cheng2020-attention", "joint-autoregressive"])
def test_bands_and_strips_give_the_whole(lively, picture, narrow: None, architecture: str) -> None:
    codec = lively(architecture)
    array = picture(210, 500)
    padded = open_picture(array).window(Box(0, 0, 512, 256))
    with torch.inference_mode():
        y = strips.analyze(Transform(codec.model.g_a), open_picture(array), 16, padded.device)
        torch.testing.assert_close(y, codec.model.g_a(padded), **ROUNDING)
        whole = codec.model.g_s(y)[0]
        g_s, picture_box = Transform(codec.model.g_s), Box(0, 0, 500, 210)
        assert strips.needed(g_s, picture_box, picture_box) == Box(0, 0, 512, 256), "the padding's too"
        for region in (picture_box, Box(3, 5, 499, 210), Box(200, 100, 201, 101), Box(450, 0, 500, 77)):
            seen = strips.needed(g_s, region, picture_box)
            latent = y[(..., *seen.slices(16))]
            covered = np.zeros((210, 500), dtype=int)
            for box, pixels in strips.synthesize(g_s, latent, seen, region, picture_box, 16):
                torch.testing.assert_close(pixels, whole[(..., *box.slices())], **ROUNDING)
                covered[box.slices()] += 1
            assert covered[region.slices()].all() and covered.sum() == region.width * region.height


def test_strips_in_bfloat16_are_off_by_its_rounding(lively, picture, narrow: None) -> None:
    model = lively("cheng2020-attention").model
    near, exact = (build_transforms(model, name, torch.device("cpu")) for name in ("bfloat16", "float32"))
    array = open_picture(picture(192, 400))
    with torch.inference_mode():
        y, expected = (strips.analyze(one.analysis, array, 16, torch.device("cpu")) for one in (near, exact))
    assert y.dtype == torch.float32
    assert 2**-12 < (y - expected).norm() / expected.norm() < 2**-5


@settings(max_examples=50, deadline=None)
@given(width=st.integers(1, 70), height=st.integers(1, 70), data=st.data())
def test_a_window_repeats_the_edge(width: int, height: int, data: st.DataObject) -> None:
    """Against numpy's padding."""
    array = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    right, bottom = data.draw(st.integers(1, 128)), data.draw(st.integers(1, 128))
    box = Box(data.draw(st.integers(0, right - 1)), data.draw(st.integers(0, bottom - 1)), right, bottom)
    padded = np.pad(array, ((0, 128), (0, 128), (0, 0)), mode="edge")[box.slices()]
    expected = torch.from_numpy(padded).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(Picture(array).window(box), expected)
    assert torch.equal(Picture(to_tensor(array)).window(box), Picture(array).window(box))


@given(
    left=st.integers(0, 300),
    top=st.integers(0, 300),
    width=st.integers(1, 70_000),
    height=st.integers(1, 70_000),
)
def test_bands_and_cuts_cover_a_box_and_are_bounded(left: int, top: int, width: int, height: int) -> None:
    box = Box(left, top, left + width, top + height).outward(16)
    bands = strips._bands(box)
    assert [bands[0].left, bands[-1].right] == [box.left, box.right]
    assert all(before.right == after.left for before, after in pairwise(bands))
    for band in bands:
        assert 0 < band.width < strips.BAND + 64
        cuts = strips._cuts(band, 2**17)
        assert [cuts[0][0], cuts[-1][1]] == [box.top, box.bottom]
        assert all(before[1] == after[0] for before, after in pairwise(cuts))
        for first, last in cuts:
            assert (last - first) % 16 == 0 < last - first
            assert (last - first) * band.width <= 1.6 * 2**17
