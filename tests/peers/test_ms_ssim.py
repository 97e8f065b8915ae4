"""pytorch-msssim, by which the field reports MS-SSIM, as oracle of ours, which is torchmetrics'."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from taskpress.datasets.scenes import Scenes
from taskpress.evaluation.fidelity import ms_ssim

peer = pytest.importorskip("pytorch_msssim", reason="needs pip install --no-deps -r requirements-peers.txt")


@pytest.mark.parametrize("quality", [5, 40])
def test_equal_but_for_the_edges(quality: int) -> None:
    """On sides that halve four times evenly; the peer pads others with black, which lifts its value."""
    original = Scenes("test", 1)[0].image
    buffer = io.BytesIO()
    Image.fromarray(original).save(buffer, "JPEG", quality=quality)
    decoded = np.array(Image.open(buffer))
    pair = [torch.from_numpy(image).permute(2, 0, 1)[None].float() for image in (decoded, original)]
    assert ms_ssim(original, decoded) == pytest.approx(float(peer.ms_ssim(*pair, data_range=255)), abs=0.003)
