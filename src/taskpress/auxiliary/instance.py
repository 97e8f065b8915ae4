"""The instance branch: the detection branch, and the pixels of objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from taskpress.auxiliary.branch import PRIOR, prediction, tower
from taskpress.auxiliary.detection import DetectionBranch
from taskpress.detections import Detections, Instances


def mask_shares(target: Instances, classes: int, height: int, width: int, stride: int) -> Tensor:
    """Share of each cell that the masks of each class cover together: [classes, height, width] in [0, 1].

    Cells beyond the picture are not covered.
    """
    covered = target.masks.new_zeros(classes, *target.masks.shape[1:])
    for mask, label in zip(target.masks, target.labels.tolist(), strict=True):
        covered[label] |= mask
    covered = covered[:, : height * stride, : width * stride]
    missing = (0, width * stride - covered.shape[2], 0, height * stride - covered.shape[1])
    return F.avg_pool2d(F.pad(covered.float(), missing), stride)


class InstanceBranch(DetectionBranch):
    """The detection branch with one head more, for the extent of objects.

        Ẑ ── 3×3, width ─┬─ separable 3×3 ── 1×1 ── class logits [B, K, h, w]
                         ├─ separable 3×3 ── 1×1 ── box          [B, 4, h, w]
                         └─ separable 3×3 ── 1×1 ── mask logits  [B, K, h, w]

    A box says whose the cells are, so that masks need to tell classes apart and not objects.

    Output: those of the detection branch, and `masks` [B, K, h, w] logits. Loss: `classes` and `box` as
    there, and `masks`: cross entropy of each class against the share of the cell that its objects' masks
    cover, summed over classes, mean over the covered cells of the batch (each by its share, at least 1).
    """

    def __init__(self, latent_channels: int, classes: int, stride: int = 16, width: int = 64) -> None:
        super().__init__(latent_channels, classes, stride, width)
        self.mask_tower = tower(width)
        self.masks = prediction(width, classes, PRIOR)

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        start = self.stem(latent)
        return {
            "classes": self.classes(self.class_tower(start)),
            "box": self.box(self.box_tower(start)),
            "masks": self.masks(self.mask_tower(start)),
        }

    def loss(self, output: dict[str, Tensor], targets: Sequence[Detections]) -> dict[str, Tensor]:
        logits = output["masks"].float()
        classes, height, width = logits.shape[1:]
        shares = []
        for target in targets:
            assert isinstance(target, Instances)
            shares.append(mask_shares(target.to(logits.device), classes, height, width, self.stride))
        wanted = torch.stack(shares)
        total = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        return {**super().loss(output, targets), "masks": total / wanted.sum().clamp(min=1)}
