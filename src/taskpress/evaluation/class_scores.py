"""Top-1 accuracy of classifiers against annotations, and agreement with the teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence

from taskpress.datasets.dataset import Sample
from taskpress.detections import Category, Detections
from taskpress.errors import DataError
from taskpress.evaluation.matching import Matches
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
        self.right: list[bool] = []
        self.agreed: list[bool] = []

    def add(self, sample: Sample, found: ClassScores) -> None:
        self.agreed.append(found.best == self.truth.called[len(self.agreed)])
        if sample.annotations is not None:
            if not isinstance(sample.annotations, ClassScores):
                raise DataError(f"{sample.name}: is annotated with objects, not with a class: leave them out")
            wanted = self.truth.matched[sample.annotations.best]
            if wanted is not None:
                self.right.append(found.best == wanted)

    def matches(self) -> dict[str, Matches]:
        return {}

    def scores(self) -> dict[str, float]:
        return {"top1": _percent(self.right), "teacher_top1": _percent(self.agreed)}


def _percent(outcomes: list[bool]) -> float:
    return 100 * sum(outcomes) / len(outcomes) if outcomes else math.nan
