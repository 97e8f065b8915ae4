"""What a codec takes and what it refuses, with the remedy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from taskpress.coding.images import to_tensor
from taskpress.errors import BitstreamError, ImageError


def test_inputs_of_every_kind_agree(lively, picture, tmp_path: Path) -> None:
    codec = lively("mean-scale-hyperprior")
    array = picture(30, 44)
    data = codec.encode(array)
    assert codec.encode(Image.fromarray(array)) == data
    assert codec.encode(to_tensor(array)) == data
    assert codec.encode(to_tensor(array).double()) == codec.encode(to_tensor(array).double().float())
    assert codec.encode(np.asfortranarray(array)) == data
    assert codec.encode(torch.from_numpy(array).permute(2, 0, 1)) == data, "as torchvision reads pictures"
    assert codec.encode(to_tensor(array) - 2e-5) == codec.encode((to_tensor(array) - 2e-5).clamp(0, 1))
    grey = codec.encode(np.repeat(array[..., :1], 3, axis=2))
    assert codec.encode(Image.fromarray(array[..., 0])) == grey
    assert codec.encode(array[..., 0]) == codec.encode(array[..., :1]) == grey
    Image.fromarray(array).save(tmp_path / "a.png")
    assert codec.encode(tmp_path / "a.png") == codec.encode(str(tmp_path / "a.png")) == data
    with pytest.warns(UserWarning, match="alpha is dropped"):
        opaque = codec.encode(Image.fromarray(np.dstack([array, array[..., 0]]), "RGBA"))
    assert opaque == data


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "uint8"),
        (np.zeros((4, 4), np.float32), "uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"\[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (torch.zeros(4, 4, 3), r"\[4, 4, 3\]"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "float"),
        (torch.full((3, 4, 4), 255.0), "255; divide it by 255"),
        (torch.full((3, 4, 4), -0.1), "-0.1; clamp"),
        (torch.full((3, 4, 4), 1.5), r"\[0, 1\]"),
        (torch.full((3, 4, 4), float("nan")), "not finite"),
        (np.zeros((1, 70000, 3), np.uint8), "70000×1"),
        ("picture.png", "picture.png: cannot be read"),
        (7, "int"),
        (Image.new("CMYK", (4, 4)), "CMYK"),
        (Image.new("I;16", (4, 4)), "16-bit"),
    ],
)
def test_other_inputs_are_refused(lively, image: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        lively("mean-scale-hyperprior").encode(image)


def test_estimate_in_evaluation_wants_pictures_as_encode_does(lively) -> None:
    codec = lively("mean-scale-hyperprior")
    with pytest.raises(ImageError, match=r"the batch's values must lie in .* divide it by 255"):
        codec.estimate(torch.full((1, 3, 64, 64), 200.0))
    batch = torch.rand(1, 3, 64, 64)
    assert torch.equal(codec(batch).x_hat, codec.estimate(batch).x_hat)


def test_pictures_of_more_pixels_than_wanted_are_not_decoded(lively, picture) -> None:
    codec = lively("mean-scale-hyperprior")
    data = codec.encode(picture(30, 44))
    assert codec.decode(data, max_pixels=30 * 44).size == (44, 30)
    for region in (None, (0, 0, 1, 1)):
        with pytest.raises(BitstreamError, match="44×30 pixels, more than 1319"):
            codec.decode(data, region=region, max_pixels=30 * 44 - 1)
