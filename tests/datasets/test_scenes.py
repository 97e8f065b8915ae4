"""The drawn data set: the same for everyone, exactly labelled, and expensive where it does not matter."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from taskpress.datasets import scene_shapes
from taskpress.datasets.dataset import Dataset
from taskpress.datasets.scenes import CATEGORIES, Scenes
from taskpress.errors import DataError
from taskpress.evaluation.detection_metric import coco_metrics

COUNT = 24


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes("test", COUNT)


def test_satisfies_the_data_set_protocol(scenes: Scenes) -> None:
    assert isinstance(scenes, Dataset)
    assert len(list(scenes)) == len(scenes) == COUNT
    assert [category.id for category in CATEGORIES] == list(range(1, 11))


def test_a_picture_is_the_same_whoever_asks(scenes: Scenes) -> None:
    backwards = Scenes("test", 10_000)
    for index in (7, 3, 0):
        mine, theirs = scenes[index], backwards[index]
        assert np.array_equal(mine.image, theirs.image)
        assert torch.equal(mine.annotations.boxes, theirs.annotations.boxes)
        assert torch.equal(mine.annotations.labels, theirs.annotations.labels)


def test_a_caller_cannot_spoil_a_picture_for_the_next(scenes: Scenes) -> None:
    before = scenes[0].image.copy()
    scenes[0].image[:] = 0
    assert np.array_equal(scenes[0].image, before)


def test_train_and_test_share_no_picture() -> None:
    pictures = {Scenes(split, 8, size=64)[i].image.tobytes() for split in ("train", "test") for i in range(8)}
    assert len(pictures) == 16


def test_drawing_leaves_global_random_state_alone() -> None:
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    Scenes("train", 1)[0]
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize("size", [64, 256, 200])
def test_pictures_have_the_asked_size_and_two_to_six_objects(size: int) -> None:
    for sample in Scenes("train", 6, size=size):
        assert sample.image.shape == (size, size, 3)
        assert sample.image.dtype == np.uint8
        assert 1 <= len(sample.annotations) <= 6
        boxes = sample.annotations.boxes
        assert boxes.min() >= 0 and boxes.max() <= size
        assert torch.all(sample.annotations.scores == 1)


def test_boxes_enclose_the_visible_pixels(scenes: Scenes) -> None:
    for index in range(COUNT):
        annotations, masks = scenes[index].annotations, scenes.masks(index)
        assert masks.shape == (len(annotations), 256, 256)
        assert masks.sum(0).max() <= 1, "two objects claim a pixel"
        for box, mask in zip(annotations.boxes.tolist(), masks, strict=True):
            assert Image.fromarray(mask).getbbox() == tuple(box)


def test_objects_come_in_all_classes_and_scales() -> None:
    scenes = Scenes("train", 60)
    annotations = [sample.annotations for sample in scenes]
    labels = torch.cat([a.labels for a in annotations])
    assert set(labels.tolist()) == set(range(len(CATEGORIES)))
    boxes = torch.cat([a.boxes for a in annotations])
    sides = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    assert torch.quantile(sides, 0.1) < 35
    assert torch.quantile(sides, 0.9) > 80
    assert sides.min() >= 12
    assert 3 <= len(labels) / len(scenes) <= 5


def test_ground_truth_is_what_the_coco_metric_expects(scenes: Scenes) -> None:
    truth = scenes.coco_ground_truth()
    samples = list(scenes)
    assert [image["id"] for image in truth["images"]] == [sample.id for sample in samples]
    annotations = [sample.annotations for sample in samples]
    perfect = coco_metrics(truth, annotations, range(COUNT), CATEGORIES)
    assert perfect["ap"] == pytest.approx(100)
    pixels = sum(int(scenes.masks(index).sum()) for index in range(COUNT))
    assert sum(annotation["area"] for annotation in truth["annotations"]) == pixels


def test_background_costs_most_of_the_bits(scenes: Scenes) -> None:
    """A codec that does not know the task wastes its bits: the objects alone cost the smaller part."""
    whole = empty = 0
    for index in range(COUNT):
        image = scenes[index].image
        background = image.copy()
        background[scenes.masks(index).any(0)] = image.mean((0, 1)).astype(np.uint8)
        whole, empty = whole + _jpeg_size(image), empty + _jpeg_size(background)
    assert empty / whole > 0.7
    assert whole / COUNT * 8 / 256**2 > 0.5, "bits per pixel at quality 30"


def test_spectrum_falls_as_in_natural_images(scenes: Scenes) -> None:
    """Amplitude ~ 1/f^a with a around 1 (Field, 1987: 0.7 to 1.5) over the middle octaves."""
    power = np.zeros((256, 129))
    for sample in scenes:
        grey = sample.image.mean(-1)
        power += np.abs(np.fft.rfft2(grey - grey.mean())) ** 2
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
    edges = np.geomspace(4 / 256, 0.25, 9)
    rings = [(frequency >= low) & (frequency < high) for low, high in pairwise(edges)]
    amplitude = [np.sqrt(power[ring].mean()) for ring in rings]
    slope = np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(amplitude), 1)[0]
    assert -1.5 < slope < -0.7


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("ball", np.pi),
        ("cube", 1.5 * np.sqrt(3)),
        ("ring", np.pi * (0.98**2 - 0.42**2)),
        ("star", 5 * 0.4203 * np.sin(np.pi / 5)),
        ("cross", 2 * 1.9 * 0.6 - 0.6**2),
        ("can", 2 * 0.72 * 1.2 + np.pi * 0.6 * 0.24),
    ],
)
def test_shapes_have_the_area_of_their_closed_form(name: str, area: float) -> None:
    axis = (np.arange(500, dtype=np.float32) - 249.5) / 200
    surface = scene_shapes.CLASSES[name](axis[None, :], axis[:, None])
    assert np.count_nonzero(surface.distance < 0) / 200**2 == pytest.approx(area, rel=0.01)


@pytest.mark.parametrize("name", scene_shapes.CLASSES)
def test_shapes_fill_their_unit_circle_and_stay_near_it(name: str) -> None:
    axis = (np.arange(300, dtype=np.float32) - 149.5) / 100
    surface = scene_shapes.CLASSES[name](axis[None, :], axis[:, None])
    inside = np.broadcast_to(surface.distance < 0, (300, 300))
    reach = np.hypot(axis[None, :], axis[:, None])[inside].max()
    assert 0.85 < reach < 1.2
    assert surface.distance.dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("val", 3), "val"), (("test", 0), "0 pictures"), (("test", 3, 32), "32 pixels")],
)
def test_bad_requests_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Scenes(*arguments)  # type: ignore[arg-type]


def test_there_is_no_scene_beyond_the_count(scenes: Scenes) -> None:
    for index in (COUNT, -1):
        with pytest.raises(IndexError):
            scenes[index]


def _jpeg_size(image: np.ndarray) -> int:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=30)
    return file.tell()
