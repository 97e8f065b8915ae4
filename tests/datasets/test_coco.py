"""COCO-format data: read as the annotations say, refused where they do not match the pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from taskpress.datasets.coco import CocoImages
from taskpress.datasets.folder import ImageFolder
from taskpress.errors import DataError, ImageError


@pytest.fixture
def truth(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "pictures").mkdir()
    for name, size in (("a.png", (40, 30)), ("b.png", (20, 50))):
        Image.new("RGB", size, "green").save(tmp_path / "pictures" / name)
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 3, "file_name": "b.png", "width": 20, "height": 50},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1, 2, 10, 5], "area": 50, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 40, 30], "area": 9, "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    }


def opened(tmp_path: Path, truth: object) -> CocoImages:
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    return CocoImages(tmp_path / "pictures", tmp_path / "truth.json")


def test_boxes_are_corners_labels_are_indices_and_crowds_are_for_the_metric(
    tmp_path: Path, truth: dict[str, Any]
) -> None:
    dataset = opened(tmp_path, truth)
    first, second = dataset[0], dataset[1]
    assert (len(dataset), first.id, first.image.shape, second.id) == (2, 7, (30, 40, 3), 3)
    assert torch.equal(first.annotations.boxes, torch.tensor([[1.0, 2.0, 11.0, 7.0]]))
    assert [dataset.categories[k].name for k in first.annotations.labels] == ["dog"]
    assert len(second.annotations) == 0 and second.annotations.boxes.shape == (0, 4)
    assert dataset.coco_ground_truth() == truth


def drop(key: str, part: str) -> Callable[[dict[str, Any]], None]:
    return lambda truth: truth[part][0].pop(key)


def put(part: str, key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda truth: truth[part][0].update({key: value})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda truth: truth.pop("images"), ["images"]),
        (lambda truth: truth.update(annotations={}), ["annotations"]),
        (drop("bbox", "annotations"), ["bbox"]),
        (drop("file_name", "images"), ["file_name"]),
        (put("annotations", "bbox", [1, 2, 3]), ["bbox", "[1, 2, 3]"]),
        (put("annotations", "bbox", None), ["bbox"]),
        (put("annotations", "bbox", ["1", 2, 3, 4]), ["bbox"]),
        (put("annotations", "bbox", [1, 2, 10, -5]), ["bbox", "-5"]),
        (put("annotations", "area", -1), ["area", "-1"]),
        (put("annotations", "image_id", 99), ["99"]),
        (put("annotations", "category_id", 99), ["99"]),
        (put("images", "id", "seven"), ["seven"]),
        (put("images", "file_name", "c.png"), ["c.png", "1 of 2"]),
    ],
)
def test_annotations_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path, truth: dict[str, Any], damage: Callable[[dict[str, Any]], None], words: list[str]
) -> None:
    damage(truth)
    with pytest.raises(DataError) as caught:
        opened(tmp_path, truth)
    for word in [*words, "truth.json"]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'{"images": 3}'])
def test_a_file_that_holds_no_annotations(tmp_path: Path, truth: dict[str, Any], content: bytes) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"other\.json"):
        CocoImages(tmp_path / "pictures", path)
    with pytest.raises(DataError, match=r"no such annotation file"):
        CocoImages(tmp_path / "pictures", tmp_path / "nowhere.json")


def test_pictures_of_another_size_are_not_those_annotated(tmp_path: Path, truth: dict[str, Any]) -> None:
    truth["images"][0]["width"] = 41
    with pytest.raises(DataError, match="40x30"):
        opened(tmp_path, truth)[0]


def test_a_folder_is_walked_in_order_and_a_bad_picture_named(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    for name in ("b.png", "deeper/a.JPG", "a.webp"):
        Image.new("RGB", (4, 5)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "z.png").write_bytes(b"")
    folder = ImageFolder(tmp_path)
    assert [folder[i].name for i in range(3)] == ["a.webp", "b.png", "deeper/a.JPG"]
    assert folder[0].image.dtype == np.uint8 and folder[0].image.shape == (5, 4, 3)
    assert folder.coco_ground_truth() is None
    with pytest.raises(ImageError, match=r"z\.png"):
        folder[3]
