"""Mean intersection over union of semantic maps against annotations and against the teacher's maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from taskpress.datasets.dataset import Sample
from taskpress.detections import Category, Detections
from taskpress.errors import DataError
from taskpress.evaluation.matches import Matches, PixelMatches
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


def pixel_matches(truth: Tensor, found: Tensor, classes: int) -> PixelMatches:
    """Of one picture's maps, as `confusion` takes them."""
    counts = confusion(truth, found, classes)
    sums = counts.diagonal(), counts.sum(1), counts[:, :classes].sum(0)
    return PixelMatches(*(one.numpy()[None] for one in sums))


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
        self.annotated: list[PixelMatches] = []
        self.teacher: list[PixelMatches] = []

    def add(self, sample: Sample, found: SemanticMap) -> None:
        truth = self.truth
        learned = truth.maps[len(self.teacher)]
        annotated = torch.full_like(learned, UNCOUNTED)
        if sample.annotations is not None:
            if not isinstance(sample.annotations, SemanticMap):
                raise DataError(
                    f"{sample.name}: is annotated with objects, not with a map of classes: leave them out"
                )
            annotated = truth.translation[sample.annotations.labels.long()]
        self.teacher.append(pixel_matches(learned, found.labels, truth.classes))
        self.annotated.append(pixel_matches(annotated, found.labels, truth.classes))

    def matches(self) -> dict[str, Matches]:
        known = {"miou": self.annotated, "teacher_miou": self.teacher}
        return {key: PixelMatches.of_all(found) for key, found in known.items() if found}

    def scores(self) -> dict[str, float]:
        found = self.matches()
        return {key: found[key].accuracy if key in found else math.nan for key in ("miou", "teacher_miou")}
