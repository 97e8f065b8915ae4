"""The segmentation branch: what of each class lies in each cell of the latent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from taskpress.auxiliary.branch import AuxiliaryBranch, prediction, stem, tower
from taskpress.targets import UNCOUNTED, SemanticMap


def class_shares(labels: Tensor, classes: int, height: int, width: int, stride: int) -> Tensor:
    """How many counted pixels of each class each cell holds: [classes, height, width] float32.

    labels: [H, W] uint8, 255 is not counted; nor are cells or parts of cells beyond the map.
    """
    extent = labels[: height * stride, : width * stride]
    rows = torch.arange(extent.shape[0], device=labels.device) // stride
    columns = torch.arange(extent.shape[1], device=labels.device) // stride
    cells = rows[:, None] * width + columns
    counted = extent != UNCOUNTED
    index = extent[counted].long() * (height * width) + cells[counted]
    counts = torch.bincount(index, minlength=classes * height * width)
    return counts.reshape(classes, height, width).float()


class SegmentationBranch(AuxiliaryBranch):
    """A map of classes at the latent's resolution.

        Ẑ ── 3×3, width ── separable 3×3 ── 1×1 ── class logits [B, K, h, w]

    Output: `classes` [B, K, h, w] logits. Loss: `classes`, the cross entropy against the shares of the
    classes in each cell, mean over the counted pixels of the batch. (The class at a cell's middle would say
    nothing of thin and small things, and change at random as a crop moves by a few pixels.) Where borders
    cut through cells its least value is these shares' entropy, not 0.
    """

    def __init__(self, latent_channels: int, classes: int, stride: int = 16, width: int = 64) -> None:
        super().__init__()
        self.stride = stride
        self.stem = stem(latent_channels, width)
        self.tower = tower(width)
        self.classes = prediction(width, classes)

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        return {"classes": self.classes(self.tower(self.stem(latent)))}

    def loss(self, output: dict[str, Tensor], targets: Sequence[SemanticMap]) -> dict[str, Tensor]:
        logits = output["classes"].float()
        classes, height, width = logits.shape[1:]
        maps = [target.labels.to(logits.device) for target in targets]
        pixels = torch.stack([class_shares(labels, classes, height, width, self.stride) for labels in maps])
        total = -(pixels * F.log_softmax(logits, dim=1)).sum()
        return {"classes": total / pixels.sum().clamp(min=1)}
