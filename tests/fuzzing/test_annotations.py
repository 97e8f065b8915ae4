"""Annotations, labels and lists of categories, damaged: an error of ours, or a data set that is scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taskpress.datasets.classified import ClassifiedImages, read_labels
from taskpress.datasets.coco import CocoImages
from taskpress.datasets.label_maps import LabelMaps
from taskpress.errors import TaskPressError
from taskpress.evaluation.categories import class_names, map_categories
from taskpress.evaluation.detection_metric import coco_metrics

from .mutations import SLOW_COUNT, attack


def attack_annotations(folder: Path, count: int, seed: int) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 48), "gray").save(folder / name)
    images = [{"id": k, "file_name": f"{'ab'[k]}.png", "width": 64, "height": 48} for k in range(2)]
    annotations = [
        {"id": k, "image_id": k % 2, "bbox": [4.0 * k, 3, 20, 10.5], "category_id": k % 2, "area": 210.0}
        for k in range(4)
    ]
    annotations[3]["iscrowd"] = 1
    categories = [{"id": 0, "name": "ball"}, {"id": 1, "name": "box"}]
    truth = {"images": images, "annotations": annotations, "categories": categories}

    def use(path: Path) -> None:
        dataset = CocoImages(folder, path)
        samples = [dataset[index] for index in range(len(dataset))]
        found = [sample.annotations for sample in samples]
        ids = [sample.id for sample in samples]
        coco_metrics(dataset.coco_ground_truth(), found, ids, dataset.categories)

    attack(folder / "damaged.json", [json.dumps(truth, indent=1)], use, count, seed, TaskPressError)


def test_five_hundred_annotations(tmp_path: Path) -> None:
    attack_annotations(tmp_path, 500, seed=5)


@pytest.mark.slow
def test_twenty_thousand_annotations(tmp_path: Path) -> None:
    attack_annotations(tmp_path, SLOW_COUNT, seed=6)


def attack_labels(folder: Path, count: int, seed: int) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    maps = folder / "maps"
    maps.mkdir()
    Image.fromarray(np.full((8, 8), 1, np.uint8)).save(maps / "a.png")
    labels = json.dumps({"a.png": "dog", "b.png": "cat"}, indent=1)
    categories = json.dumps([{"id": 1, "name": "dog"}, {"id": 300, "name": "cat"}], indent=1)

    def use_labels(path: Path) -> None:
        dataset = ClassifiedImages(folder, read_labels(path), class_names(str(path)))
        assert [dataset[index].image.shape for index in range(len(dataset))]

    def use_categories(path: Path) -> None:
        assert LabelMaps(folder, maps, map_categories(str(path)))[0].image.shape == (8, 8, 3)

    both = [categories, f'{{"categories": {categories}}}']
    attack(folder / "labels.json", [labels], use_labels, count, seed, TaskPressError)
    attack(folder / "categories.json", both, use_categories, count, seed, TaskPressError)


def test_five_hundred_labels(tmp_path: Path) -> None:
    attack_labels(tmp_path, 250, seed=7)


@pytest.mark.slow
def test_twenty_thousand_labels(tmp_path: Path) -> None:
    attack_labels(tmp_path, SLOW_COUNT // 2, seed=8)
