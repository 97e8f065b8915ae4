"""Batches depend on (seed, step) alone, and labels follow their picture through crop and flip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from taskpress.detections import Detections
from taskpress.errors import ConfigError, DataError
from taskpress.training.augmentation import jittered
from taskpress.training.config import DataConfig
from taskpress.training.data import Batch, StepStream, open_sources


class RedFinder:
    """A teacher that boxes what is red."""

    def labels(self, image: np.ndarray) -> Detections:
        ys, xs = np.nonzero((image[..., 0] > 200) & (image[..., 1] < 60))
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        return Detections(
            torch.tensor([box], dtype=torch.float32), torch.zeros(1, dtype=torch.int64), torch.ones(1)
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(5):
        image = rng.integers(60, 200, (90 + 10 * i, 150, 3)).astype(np.uint8)
        y, x = rng.integers(0, 60), rng.integers(0, 100)
        image[y : y + 30, x : x + 40] = (255, 0, 0)
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    return tmp_path


def stream(folder: Path, seed: int = 3, first_step: int = 0, **settings: object) -> StepStream:
    config = DataConfig.model_validate({"sources": [str(folder)], "patch": 64, "batch": 2, **settings})
    return StepStream(open_sources(config.sources), config, seed, [RedFinder()], first_step)  # type: ignore[arg-type]


def take(source: StepStream, count: int) -> list[Batch]:
    return [batch for batch, _ in zip(source, range(count), strict=False)]


VARIED = {"scale": [0.5, 1.5], "jitter": 0.4}


@pytest.mark.parametrize("settings", [{}, VARIED])
def test_a_resumed_stream_goes_on_where_it_was(folder: Path, settings: dict[str, Any]) -> None:
    whole = take(stream(folder, **settings), 9)
    resumed = take(stream(folder, first_step=4, **settings), 5)
    for a, b in zip(whole[4:], resumed, strict=True):
        assert torch.equal(a.images, b.images)
        assert all(torch.equal(x.boxes, y.boxes) for x, y in zip(a.labels[0], b.labels[0], strict=True))
    other = take(stream(folder, seed=4), 9)
    assert any(not torch.equal(a.images, b.images) for a, b in zip(whole, other, strict=True))


def test_an_epoch_visits_every_picture_once(folder: Path) -> None:
    source = stream(folder)
    for epoch in range(3):
        assert sorted(source._index(epoch * 5 + i) for i in range(5)) == list(range(5))


def test_labels_follow_the_picture(folder: Path) -> None:
    seen = 0
    for batch in take(stream(folder), 40):
        for image, labels in zip(batch.images, batch.labels[0], strict=True):
            red = (image[0] > 0.99) & (image[1] < 0.01)
            for x0, y0, x1, y1 in labels.boxes.round().int().tolist():
                seen += 1
                assert red[y0:y1, x0:x1].all()
                assert red.sum() == (y1 - y0) * (x1 - x0)
    assert seen > 20


def test_labels_follow_a_scaled_picture(folder: Path) -> None:
    areas = []
    for batch in take(stream(folder, patch=192, scale=[0.5, 1.2]), 30):
        for image, labels in zip(batch.images, batch.labels[0], strict=True):
            red = (image[0] > 0.9) & (image[1] < 0.1)
            for x0, y0, x1, y1 in labels.boxes.round().int().tolist():
                areas.append((x1 - x0) * (y1 - y0))
                # Scaling blurs the rim of what is red; a picture that was padded may go on being red.
                assert red[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].all()
                if max(x1, y1) < 80:
                    assert red.sum() <= areas[-1]
    # 30x40 by the squares of 0.5 and 1.2, whole pixels aside.
    assert 0.2 * 1200 < min(areas) < 0.4 * 1200
    assert 1.1 * 1200 < max(areas) < 1.55 * 1200


def test_augmentation_leaves_the_choice_of_crops_alone(folder: Path) -> None:
    plain, same = take(stream(folder), 6), take(stream(folder, scale=[1.0, 1.0], jitter=0.0), 6)
    for a, b in zip(plain, same, strict=True):
        assert torch.equal(a.images, b.images)


@given(st.floats(0.2, 0.6), st.floats(0.01, 0.6), st.integers(0, 2**32))
def test_jitter_of_an_even_grey_is_its_brightness(grey: float, strength: float, seed: int) -> None:
    light = jittered(torch.full((3, 8, 8), grey), strength, np.random.default_rng(seed))
    assert light.max() - light.min() < 1e-5
    assert grey * (1 - strength) - 1e-4 <= light.mean() <= min(1.0, grey * (1 + strength)) + 1e-4


def test_jitter_moves_contrast_and_saturation_and_stays_in_range() -> None:
    pixels = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    spread, colour = set(), set()
    for _ in range(50):
        light = jittered(pixels, 0.5, rng)
        assert light.min() >= 0 and light.max() <= 1
        grey = light.mean(0)
        spread.add(round(float(grey.std() / grey.mean()), 2))
        colour.add(round(float((light - grey).std() / grey.mean()), 2))
    assert len(spread) > 10 and len(colour) > 10


@pytest.mark.parametrize("scale", [[1.2, 0.8], [0.0, 1.0], [0.5]])
def test_a_wrong_range_of_scales_is_refused(scale: list[float]) -> None:
    with pytest.raises(ValidationError, match="scale"):
        DataConfig.model_validate({"sources": ["scenes:1"], "scale": scale})


def test_workers_and_ranks_share_the_steps_without_overlap(folder: Path) -> None:
    config = DataConfig(sources=[str(folder)], patch=64, batch=1)
    pictures = open_sources(config.sources)
    ranks = [StepStream(pictures, config, 3, [RedFinder()], rank=r, ranks=2) for r in range(2)]  # type: ignore[arg-type]
    alone = StepStream(pictures, config, 3, [RedFinder()])  # type: ignore[arg-type]
    for step in range(4):
        for rank in range(2):
            assert torch.equal(ranks[rank].batch(step).images, alone.batch(2 * step + rank).images)


def test_small_pictures_are_padded_and_large_ones_scaled(folder: Path) -> None:
    Image.new("RGB", (20, 30), (255, 0, 0)).save(folder / "5.png")
    for batch in take(stream(folder, long_side=100, patch=128), 6):
        assert batch.images.shape == (2, 3, 128, 128)
        assert batch.images.min() >= 0 and batch.images.max() <= 1


@pytest.mark.parametrize("source", ["scenes:", "scenes:x", "scenes:0", {"images": "a"}])
def test_a_wrong_source_is_named(source: str | dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"scenes|images"):
        open_sources([source])


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        open_sources([str(tmp_path / "nowhere")])
    with pytest.raises(DataError, match="holds no picture"):
        open_sources([str(tmp_path)])
