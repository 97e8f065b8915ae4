"""Mean intersection over union of semantic maps against annotations and against the teacher's maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from taskpress.datasets.dataset import Sample
from taskpress.detections import Category, Detections
from taskpress.errors import DataError
from taskpress.evaluation.matching import Matches
from taskpress.evaluation.same_categories import match_categories
from taskpress.targets import UNCOUNTED, SemanticMap


def confusion(truth: Tensor, found: Tensor, classes: int) -> Tensor:
    """How many pixels of each true class were given each class: [classes, classes + 1] int64.

    truth, found: [H, W] uint8 in 0 … classes - 1, or 255: pixels of that truth are left out; where only
    `found` is 255, nothing was said, and the last column counts it.
    """
    counted = truth != UNCOUNTED
    said = found[counted].long()
    said = torch.where(said < classes, said, classes)
    cells = truth[counted].long() * (classes + 1) + said
    return torch.bincount(cells, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def mean_iou(counts: Tensor) -> float:
    """mIoU of a `confusion`, 0 … 100: over all counted pixels of all pictures together,

        IoU_k = pixels that are k and were called k / pixels that are k or were called k,

    averaged over the classes that the truth has. A class it does not have counts through the pixels that it
    takes from others. NaN where no pixel counts.
    """
    right = counts.diagonal().double()
    real = counts.sum(dim=1).double()
    called = counts[:, : len(counts)].sum(dim=0).double()
    there = real > 0
    if not there.any():
        return math.nan
    return float(100 * (right / (real + called - right))[there].mean())


class SemanticTruth:
    """The teacher's maps, and where annotated categories are among the recognizer's; a `Truth`.

    annotated: the data set's categories, none where it is unlabelled
    known:     the recognizer's
    """

    boxes: Sequence[Detections] = ()

    def __init__(self, annotated: Sequence[Category], known: Sequence[Category]) -> None:
        self.classes = len(known)
        self.maps: list[Tensor] = []
        self.translation = torch.full((256,), UNCOUNTED, dtype=torch.uint8)
        if annotated:
            matched = match_categories(annotated, known)
            self.translation[: len(matched)] = torch.tensor(
                [UNCOUNTED if k is None else k for k in matched], dtype=torch.uint8
            )

    def learn(self, sample: Sample, label: SemanticMap) -> None:
        self.maps.append(label.labels)

    def judge(self) -> SemanticJudge:
        return SemanticJudge(self)


class SemanticJudge:
    """Scores `miou` and `teacher_miou`; a `Judge`."""

    def __init__(self, truth: SemanticTruth) -> None:
        self.truth = truth
        self.pictures = 0
        self.annotated, self.teacher = torch.zeros(2, truth.classes, truth.classes + 1, dtype=torch.int64)

    def add(self, sample: Sample, found: SemanticMap) -> None:
        truth = self.truth
        self.teacher += confusion(truth.maps[self.pictures], found.labels, truth.classes)
        self.pictures += 1
        if sample.annotations is not None:
            if not isinstance(sample.annotations, SemanticMap):
                raise DataError(
                    f"{sample.name}: is annotated with objects, not with a map of classes: leave them out"
                )
            annotated = truth.translation[sample.annotations.labels.long()]
            self.annotated += confusion(annotated, found.labels, truth.classes)

    def matches(self) -> dict[str, Matches]:
        return {}

    def scores(self) -> dict[str, float]:
        return {"miou": mean_iou(self.annotated), "teacher_miou": mean_iou(self.teacher)}
