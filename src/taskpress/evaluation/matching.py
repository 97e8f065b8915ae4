"""COCO's average precision in a form that can be resampled: each detection's fate, then AP of any pictures.

Matching is pycocotools' (greedy by score, crowds swallow without penalty, at most 100 detections per image
and class), for boxes of all sizes; `precisions` of all pictures once is the AP of `detection_metric`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskpress.detections import Category, Detections
from taskpress.evaluation.detection_metric import shared_category_ids

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
_BITS = (1 << np.arange(len(THRESHOLDS))).astype(np.uint16)


@dataclass(frozen=True, eq=False)
class Matches:
    """What became of the detections of one coder.

    images:   how many pictures were scored
    image:    [D] int32, picture of each detection, 0 ... images - 1
    category: [D] int16, index among the scored categories
    score:    [D] float32
    hit:      [D] uint16; bit t: it found an object at the t-th IoU threshold (0.50, 0.55, ... 0.95)
    ignored:  [D] uint16; bit t: it lies on a crowd at that threshold and counts as neither right nor wrong
    truth_image, truth_category: [G] int32 and int16 of the annotated objects, crowds left out
    """

    images: int
    image: NDArray[np.int32]
    category: NDArray[np.int16]
    score: NDArray[np.float32]
    hit: NDArray[np.uint16]
    ignored: NDArray[np.uint16]
    truth_image: NDArray[np.int32]
    truth_category: NDArray[np.int16]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Matches):
            return NotImplemented
        ours, theirs = self.arrays(), other.arrays()
        return all(np.array_equal(ours[name], theirs[name]) for name in ours)

    def arrays(self) -> dict[str, NDArray]:
        """Everything as plain arrays, for a file without pickle."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @property
    def ap(self) -> float:
        """AP of all pictures, each taken once, 0 ... 100; NaN without an object."""
        return float(precisions(self, np.ones((1, self.images), np.int64))[0][0])

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> Matches:
        """The inverse of `arrays`. Raises KeyError where one is missing."""
        columns = {field.name: arrays[field.name] for field in fields(cls) if field.name != "images"}
        return cls(images=int(arrays["images"]), **columns)


def match(
    ground_truth: Mapping[str, Any],
    predictions: Sequence[Detections],
    image_ids: Sequence[int],
    categories: Sequence[Category],
) -> Matches:
    """Matches detections to COCO ground truth; arguments and errors as those of `coco_metrics`."""
    scored = {id_: index for index, id_ in enumerate(shared_category_ids(ground_truth, categories))}
    positions = {image_id: index for index, image_id in enumerate(image_ids)}
    objects: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for annotation in ground_truth["annotations"]:
        image, category = positions.get(annotation["image_id"]), scored.get(annotation["category_id"])
        if image is not None and category is not None:
            objects.setdefault((image, category), []).append(annotation)
    of_label = np.array([scored.get(category.id, -1) for category in categories])

    image_parts, category_parts, score_parts, hit_parts, ignored_parts = [], [], [], [], []
    # In order of id: that is how COCO's tools break ties between pictures.
    for image in sorted(range(len(image_ids)), key=lambda index: image_ids[index]):
        found = predictions[image]
        scores, boxes = found.scores.numpy(), found.boxes.numpy().astype(np.float64)
        own = of_label[found.labels.numpy()]
        for category in np.unique(own[own >= 0]).tolist():
            chosen = np.flatnonzero(own == category)
            chosen = chosen[np.argsort(-scores[chosen], kind="stable")][:MOST]
            hit, ignored = _match_one(boxes[chosen], objects.get((image, category), []))
            image_parts.append(np.full(len(chosen), image, np.int32))
            category_parts.append(np.full(len(chosen), category, np.int16))
            score_parts.append(scores[chosen])
            hit_parts.append(hit)
            ignored_parts.append(ignored)
    counted = [key for key, found in objects.items() for one in found if not one.get("iscrowd", 0)]
    truth = np.array(counted, np.int64).reshape(-1, 2)
    return Matches(
        len(image_ids),
        np.concatenate([np.zeros(0, np.int32), *image_parts]),
        np.concatenate([np.zeros(0, np.int16), *category_parts]),
        np.concatenate([np.zeros(0, np.float32), *score_parts]),
        np.concatenate([np.zeros(0, np.uint16), *hit_parts]),
        np.concatenate([np.zeros(0, np.uint16), *ignored_parts]),
        truth[:, 0].astype(np.int32),
        truth[:, 1].astype(np.int16),
    )


