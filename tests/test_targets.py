"""Targets follow their picture through crops, flips, scaling and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from taskpress.detections import Category, Crop, Detections, Instances
from taskpress.targets import TARGETS, UNCOUNTED, ClassScores, SemanticMap, Target, Task
from taskpress.training.teacher import Teacher

HEIGHT, WIDTH = 20, 26


def semantic(seed: int) -> SemanticMap:
    rng = np.random.default_rng(seed)
    return SemanticMap(torch.from_numpy(rng.integers(0, 5, (HEIGHT, WIDTH)).astype(np.uint8)))


def instances(seed: int, objects: int = 3) -> Instances:
    """Objects of scattered pixels in tight boxes."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((objects, HEIGHT, WIDTH), bool)
    boxes = np.zeros((objects, 4), np.float32)
    for mask, box in zip(masks, boxes, strict=True):
        y0, x0 = rng.integers(0, HEIGHT - 5), rng.integers(0, WIDTH - 5)
        y1, x1 = rng.integers(y0 + 5, HEIGHT + 1), rng.integers(x0 + 5, WIDTH + 1)
        mask[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < 0.7
        box[:] = x0, y0, x1, y1
    return Instances(
        torch.from_numpy(boxes), torch.arange(objects), torch.ones(objects), torch.from_numpy(masks)
    )


def cut(plane: np.ndarray, crop: Crop, flip: bool, padding: int) -> np.ndarray:
    """Oracle: pixel by pixel."""
    out = np.full((crop.height, crop.width), padding, plane.dtype)
    for y in range(crop.height):
        for x in range(crop.width):
            if crop.y + y < plane.shape[0] and crop.x + x < plane.shape[1]:
                out[y, crop.width - 1 - x if flip else x] = plane[crop.y + y, crop.x + x]
    return out


crops = st.builds(Crop, st.integers(0, 12), st.integers(0, 12), st.integers(6, 30), st.integers(6, 30))


@settings(max_examples=40)
@given(st.integers(0, 1000), crops, st.booleans())
def test_maps_are_cut_like_their_picture(seed: int, crop: Crop, flip: bool) -> None:
    target = semantic(seed)
    expected = cut(target.labels.numpy(), crop, flip, UNCOUNTED)
    assert np.array_equal(target.cropped(crop, flip).labels.numpy(), expected)


@settings(max_examples=40)
@given(st.integers(0, 1000), crops, st.booleans())
def test_masks_are_cut_like_their_picture_and_go_with_their_boxes(seed: int, crop: Crop, flip: bool) -> None:
    target = instances(seed)
    got = target.cropped(crop, flip)
    plain = Detections(target.boxes, target.labels, target.scores).cropped(crop, flip)
    boxes = dict(zip(plain.labels.tolist(), plain.boxes.tolist(), strict=True))
    expected = {k: cut(target.masks[k].numpy(), crop, flip, False) for k in boxes}
    expected = {k: mask for k, mask in expected.items() if mask.any()}
    assert got.labels.tolist() == list(expected)
    for label, box, mask in zip(got.labels.tolist(), got.boxes.tolist(), got.masks.numpy(), strict=True):
        assert box == boxes[label]
        assert np.array_equal(mask, expected[label])


def test_scaling_takes_the_value_at_each_pixels_centre() -> None:
    """Oracle: Pillow's nearest neighbour."""
    target = semantic(1)
    for size in ((40, 52), (7, 9), (31, 13), (HEIGHT, WIDTH)):
        got = target.resized((HEIGHT, WIDTH), size).labels.numpy()
        image = Image.fromarray(target.labels.numpy())
        assert np.array_equal(got, np.array(image.resize((size[1], size[0]), Image.Resampling.NEAREST)))
    masks = instances(2)
    twice = masks.resized((HEIGHT, WIDTH), (2 * HEIGHT, 2 * WIDTH))
    assert torch.equal(twice.masks, masks.masks.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert torch.equal(twice.boxes, 2 * masks.boxes)
    with pytest.raises(ValueError, match="does not belong"):
        target.resized((HEIGHT + 1, WIDTH), (10, 10))


class Labeller:
    """A recognizer that has one answer."""

    name, fingerprint = "labeller", "f" * 64
    categories = (Category(1, "thing"),)

    def __init__(self, task: Task, answer: Target) -> None:
        self.task, self.answer, self.asked = task, answer, 0

    def pseudo_labels(self, images: list[Tensor]) -> list[Target]:
        self.asked += 1
        return [self.answer]


ANSWERS: dict[Task, Target] = {
    Task.DETECTION: Detections(torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([3]), torch.tensor([0.5])),
    Task.INSTANCE_SEGMENTATION: instances(3),
    Task.SEGMENTATION: semantic(3),
    Task.CLASSIFICATION: ClassScores(torch.tensor([0.25, 0.5, 0.25])),
}


def same(a: Target, b: Target) -> bool:
    ours, theirs = a.arrays(), b.arrays()
    return ours.keys() == theirs.keys() and all(
        ours[k].dtype == theirs[k].dtype and np.array_equal(ours[k], theirs[k]) for k in ours
    )


@pytest.mark.parametrize("task", list(Task))
def test_the_cache_gives_back_what_went_in(tmp_path: Path, task: Task) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    first, second = Labeller(task, ANSWERS[task]), Labeller(task, ANSWERS[task])
    Teacher(first, tmp_path).labels(picture)  # type: ignore[arg-type]
    found = Teacher(second, tmp_path).labels(picture)  # type: ignore[arg-type]
    assert type(found) is TARGETS[task] and same(found, ANSWERS[task])
    assert (first.asked, second.asked) == (1, 0)


@pytest.mark.parametrize("task", list(Task))
def test_a_damaged_entry_is_computed_again(tmp_path: Path, task: Task) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    Teacher(Labeller(task, ANSWERS[task]), tmp_path).labels(picture)  # type: ignore[arg-type]
    (entry,) = tmp_path.rglob("*.npz")
    whole = entry.read_bytes()
    for damage in (whole[: len(whole) // 2], whole[:-1], b""):
        entry.write_bytes(damage)
        labeller = Labeller(task, ANSWERS[task])
        assert same(Teacher(labeller, tmp_path).labels(picture), ANSWERS[task])  # type: ignore[arg-type]
        assert labeller.asked == 1
    for position in range(0, len(whole), 7):
        bent = bytearray(whole)
        bent[position] ^= 0x55
        entry.write_bytes(bytes(bent))
        teacher = Teacher(Labeller(task, ANSWERS[task]), tmp_path)  # type: ignore[arg-type]
        assert same(teacher.labels(picture), ANSWERS[task])


def test_an_entry_of_another_task_is_none_of_this() -> None:
    for task, answer in ANSWERS.items():
        for other in Task:
            boxes_of_masks = (task, other) == (Task.INSTANCE_SEGMENTATION, Task.DETECTION)
            if other is not task and not boxes_of_masks:
                with pytest.raises(KeyError):
                    TARGETS[other].from_arrays(answer.arrays())
    arrays = instances(1).arrays()
    for change in (
        {"mask_bits": arrays["mask_bits"][:-1]},
        {"mask_shape": np.array([2, HEIGHT, WIDTH])},
        {"mask_shape": np.array([HEIGHT, WIDTH])},
    ):
        with pytest.raises(ValueError, match="mask"):
            Instances.from_arrays({**arrays, **change})


def test_no_object_keeps_the_size_of_its_masks() -> None:
    none = instances(1).where(torch.zeros(3, dtype=torch.bool))
    assert none.masks.shape == (0, HEIGHT, WIDTH)
    assert Instances.from_arrays(none.arrays()).masks.shape == (0, HEIGHT, WIDTH)
    assert none.cropped(Crop(0, 0, 30, 30), True).masks.shape == (0, 30, 30)
    assert none.resized((HEIGHT, WIDTH), (10, 13)).masks.shape == (0, 10, 13)
