"""One way to score any task: what is true of the pictures, and judges that hold predictions against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from taskpress.datasets.dataset import Dataset, Sample
from taskpress.detections import Detections
from taskpress.evaluation.matches import Matches
from taskpress.recognition.protocol import Recognizer
from taskpress.targets import Task


class Judge(Protocol):
    """Collects what a recognizer saw in the pictures of one coder."""

    def add(self, sample: Sample, found: Any) -> None:
        """A prediction, in pixels of the sample; pictures come in the order they were learned in."""
        ...

    def scores(self) -> dict[str, float]:
        """Scores by the keys of `evaluation.metrics`, 0 ... 100; NaN for what nothing is known about."""
        ...

    def matches(self) -> dict[str, Matches]:
        """What bootstrap intervals are made of, by the keys of scores."""
        ...


class Truth(Protocol):
    """Annotations of a data set, and a teacher's labels: picklable, for coders are measured in processes."""

    @property
    def boxes(self) -> Sequence[Detections]:
        """The teacher's boxes, one entry a picture; empty for tasks without boxes."""
        ...

    def learn(self, sample: Sample, label: Any) -> None:
        """The teacher's label of the next picture, in pixels of the sample."""
        ...

    def judge(self) -> Judge:
        """A judge for one coder; it may be made before the labels are learned."""
        ...


def open_truth(dataset: Dataset, recognizer: Recognizer) -> Truth:
    """What a recognizer is scored against on a data set, without any labels yet.

    Raises DataError where the annotations have none of the recognizer's categories.
    """
    categories = recognizer.categories
    match recognizer.task:
        case Task.DETECTION:
            from taskpress.evaluation.object_scores import ObjectTruth

            return ObjectTruth(dataset.coco_ground_truth(), categories)
        case Task.INSTANCE_SEGMENTATION:
            from taskpress.evaluation.object_scores import InstanceTruth

            return InstanceTruth(dataset.coco_ground_truth(), categories)
        case Task.SEGMENTATION:
            from taskpress.evaluation.semantic_scores import SemanticTruth

            return SemanticTruth(dataset.categories, categories)
        case Task.CLASSIFICATION:
            from taskpress.evaluation.class_scores import ClassTruth

            return ClassTruth(dataset.categories, categories)
