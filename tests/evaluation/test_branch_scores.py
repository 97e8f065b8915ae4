"""What a branch sees is scored like what a recognizer sees: with branches whose sight is known."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from taskpress.auxiliary.detection import DetectionBranch
from taskpress.coding.codec import Codec
from taskpress.detections import Detections
from taskpress.evaluation.branch_scores import Seen, look_at_latents
from taskpress.evaluation.detections_figure import detections_figure

from .conftest import CATEGORIES, ColourDetector, Squares


class Blurring(nn.Module):
    """A codec whose latent is the picture itself, and which decodes to grey."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def estimate(self, batch: Tensor) -> SimpleNamespace:
        rate = torch.full((len(batch),), 0.25)
        return SimpleNamespace(latent=batch, x_hat=torch.full_like(batch, 0.4), rate=rate)


class Oracle(nn.Module):
    """Finds in the latent what the teacher finds in the picture, moved by so many pixels."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        return {"latent": latent}

    def predict(self, output: dict[str, Tensor]) -> list[Detections]:
        found = ColourDetector().predict(list(output["latent"]))
        return [Detections(one.boxes + self.shift, one.labels, one.scores) for one in found]


def look(shift: float, **options: Any) -> Seen:
    codec, branch = cast(Codec, Blurring()), cast(DetectionBranch, Oracle(shift))
    return look_at_latents(codec, branch, Squares(), ColourDetector(), **options)


def test_each_view_has_the_scores_of_what_was_seen_there() -> None:
    seen = look(0.0)
    assert (seen.images, seen.bpp) == (4, 0.25)
    # The blue square is annotated where it is not; the teacher's labels are where the branch looks.
    assert seen.scores["latent"]["teacher_ap"] == pytest.approx(100)
    assert seen.scores["latent"]["ap"] == pytest.approx(200 / 3)
    assert seen.scores["uncompressed"] == seen.scores["latent"]
    assert seen.scores["decoded"]["teacher_ap"] == 0
    assert look(30.0).scores["latent"]["teacher_ap"] == 0


def test_boxes_are_brought_to_the_size_that_is_scored() -> None:
    doubled = look(0.0, resize=160, limit=2)
    assert doubled.images == 2
    assert doubled.scores["latent"]["teacher_ap"] == pytest.approx(100)


def test_right_and_wrong_boxes_differ_in_the_figure() -> None:
    def orange(shift: float) -> int:
        seen = look(shift, show=2)
        assert [len(row) for row in seen.shown] == [3, 3]
        picture = Image.open(io.BytesIO(detections_figure(seen.shown, CATEGORIES)))
        return int(np.all(np.array(picture.convert("RGB")) == (0xFF, 0x6A, 0x3D), -1).sum())

    assert orange(0.0) == 0 and orange(30.0) > 100
    assert all(
        (row[2].objects.boxes <= torch.tensor([80, 64, 80, 64])).all() for row in look(30.0, show=2).shown
    )
