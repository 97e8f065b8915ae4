"""Objects in pictures: what data sets annotate, recognizers find and auxiliary branches learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Category(NamedTuple):
    """A class a recognizer knows: its id in annotation files (COCO skips numbers) and its name."""

    id: int
    name: str


@dataclass(frozen=True)
class Detections:
    """Objects in one image: a prediction, a pseudo-label or an annotation.

    boxes:  [n, 4] float32, x0 y0 x1 y1 in pixels of the image they belong to
    labels: [n] int64, index into the recognizer's `categories`
    scores: [n] float32 in [0, 1]; 1 for annotations
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor

    @classmethod
    def empty(cls, device: torch.device | str = "cpu") -> Detections:
        return cls(
            torch.zeros(0, 4, device=device),
            torch.zeros(0, dtype=torch.int64, device=device),
            torch.zeros(0, device=device),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Detections:
        return Detections(self.boxes.to(device), self.labels.to(device), self.scores.to(device))

    def where(self, keep: Tensor) -> Detections:
        """The objects that a boolean mask [n] or an index tensor selects."""
        return Detections(self.boxes[keep], self.labels[keep], self.scores[keep])

    def scaled(self, x: float, y: float) -> Detections:
        """The same objects after the image was scaled by these factors."""
        return Detections(self.boxes * self.boxes.new_tensor([x, y, x, y]), self.labels, self.scores)
