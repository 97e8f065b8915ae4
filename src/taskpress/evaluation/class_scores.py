"""Top-1 accuracy of classifiers against annotations, and agreement with the teacher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from taskpress.datasets.dataset import Sample
from taskpress.detections import Category, Detections
from taskpress.errors import DataError
from taskpress.evaluation.matches import ClassMatches, Matches
from taskpress.evaluation.same_categories import match_categories
from taskpress.targets import ClassScores


class ClassTruth:
    """What the teacher called each picture, and the recognizer's class of each annotated one; a `Truth`."""

    boxes: Sequence[Detections] = ()

    def __init__(self, annotated: Sequence[Category], known: Sequence[Category]) -> None:
        self.called: list[int] = []
        self.matched = match_categories(annotated, known) if annotated else []

    def learn(self, sample: Sample, label: ClassScores) -> None:
        self.called.append(label.best)

    def judge(self) -> ClassJudge:
        return ClassJudge(self)


class ClassJudge:
    """Scores `top1` and `teacher_top1`: the share of pictures whose most probable class is the annotated one,
    the teacher's; a `Judge`. Pictures of categories the recognizer does not know are not counted."""

    def __init__(self, truth: ClassTruth) -> None:
        self.truth = truth
        self.found: list[int] = []
        self.annotated: list[int | None] = []

    def add(self, sample: Sample, found: ClassScores) -> None:
        wanted = None
        if sample.annotations is not None:
            if not isinstance(sample.annotations, ClassScores):
                raise DataError(f"{sample.name}: is annotated with objects, not with a class: leave them out")
            wanted = self.truth.matched[sample.annotations.best]
        self.annotated.append(wanted)
        self.found.append(found.best)

    def matches(self) -> dict[str, Matches]:
        known: dict[str, Sequence[int | None]] = {
            "top1": self.annotated,
            "teacher_top1": self.truth.called[: len(self.found)],
        }
        return {key: self._held_against(wanted) for key, wanted in known.items()}

    def _held_against(self, wanted: Sequence[int | None]) -> ClassMatches:
        right = [one == found for one, found in zip(wanted, self.found, strict=True)]
        return ClassMatches(np.array(right, bool), np.array([one is not None for one in wanted], bool))

    def scores(self) -> dict[str, float]:
        return {key: found.accuracy for key, found in self.matches().items()}
