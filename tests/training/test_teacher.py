from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from taskpress.detections import Category, Crop, Detections
from taskpress.recognition.protocol import Task
from taskpress.training.teacher import Teacher, default_cache_dir


class Counting(nn.Module):
    """Says of a picture a box that depends on its pixels, and counts how often it is asked."""

    name = "counting"
    task = Task.DETECTION
    categories = (Category(1, "thing"),)

    def __init__(self, fingerprint: str = "f" * 64, objects: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.fingerprint, self.objects, self.asked = fingerprint, objects, 0

    def pseudo_labels(self, images: list[Tensor]) -> list[Detections]:
        self.asked += 1
        (image,) = images
        assert image.dtype == torch.float32
        assert image.shape[0] == 3
        assert 0 <= image.min() <= image.max() <= 1
        box = torch.tensor([[1.0, 2.0, 5.0 + float(image.mean()), 9.0]])
        n = self.objects
        return [
            Detections(box.expand(n, 4).clone(), torch.zeros(n, dtype=torch.int64), torch.full((n,), 0.75))
        ]


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)


def equal(a: Detections, b: Detections) -> bool:
    return (
        torch.equal(a.boxes, b.boxes) and torch.equal(a.labels, b.labels) and torch.equal(a.scores, b.scores)
    )


@pytest.mark.parametrize("objects", [0, 1, 3])
def test_a_picture_is_looked_at_once(tmp_path: Path, objects: int) -> None:
    first = Counting(objects=objects)
    teacher = Teacher(first, tmp_path)  # type: ignore[arg-type]
    labels = teacher.labels(picture())
    assert equal(labels, teacher.labels(picture()))
    assert (first.asked, teacher.hits, teacher.misses) == (1, 1, 1)
    second = Counting(objects=objects)
    later = Teacher(second, tmp_path)  # type: ignore[arg-type]
    assert equal(labels, later.labels(picture()))
    assert (second.asked, later.hits, later.misses) == (0, 1, 0)
    assert labels.labels.dtype == torch.int64
    assert labels.boxes.dtype == labels.scores.dtype == torch.float32


def test_labels_that_fill_memory_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Counting()
    teacher = Teacher(asked, tmp_path)  # type: ignore[arg-type]
    teacher.labels(picture())
    monkeypatch.setattr("taskpress.training.teacher.KEPT", 2 * teacher._bytes)
    pictures = [picture() + np.uint8(shift) for shift in range(4)]
    for _ in range(2):
        for one in pictures:
            teacher.labels(one)
    assert asked.asked == 4 and len(teacher._known) == 2


def test_other_pixels_shapes_and_recognizers_get_their_own(tmp_path: Path) -> None:
    teacher = Teacher(Counting(), tmp_path)  # type: ignore[arg-type]
    changed = picture()
    changed[0, 0, 0] ^= 1
    for image in (picture(), changed, picture().reshape(10, 12, 3), picture()[::-1]):
        teacher.labels(image)
    assert (teacher.hits, teacher.misses) == (0, 4)
    other = Teacher(Counting("e" * 64), tmp_path)  # type: ignore[arg-type]
    other.labels(picture())
    assert other.misses == 1


def entry_of(cache: Path) -> Path:
    (entry,) = cache.rglob("*.npz")
    return entry


@pytest.mark.parametrize(
    "damage", ["empty", "cut", "noise", "pickle", "missing field", "wrong shape", "wrong type"]
)
def test_a_damaged_entry_is_computed_again(tmp_path: Path, damage: str) -> None:
    labels = Teacher(Counting(), tmp_path).labels(picture())  # type: ignore[arg-type]
    entry = entry_of(tmp_path)
    good = {"boxes": labels.boxes.numpy(), "labels": labels.labels.numpy(), "scores": labels.scores.numpy()}
    match damage:
        case "empty":
            entry.write_bytes(b"")
        case "cut":
            entry.write_bytes(entry.read_bytes()[:100])
        case "noise":
            entry.write_bytes(bytes(range(256)))
        case "pickle":
            np.savez(entry, **(good | {"boxes": np.array([{"an": "object"}], dtype=object)}))
        case "missing field":
            np.savez(entry, boxes=good["boxes"], labels=good["labels"])
        case "wrong shape":
            np.savez(entry, **(good | {"boxes": np.zeros((2, 4), np.float32)}))
        case "wrong type":
            np.savez(entry, **(good | {"labels": np.zeros(1, np.float32)}))
    teacher = Teacher(Counting(), tmp_path)  # type: ignore[arg-type]
    assert equal(teacher.labels(picture()), labels)
    assert (teacher.hits, teacher.misses) == (0, 1)
    assert Teacher(Counting(), tmp_path).labels(picture()).boxes.equal(labels.boxes)  # type: ignore[arg-type]


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    Teacher(Counting(), tmp_path).labels(picture())  # type: ignore[arg-type]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [entry_of(tmp_path)]


def test_cache_directory_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKPRESS_CACHE", str(tmp_path / "there"))
    assert default_cache_dir() == tmp_path / "there"
    Teacher(Counting()).labels(picture())  # type: ignore[arg-type]
    assert entry_of(tmp_path / "there")
    monkeypatch.delenv("TASKPRESS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "taskpress"


SIDE = 40


@st.composite
def integer_boxes(draw: st.DrawFn) -> Detections:
    rows = []
    for _ in range(draw(st.integers(0, 4))):
        x0, y0 = draw(st.integers(0, SIDE - 1)), draw(st.integers(0, SIDE - 1))
        rows.append([x0, y0, draw(st.integers(x0 + 1, SIDE)), draw(st.integers(y0 + 1, SIDE))])
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return Detections(boxes, torch.arange(len(rows)), torch.ones(len(rows)))


@given(
    integer_boxes(),
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(8, 40),
    st.integers(8, 40),
    st.booleans(),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_labels_follow_the_pixels(
    labels: Detections, x: int, y: int, width: int, height: int, flip: bool, min_visible: float
) -> None:
    """Oracle: paint each box, cut and mirror the painting, and look where the paint is."""
    moved = labels.cropped(Crop(x, y, width, height), flip, min_visible)
    got = dict(zip(moved.labels.tolist(), moved.boxes.tolist(), strict=True))
    expected = {}
    for label, (x0, y0, x1, y1) in enumerate(labels.boxes.long().tolist()):
        canvas = np.zeros((80, 80), dtype=bool)
        canvas[y0:y1, x0:x1] = True
        cut = canvas[y : y + height, x : x + width]
        cut = cut[:, ::-1] if flip else cut
        rows, columns = cut.any(axis=1).nonzero()[0], cut.any(axis=0).nonzero()[0]
        if not len(rows) or cut.sum() < min_visible * canvas.sum():
            continue
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        sides = (box[2] - box[0], box[3] - box[1])
        if all(side >= min(4, old) for side, old in zip(sides, (x1 - x0, y1 - y0), strict=True)):
            expected[label] = [float(v) for v in box]
    assert got == expected


@given(integer_boxes())
def test_the_whole_picture_flipped_twice_is_itself(labels: Detections) -> None:
    whole = Crop(0, 0, SIDE, SIDE)
    assert equal(labels.cropped(whole, True).cropped(whole, True), labels)
