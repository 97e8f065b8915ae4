"""COCO's average precision of boxes and masks against annotations and against the teacher's labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from taskpress.datasets.dataset import Sample
from taskpress.datasets.run_lengths import RunLengths, check_masks, run_lengths
from taskpress.detections import Category, Detections, Instances
from taskpress.errors import DataError
from taskpress.evaluation.detection_metric import (
    METRICS,
    coco_metrics,
    shared_category_ids,
    teacher_ground_truth,
)
from taskpress.evaluation.matches import Matches
from taskpress.evaluation.matching import match

KEPT = ("ap", "ap50")
NOTHING = dict.fromkeys(METRICS, math.nan)


class ObjectTruth:
    """Boxes that are annotated and boxes that the teacher saw; a `Truth`.

    annotated: COCO's ground truth, None if unlabelled
    """

    def __init__(self, annotated: Mapping[str, Any] | None, categories: Sequence[Category]) -> None:
        self.annotated, self.categories = annotated, tuple(categories)
        if annotated is not None:
            shared_category_ids(annotated, self.categories)
        self.ids: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.boxes: list[Detections] = []

    def learn(self, sample: Sample, label: Detections) -> None:
        self.ids.append(sample.id)
        self.sizes.append((sample.image.shape[0], sample.image.shape[1]))
        self.boxes.append(label.where(_has_extent(label)))

    def judge(self) -> ObjectJudge:
        return ObjectJudge(self)

    def teacher(self) -> dict[str, Any]:
        """The teacher's labels as COCO's ground truth."""
        return teacher_ground_truth(self.boxes, self.ids, self.categories, self.sizes)


def _has_extent(label: Detections) -> Tensor:
    """[n] bool. What the teacher labels as nothing is no object: nothing could be found in its place."""
    return (label.boxes[:, 2:] > label.boxes[:, :2]).all(1)


class ObjectJudge:
    """Scores `ap`, `ap50`, `teacher_ap`, `teacher_ap50`; a `Judge`."""

    def __init__(self, truth: ObjectTruth) -> None:
        self.truth = truth
        self.found: list[Detections] = []

    def add(self, sample: Sample, found: Detections) -> None:
        """DataError for scores and boxes that no metric can order or hold against others."""
        numbers = torch.cat((found.scores, found.boxes.flatten()))
        if not numbers.isfinite().all() or (found.boxes[:, 2:] < found.boxes[:, :2]).any():
            raise DataError(
                f"{sample.name}: the recognizer found a box with a score or side that is not finite, or "
                "whose right or lower side comes first; it has to give x0 <= x1 and y0 <= y1"
            )
        self.found.append(found)

    def scores(self) -> dict[str, float]:
        truth = self.truth
        annotated = (
            coco_metrics(truth.annotated, self.found, truth.ids, truth.categories)
            if truth.annotated
            else NOTHING
        )
        own = coco_metrics(truth.teacher(), self.found, truth.ids, truth.categories)
        return {key: annotated[key] for key in KEPT} | {f"teacher_{key}": own[key] for key in KEPT}

    def matches(self) -> dict[str, Matches]:
        truth = self.truth
        known = {"ap": truth.annotated, "teacher_ap": truth.teacher()}
        return {
            key: match(objects, self.found, truth.ids, truth.categories)
            for key, objects in known.items()
            if objects
        }


class InstanceTruth(ObjectTruth):
    """Objects with masks. Kept are boxes and run lengths: masks of a thousand pictures fill no memory."""

    def __init__(self, annotated: Mapping[str, Any] | None, categories: Sequence[Category]) -> None:
        super().__init__(annotated, categories)
        self.masks: list[list[RunLengths]] = []
        if annotated is not None:
            check_masks(annotated)

    def learn(self, sample: Sample, label: Detections) -> None:
        assert isinstance(label, Instances)
        label = label.where(_has_extent(label) & label.masks.flatten(1).any(1))
        super().learn(sample, Detections(label.boxes, label.labels, label.scores))
        self.masks.append(run_lengths(label.masks.numpy()))

    def judge(self) -> InstanceJudge:
        return InstanceJudge(self)

    def teacher(self) -> dict[str, Any]:
        from faster_coco_eval import mask as coder

        labels = super().teacher()
        for annotation, mask in zip(labels["annotations"], chain.from_iterable(self.masks), strict=True):
            annotation |= {"segmentation": mask, "area": float(coder.area(mask))}
        return labels


class InstanceJudge(ObjectJudge):
    """Scores `mask_ap`, `mask_ap50` and `teacher_…` of both beside those of the boxes.

    Where no annotation has a mask (box annotations alone), `mask_ap` is NaN.
    """

    def __init__(self, truth: InstanceTruth) -> None:
        super().__init__(truth)
        self.masks: list[list[RunLengths]] = []

    def add(self, sample: Sample, found: Detections) -> None:
        assert isinstance(found, Instances)
        super().add(sample, Detections(found.boxes, found.labels, found.scores))
        self.masks.append(run_lengths(found.masks.numpy()))

    def scores(self) -> dict[str, float]:
        truth, scores = self.truth, super().scores()
        for prefix, objects in self._masked().items():
            of_masks = (
                coco_metrics(objects, self.found, truth.ids, truth.categories, self.masks)
                if objects
                else NOTHING
            )
            scores |= {f"{prefix}{key}": of_masks[key] for key in KEPT}
        return scores

    def matches(self) -> dict[str, Matches]:
        truth = self.truth
        return super().matches() | {
            f"{prefix}ap": match(objects, self.found, truth.ids, truth.categories, self.masks)
            for prefix, objects in self._masked().items()
            if objects
        }

    def _masked(self) -> dict[str, Mapping[str, Any] | None]:
        """What masks are scored against, by the beginning of the score's key."""
        annotated = self.truth.annotated
        if annotated and not any(one.get("segmentation") for one in annotated["annotations"]):
            annotated = None
        return {"mask_": annotated, "teacher_mask_": self.truth.teacher()}