def precisions(matches: Matches, weights: NDArray[np.integer]) -> tuple[NDArray, NDArray]:
    """(AP, AP50), each [R] in 0 ... 100, of R mixes of the pictures.

    weights: [R, images], how often each picture is taken; NaN comes back for a mix without an object.
    """
    sums = np.zeros((2, len(weights)))
    counted = np.zeros(len(weights))
    for category in np.unique(matches.truth_category):
        objects = weights[:, matches.truth_image[matches.truth_category == category]].sum(1)
        chosen = np.flatnonzero(matches.category == category)
        chosen = chosen[np.argsort(-matches.score[chosen], kind="stable")]
        taken = weights[:, matches.image[chosen]]
        per_threshold = np.stack(
            [
                _precision(taken, matches.hit[chosen] & bit > 0, matches.ignored[chosen] & bit > 0, objects)
                for bit in _BITS
            ]
        )
        present = objects > 0
        counted += present
        sums[0] += np.where(present, per_threshold.mean(0), 0)
        sums[1] += np.where(present, per_threshold[0], 0)
    with np.errstate(invalid="ignore"):
        ap, ap50 = 100 * sums / counted
    return ap, ap50


def _match_one(boxes: NDArray, objects: Sequence[Mapping[str, Any]]) -> tuple[NDArray, NDArray]:
    """Fate bits of the detections (best first) of one category in one picture."""
    hit, ignored = np.zeros(len(boxes), np.uint16), np.zeros(len(boxes), np.uint16)
    if not objects:
        return hit, ignored
    objects = sorted(objects, key=lambda one: int(one.get("iscrowd", 0)))
    crowd = np.array([int(one.get("iscrowd", 0)) for one in objects], bool)
    overlaps = _overlaps(boxes, np.array([one["bbox"] for one in objects], np.float64), crowd)
    for bit, threshold in zip(_BITS, THRESHOLDS, strict=True):
        free = np.ones(len(objects), bool)
        for detection, row in enumerate(overlaps):
            # Objects go before crowds; of equal overlaps the last wins: so does pycocotools.
            for kind in (~crowd, crowd):
                candidates = np.flatnonzero(kind & (free | crowd) & (row >= min(threshold, 1 - 1e-10)))
                if len(candidates):
                    best = candidates[len(candidates) - 1 - row[candidates][::-1].argmax()]
                    free[best] = False
                    (ignored if crowd[best] else hit)[detection] |= bit
                    break
    return hit, ignored


def _overlaps(boxes: NDArray, objects: NDArray, crowd: NDArray[np.bool_]) -> NDArray:
    """[D, G] IoU of boxes (x0 y0 x1 y1) and objects (x y w h); with crowds, over the detection's area."""
    corners = np.minimum(boxes[:, None, 2:], objects[:, :2] + objects[:, 2:])
    common = (corners - np.maximum(boxes[:, None, :2], objects[:, :2])).clip(0).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)[:, None]
    union = np.where(crowd, areas, areas + objects[:, 2:].prod(1) - common)
    return common / np.maximum(union, 1e-300)


def _precision(taken: NDArray, hit: NDArray, ignored: NDArray, objects: NDArray) -> NDArray:
    """[R]: mean precision over 101 recalls; taken [R, D] in order of score, objects [R]."""
    if not len(hit):
        return np.zeros(len(taken))
    right = np.cumsum(taken * hit, 1, dtype=np.float64)
    judged = np.cumsum(taken * ~ignored, 1, dtype=np.float64)
    best = np.maximum.accumulate((right / np.maximum(judged, 1))[:, ::-1], 1)[:, ::-1]
    # One search for all rows: whole numbers, each row lifted above the one before.
    rows = np.arange(len(taken))[:, None]
    lift = float(right[:, -1].max() + objects.max() + 1) * rows
    found = np.searchsorted((right + lift).ravel(), (_needed(objects) + lift).ravel())
    within = found.reshape(len(taken), -1) - rows * right.shape[1]
    reached = within < right.shape[1]
    return np.where(reached, best[rows, np.minimum(within, right.shape[1] - 1)], 0).mean(1)


def _needed(objects: NDArray) -> NDArray:
    """[R, 101]: the fewest finds among so many objects whose recall, as a float64, reaches each level."""
    objects = np.maximum(objects, 1)[:, None]
    needed = np.ceil(RECALLS * objects)
    needed -= (needed - 1) / objects >= RECALLS
    return needed + (needed / objects < RECALLS)
