"""COCO's average precision in a form that can be resampled: each detection's fate, then AP of any pictures.

Matching is pycocotools' (greedy by score, crowds swallow without penalty, at most 100 detections per image
and class), for boxes of all sizes; `precisions` of all pictures once is the AP of `detection_metric`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskpress.datasets.run_lengths import RunLengths, compressed
from taskpress.detections import Category, Detections
from taskpress.evaluation.detection_metric import shared_category_ids
from taskpress.evaluation.matches import Matches

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
_BITS = (1 << np.arange(len(THRESHOLDS))).astype(np.uint16)


@dataclass(frozen=True, eq=False)
class ObjectMatches(Matches):
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

    @property
    def pictures(self) -> int:
        return int(self.images)

    def accuracies(self, weights: NDArray[np.integer]) -> NDArray:
        """AP, over IoU thresholds; NaN for a mix without an object."""
        return precisions(self, weights)[0]


def match(
    ground_truth: Mapping[str, Any],
    predictions: Sequence[Detections],
    image_ids: Sequence[int],
    categories: Sequence[Category],
    masks: Sequence[Sequence[RunLengths]] | None = None,
) -> ObjectMatches:
    """Matches detections to COCO ground truth; arguments and errors as those of `coco_metrics`."""
    scored = {id_: index for index, id_ in enumerate(shared_category_ids(ground_truth, categories))}
    positions = {image_id: index for index, image_id in enumerate(image_ids)}
    objects: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for annotation in ground_truth["annotations"]:
        image, category = positions.get(annotation["image_id"]), scored.get(annotation["category_id"])
        if image is not None and category is not None:
            objects.setdefault((image, category), []).append(annotation)
    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
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
            known = sorted(objects.get((image, category), ()), key=_is_crowd)
            if masks is None:
                overlaps = _overlaps(boxes[chosen], known)
            else:
                overlaps = _mask_overlaps(
                    [masks[image][i] for i in chosen.tolist()], known, sizes[image_ids[image]]
                )
            hit, ignored = _match_one(overlaps, np.array([_is_crowd(one) for one in known], bool))
            image_parts.append(np.full(len(chosen), image, np.int32))
            category_parts.append(np.full(len(chosen), category, np.int16))
            score_parts.append(scores[chosen])
            hit_parts.append(hit)
            ignored_parts.append(ignored)
    counted = [key for key, found in objects.items() for one in found if not one.get("iscrowd", 0)]
    truth = np.array(counted, np.int64).reshape(-1, 2)
    return ObjectMatches(
        len(image_ids),
        np.concatenate([np.zeros(0, np.int32), *image_parts]),
        np.concatenate([np.zeros(0, np.int16), *category_parts]),
        np.concatenate([np.zeros(0, np.float32), *score_parts]),
        np.concatenate([np.zeros(0, np.uint16), *hit_parts]),
        np.concatenate([np.zeros(0, np.uint16), *ignored_parts]),
        truth[:, 0].astype(np.int32),
        truth[:, 1].astype(np.int16),
    )


def precisions(matches: ObjectMatches, weights: NDArray[np.integer]) -> tuple[NDArray, NDArray]:
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


def _is_crowd(annotation: Mapping[str, Any]) -> bool:
    return bool(annotation.get("iscrowd", 0))


def _match_one(overlaps: NDArray, crowd: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    """Fate bits of the detections (best first) of one category in one picture.

    overlaps: [D, G] with its objects, crowds last; crowd: [G]
    """
    hit, ignored = np.zeros(len(overlaps), np.uint16), np.zeros(len(overlaps), np.uint16)
    if not len(crowd):
        return hit, ignored
    for bit, threshold in zip(_BITS, THRESHOLDS, strict=True):
        free = np.ones(len(crowd), bool)
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


def _overlaps(boxes: NDArray, annotations: Sequence[Mapping[str, Any]]) -> NDArray:
    """[D, G] IoU of boxes (x0 y0 x1 y1) and annotations (x y w h); with crowds, over the detection's area."""
    objects = np.array([one["bbox"] for one in annotations], np.float64).reshape(-1, 4)
    crowd = np.array([_is_crowd(one) for one in annotations], bool)
    corners = np.minimum(boxes[:, None, 2:], objects[:, :2] + objects[:, 2:])
    common = (corners - np.maximum(boxes[:, None, :2], objects[:, :2])).clip(0).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)[:, None]
    union = np.where(crowd, areas, areas + objects[:, 2:].prod(1) - common)
    return common / np.maximum(union, 1e-300)


def _mask_overlaps(
    masks: Sequence[RunLengths], annotations: Sequence[Mapping[str, Any]], size: tuple[int, int]
) -> NDArray:
    """[D, G], as `_overlaps`, of masks at the size (height, width) of the annotated picture."""
    from faster_coco_eval import mask as coder

    if not (masks and annotations):
        return np.zeros((len(masks), len(annotations)))
    objects = [compressed(one["segmentation"], size) for one in annotations]
    return np.asarray(coder.iou(list(masks), objects, [int(_is_crowd(one)) for one in annotations]))


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
