"""The detection branch: classes and boxes from the decoded latent, at the latent's resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, generalized_box_iou_loss, sigmoid_focal_loss

from taskpress.auxiliary.assignment import assign_cells
from taskpress.auxiliary.branch import PRIOR, AuxiliaryBranch, prediction, stem, tower
from taskpress.detections import Detections

LARGEST_LOG_SIZE = 5.0
"""A box side is at most e⁵ cells, 2374 pixels at stride 16; bounds the exponential."""


class DetectionBranch(AuxiliaryBranch):
    """An anchor-free detector on Ẑ, after FCOS (Tian et al., arXiv:2006.09214).

        Ẑ ── 3×3, width ─┬─ separable 3×3 ── 1×1 ── class logits [B, K, h, w]
                         └─ separable 3×3 ── 1×1 ── box          [B, 4, h, w]

    A box is the offset of its centre from the cell's, in cells, and the logarithm of width and height in
    cells. (FCOS regresses distances to four sides, which cannot state a box that misses the cell's centre; at
    stride 16 many small ones do.)

    Output: `classes` [B, K, h, w] logits, `box` [B, 4, h, w] raw dx, dy, log w, log h.
    Loss: `classes`, the focal loss of all cells, and `box`, 1 - GIoU of positive cells, both divided by the
    number of positive cells in the batch (at least 1).
    """

    def __init__(self, latent_channels: int, classes: int, stride: int = 16, width: int = 64) -> None:
        super().__init__()
        self.stride = stride
        self.stem = stem(latent_channels, width)
        self.class_tower = tower(width)
        self.box_tower = tower(width)
        self.classes = prediction(width, classes, PRIOR)
        self.box = prediction(width, 4)

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        start = self.stem(latent)
        return {"classes": self.classes(self.class_tower(start)), "box": self.box(self.box_tower(start))}

    def loss(self, output: dict[str, Tensor], targets: Sequence[Detections]) -> dict[str, Tensor]:
        logits, raw = output["classes"].float(), output["box"].float()
        wanted_classes = torch.zeros_like(logits)
        boxes = self._boxes(raw)
        predicted, wanted = [], []
        for index, target in enumerate(targets):
            target = target.to(logits.device)
            owner = assign_cells(target.boxes, logits.shape[2], logits.shape[3], self.stride)
            rows, columns = (owner >= 0).nonzero(as_tuple=True)
            objects = owner[rows, columns]
            wanted_classes[index, target.labels[objects], rows, columns] = 1.0
            predicted.append(boxes[index, rows, columns])
            wanted.append(target.boxes[objects])
        matched, truth = torch.cat(predicted), torch.cat(wanted)
        count = max(1, len(matched))
        focal = sigmoid_focal_loss(logits, wanted_classes, reduction="sum")
        return {
            "classes": focal / count,
            "box": generalized_box_iou_loss(matched, truth, reduction="sum") / count,
        }

    @torch.no_grad()
    def predict(
        self, output: dict[str, Tensor], threshold: float = 0.05, iou: float = 0.6, most: int = 100
    ) -> list[Detections]:
        """The objects the branch sees in Ẑ, in pixels of the image, best first, after class-wise NMS."""
        boxes, scores = self._boxes(output["box"].float()), output["classes"].float().sigmoid()
        found = []
        for image_boxes, image_scores in zip(boxes, scores, strict=True):
            labels, rows, columns = (image_scores >= threshold).nonzero(as_tuple=True)
            candidates = Detections(image_boxes[rows, columns], labels, image_scores[labels, rows, columns])
            kept = batched_nms(candidates.boxes, candidates.scores, candidates.labels, iou)
            found.append(candidates.where(kept[:most]))
        return found

    def _boxes(self, raw: Tensor) -> Tensor:
        """Raw [B, 4, h, w] to x0 y0 x1 y1 in pixels, [B, h, w, 4]."""
        rows = torch.arange(raw.shape[2], device=raw.device, dtype=raw.dtype) + 0.5
        columns = torch.arange(raw.shape[3], device=raw.device, dtype=raw.dtype) + 0.5
        x = raw[:, 0] + columns
        y = raw[:, 1] + rows[:, None]
        half = raw[:, 2:].clamp(max=LARGEST_LOG_SIZE).exp() / 2
        corners = [x - half[:, 0], y - half[:, 1], x + half[:, 0], y + half[:, 1]]
        return torch.stack(corners, dim=-1) * self.stride
