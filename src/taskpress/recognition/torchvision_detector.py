"""Detectors that torchvision builds, as frozen recognizers; what their families share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from taskpress.detections import Category, Detections
from taskpress.errors import RecognizerError
from taskpress.recognition.frozen_detector import (
    MOST_AT_ONCE,
    PSEUDO_LABEL_THRESHOLD,
    FrozenDetector,
    fingerprint,
)
from taskpress.recognition.protocol import freeze


class TorchvisionDetector(FrozenDetector):
    """A frozen detector of torchvision's; a `Recognizer` but for the loss.

    model:        what torchvision built; it keeps its own scaling, normalization and thresholds
    labels:       how many labels the model tells apart, background (label 0) included
    rules:        thresholds that decide its outputs beside the weights
    model_labels: the model's label of each category; by default 1, 2, … in order.
        Detections with a label that belongs to no category are dropped.
    The others as in `FrozenDetector`.
    """

    to_label: Tensor
    to_index: Tensor

    def __init__(
        self,
        model: nn.Module,
        name: str,
        categories: Sequence[Category],
        labels: int,
        rules: tuple[object, ...],
        model_labels: Sequence[int] | None = None,
        pseudo_label_threshold: float = PSEUDO_LABEL_THRESHOLD,
        crop_scale: float | None = None,
        most_at_once: int = MOST_AT_ONCE,
    ) -> None:
        super().__init__(name, categories, pseudo_label_threshold, crop_scale, most_at_once)
        if model_labels is None:
            model_labels = range(1, len(categories) + 1)
        if len(model_labels) != len(categories) or max(model_labels) >= labels:
            raise RecognizerError(
                f"{name} has {labels - 1} classes, {len(categories)} categories were given; give one for each"
            )
        self.model: Any = model
        freeze(self)
        to_label = torch.tensor(list(model_labels), dtype=torch.int64)
        to_index = torch.full((labels,), -1, dtype=torch.int64)
        to_index[to_label] = torch.arange(len(to_label))
        self.register_buffer("to_label", to_label, persistent=False)
        self.register_buffer("to_index", to_index, persistent=False)
        transform: Any = model.transform
        rules = (*rules, transform.min_size, transform.max_size, pseudo_label_threshold)
        self.fingerprint = fingerprint(
            model.state_dict(), rules if crop_scale is None else (*rules, crop_scale)
        )

    def pads(self, side: int) -> bool:
        batch, _ = self._scaled([self.to_label.new_zeros((3, side, side), dtype=torch.float32)], None)
        return tuple(batch.image_sizes[0]) != tuple(batch.tensors.shape[-2:])

    def _detect(self, images: list[Tensor], crops: bool) -> list[Detections]:
        found = []
        for output in self._outputs_of(images, crops):
            labels = self.to_index[output["labels"]]
            found.append(Detections(output["boxes"], labels, output["scores"]).where(labels >= 0))
        return found

    def _outputs_of(self, images: list[Tensor], crops: bool) -> list[dict[str, Tensor]]:
        """What torchvision's model says of pictures of one size."""
        self._check_side(images[0])
        with _crop_scale(self.model.transform, images[0], self.crop_scale if crops else None):
            found: list[dict[str, Tensor]] = self.model(images)
        return found

    def _levels(self, images: list[Tensor]) -> list[Tensor]:
        batch, _ = self._scaled(images, None)
        return [level for name, level in self.model.backbone(batch.tensors).items() if name != "pool"]

    def _scaled(
        self, images: list[Tensor], targets: list[Detections] | None
    ) -> tuple[ImageList, list[dict[str, Tensor]]]:
        """Pictures and targets as the network takes them in training."""
        self._check_side(images[0])
        given = None if targets is None else [self._given(target) for target in targets]
        with _crop_scale(self.model.transform, images[0], self.crop_scale):
            batch, given = self.model.transform(images, given)
        return batch, given

    def _check_side(self, image: Tensor) -> None:
        short, long = sorted(image.shape[-2:])
        most = self.model.transform.max_size
        if self.crop_scale is None and short * most < long:
            raise RecognizerError(
                f"{self.name}: a picture of {image.shape[-1]}x{image.shape[-2]} pixels is too narrow: scaled "
                f"to a long side of {most} nothing is left of the other; leave it out, or cut it into pieces"
            )

    def _given(self, target: Detections) -> dict[str, Tensor]:
        """A target as torchvision takes it."""
        return {"boxes": target.boxes.float(), "labels": self.to_label[target.labels]}


@contextmanager
def _crop_scale(transform: Any, image: Tensor, factor: float | None) -> Iterator[None]:
    """Lets `transform` scale pictures of this one's size by a factor, whatever sides come of it."""
    if factor is None:
        yield
        return
    sides = transform.min_size, transform.max_size
    height, width = image.shape[-2:]
    transform.min_size, transform.max_size = (factor * min(height, width),), factor * max(height, width)
    try:
        yield
    finally:
        transform.min_size, transform.max_size = sides
