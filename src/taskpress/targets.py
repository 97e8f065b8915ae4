"""What recognizers find and teachers label, whatever the task: one contract for boxes, maps and classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from taskpress.detections import Crop, Detections, Instances, Size, nearest

UNCOUNTED = 255
"""In a semantic map: pixels of which nothing is known, neither learned from nor scored."""


class Task(StrEnum):
    """What a recognizer recognizes, and therefore which metric and which auxiliary branches fit it."""

    DETECTION = "detection"
    INSTANCE_SEGMENTATION = "instance-segmentation"
    SEGMENTATION = "segmentation"
    CLASSIFICATION = "classification"

    @property
    def labels_crops(self) -> bool:
        """Whether a teacher must see the very crop a codec is trained on.

        Boxes and maps are cut with their picture. What a whole picture shows says little about a crop of it,
        so classes are asked for crop by crop, in the training step.
        """
        return self is Task.CLASSIFICATION

    @property
    def has_boxes(self) -> bool:
        """Whether predictions and labels are boxes, with masks or without."""
        return issubclass(TARGETS[self], Detections)


class Target(Protocol):
    """A prediction, a teacher's label or an annotation of one picture, in that picture's pixels."""

    def to(self, device: torch.device | str) -> Self: ...

    def cropped(self, crop: Crop, flip: bool) -> Self:
        """What is left after the picture was cut to `crop`, then mirrored left to right.

        A crop may reach beyond the picture, to the right and below, where it is padded.
        """
        ...

    def resized(self, old: Size, new: Size) -> Self:
        """The same after the picture was scaled from (height, width) `old` to `new`."""
        ...

    def arrays(self) -> dict[str, NDArray]:
        """Everything as plain arrays, for a file without pickle."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> Self:
        """The inverse of `arrays`. Raises KeyError or ValueError for anything else."""
        ...


@dataclass(frozen=True)
class SemanticMap:
    """The class of every pixel.

    labels: [H, W] uint8, index into the `categories` of whoever made it, or 255: not counted. So at most 255
        classes.
    """

    labels: Tensor

    def to(self, device: torch.device | str) -> SemanticMap:
        return SemanticMap(self.labels.to(device))

    def cropped(self, crop: Crop, flip: bool) -> SemanticMap:
        """Padding is not counted."""
        x, y, width, height = crop
        cut = self.labels[y : y + height, x : x + width]
        missing = (0, width - cut.shape[1], 0, height - cut.shape[0])
        cut = F.pad(cut, missing, value=UNCOUNTED)
        return SemanticMap(cut.flip(1) if flip else cut)

    def resized(self, old: Size, new: Size) -> SemanticMap:
        """Every pixel takes the class at its centre; `old` must be the map's own size."""
        if tuple(self.labels.shape) != tuple(old):
            raise ValueError(f"a map of {tuple(self.labels.shape)} does not belong to a picture of {old}")
        return self if old == new else SemanticMap(nearest(self.labels[None], new)[0])

    def arrays(self) -> dict[str, NDArray]:
        return {"map": self.labels.cpu().numpy()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> SemanticMap:
        labels = arrays["map"]
        if labels.ndim != 2 or labels.dtype != np.uint8:
            raise ValueError("a semantic map is a uint8 array of two dimensions")
        return cls(torch.from_numpy(labels))


@dataclass(frozen=True)
class ClassScores:
    """What a whole picture shows.

    probabilities: [K] float32, not negative, sum 1; one 1 for an annotation. Index: the maker's `categories`.
    """

    probabilities: Tensor

    @classmethod
    def of_class(cls, index: int, classes: int) -> ClassScores:
        """An annotation: the picture shows class `index`."""
        return cls(F.one_hot(torch.tensor(index), classes).float())

    @property
    def best(self) -> int:
        """The class of highest probability; the first of equals."""
        return int(self.probabilities.argmax())

    def to(self, device: torch.device | str) -> ClassScores:
        return ClassScores(self.probabilities.to(device))

    def cropped(self, crop: Crop, flip: bool) -> ClassScores:
        """Unchanged, for want of knowledge; teachers label crops themselves (`Task.labels_crops`)."""
        return self

    def resized(self, old: Size, new: Size) -> ClassScores:
        return self

    def arrays(self) -> dict[str, NDArray]:
        return {"probabilities": self.probabilities.cpu().numpy()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> ClassScores:
        probabilities = arrays["probabilities"]
        if probabilities.ndim != 1 or probabilities.dtype != np.float32:
            raise ValueError("class scores are a float32 array of one dimension")
        return cls(torch.from_numpy(probabilities))


TARGETS: dict[Task, type[Detections] | type[Instances] | type[SemanticMap] | type[ClassScores]] = {
    Task.DETECTION: Detections,
    Task.INSTANCE_SEGMENTATION: Instances,
    Task.SEGMENTATION: SemanticMap,
    Task.CLASSIFICATION: ClassScores,
}
"""What recognizers of a task predict and label."""


def example(task: Task, side: int, classes: int) -> Detections | Instances | SemanticMap | ClassScores:
    """A label of a square picture of `side` pixels with one object, of the first class, in its middle."""
    if task is Task.CLASSIFICATION:
        return ClassScores.of_class(0, classes)
    quarter = side // 4
    inside = torch.zeros(1, side, side, dtype=torch.bool)
    inside[:, quarter:-quarter, quarter:-quarter] = True
    if task is Task.SEGMENTATION:
        return SemanticMap(torch.where(inside[0], 0, UNCOUNTED).to(torch.uint8))
    boxes = torch.tensor([[quarter, quarter, side - quarter, side - quarter]], dtype=torch.float32)
    objects = boxes, torch.zeros(1, dtype=torch.int64), torch.ones(1)
    return Detections(*objects) if task is Task.DETECTION else Instances(*objects, inside)
