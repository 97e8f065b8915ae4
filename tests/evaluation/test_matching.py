"""Matches give COCO's AP for all pictures once, and for mixes what COCO says of the very mix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from taskpress.datasets.run_lengths import run_lengths
from taskpress.detections import Category, Detections
from taskpress.evaluation.detection_metric import coco_metrics
from taskpress.evaluation.matching import match, precisions

CATEGORIES = (Category(1, "cat"), Category(3, "dog"), Category(7, "cow"))


def made_up(
    seed: int, images: int = 12, crowds: bool = True
) -> tuple[dict[str, Any], list[Detections], list[int]]:
    """Objects, and detections near them, beside them and twice, with scores that tie now and then."""
    rng = np.random.default_rng(seed)
    ids = [int(i) for i in rng.permutation(100)[:images]]
    annotations: list[dict[str, Any]] = []
    predictions = []
    for image_id in ids:
        boxes, labels = [], []
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = rng.uniform(0, 60), rng.uniform(0, 60), rng.uniform(5, 40), rng.uniform(5, 40)
            label = int(rng.integers(0, 3))
            crowd = int(crowds and rng.random() < 0.15)
            annotations.append(
                {
                    "image_id": image_id,
                    "category_id": CATEGORIES[label].id,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": crowd,
                }
            )
            for _ in range(rng.integers(0, 4)):
                jitter = rng.normal(0, 3, 4)
                boxes.append(np.array([x, y, x + w, y + h]) + jitter)
                labels.append(label if rng.random() < 0.8 else int(rng.integers(0, 3)))
        boxes = [[b[0], b[1], max(b[2], b[0] + 1), max(b[3], b[1] + 1)] for b in boxes]
        scores = np.sort(rng.integers(1, 40, len(boxes)) / 40)[::-1].copy()
        predictions.append(
            Detections(
                torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32),
                torch.tensor(labels, dtype=torch.int64),
                torch.tensor(scores, dtype=torch.float32),
            )
        )
    truth = {
        "images": [{"id": i, "height": 100, "width": 100} for i in ids],
        "annotations": annotations,
        "categories": [{"id": c.id, "name": c.name} for c in CATEGORIES],
    }
    return truth, predictions, ids


@pytest.mark.parametrize("seed", range(12))
def test_all_pictures_once_is_cocos_ap(seed: int) -> None:
    truth, predictions, ids = made_up(seed)
    wanted = coco_metrics(truth, predictions, ids, CATEGORIES)
    ap, ap50 = precisions(match(truth, predictions, ids, CATEGORIES), np.ones((1, len(ids)), int))
    assert ap[0] == pytest.approx(wanted["ap"], abs=1e-9)
    assert ap50[0] == pytest.approx(wanted["ap50"], abs=1e-9)


def test_a_mix_without_repeats_is_cocos_ap_of_those_pictures() -> None:
    truth, predictions, ids = made_up(3, images=20)
    matches = match(truth, predictions, ids, CATEGORIES)
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 2, (8, len(ids)))
    ap, _ = precisions(matches, weights)
    for row, value in zip(weights, ap, strict=True):
        kept = np.flatnonzero(row)
        some = coco_metrics(truth, [predictions[i] for i in kept], [ids[i] for i in kept], CATEGORIES)
        assert value == pytest.approx(some["ap"], abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_a_picture_taken_twice_counts_like_a_copy_of_it(seed: int) -> None:
    truth, predictions, ids = made_up(seed, images=10, crowds=False)
    # No two scores are equal, so that a copy's detections can only stand beside the original's.
    ranks = iter(torch.linspace(0.99, 0.01, sum(len(p) for p in predictions)))
    predictions = [
        Detections(p.boxes, p.labels, torch.tensor([float(next(ranks)) for _ in range(len(p))]))
        for p in predictions
    ]
    twice = {
        **truth,
        "images": truth["images"] + [{**image, "id": image["id"] + 1000} for image in truth["images"]],
        "annotations": truth["annotations"]
        + [{**a, "image_id": a["image_id"] + 1000} for a in truth["annotations"]],
    }
    wanted = coco_metrics(twice, predictions * 2, ids + [i + 1000 for i in ids], CATEGORIES)
    ap, _ = precisions(match(truth, predictions, ids, CATEGORIES), np.full((1, len(ids)), 2))
    assert ap[0] == pytest.approx(wanted["ap"], abs=1e-9)


def test_a_mix_without_objects_has_no_ap() -> None:
    truth, predictions, ids = made_up(1)
    ap, ap50 = precisions(match(truth, predictions, ids, CATEGORIES), np.zeros((1, len(ids)), int))
    assert np.isnan(ap[0]) and np.isnan(ap50[0])


def masked(
    truth: dict[str, Any], predictions: list[Detections], ids: list[int]
) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
    """Diamonds in the boxes of `made_up`: polygons, crowds as run lengths, uncompressed every other time."""
    masks = []
    for found in predictions:
        planes = np.array([diamond(box) for box in found.boxes.tolist()]).reshape(-1, 100, 100)
        masks.append(run_lengths(planes))
    annotations = []
    for number, one in enumerate(truth["annotations"]):
        x, y, w, h = one["bbox"]
        polygon = [x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h / 2]
        segmentation: Any = [polygon]
        if one["iscrowd"]:
            plane = diamond([x, y, x + w, y + h])
            (segmentation,) = run_lengths(plane[None])
            if number % 2:
                edges = np.flatnonzero(np.diff(plane.T.ravel(), prepend=False, append=False))
                runs = np.diff([0, *edges, plane.size]).tolist()
                segmentation = {"size": [100, 100], "counts": runs}
        annotations.append({**one, "segmentation": segmentation})
    return {**truth, "annotations": annotations}, masks


def diamond(box: list[float]) -> np.ndarray:
    x0, y0, x1, y1 = box
    ys, xs = np.mgrid[:100, :100] + 0.5
    across, along = abs(xs - (x0 + x1) / 2) / (x1 - x0), abs(ys - (y0 + y1) / 2) / (y1 - y0)
    return across + along <= 0.5


@pytest.mark.parametrize("seed", range(6))
def test_masks_are_matched_as_coco_matches_them(seed: int) -> None:
    truth, predictions, ids = made_up(seed)
    truth, masks = masked(truth, predictions, ids)
    matches = match(truth, predictions, ids, CATEGORIES, masks)
    wanted = coco_metrics(truth, predictions, ids, CATEGORIES, masks)
    assert matches.accuracy == pytest.approx(wanted["ap"], abs=1e-9)
    assert matches.accuracy != pytest.approx(match(truth, predictions, ids, CATEGORIES).accuracy)
    kept = list(range(0, len(ids), 2))
    some = [[one[i] for i in kept] for one in (predictions, ids, masks)]
    row = np.zeros((1, len(ids)), int)
    row[0, kept] = 1
    of_some = coco_metrics(truth, some[0], some[1], CATEGORIES, some[2])
    assert matches.accuracies(row)[0] == pytest.approx(of_some["ap"], abs=1e-9)
