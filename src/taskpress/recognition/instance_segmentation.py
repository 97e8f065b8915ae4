"""torchvision's Mask R-CNN (He et al., ICCV 2017) as a frozen recognizer of objects and their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN

from taskpress.detections import Category, Detections, Instances
from taskpress.recognition.divergence import MaskOutputs, mask_divergence
from taskpress.recognition.faster_rcnn import FasterRCNN
from taskpress.recognition.frozen_detector import PSEUDO_LABEL_THRESHOLD
from taskpress.recognition.protocol import Task

MASK_THRESHOLD = 0.5
"""Probability from which a pixel belongs to an object, as in torchvision's own evaluation."""


class InstanceSegmenter(FasterRCNN):
    """A frozen torchvision Mask R-CNN with its masks; a `Recognizer`. Arguments as in `TorchvisionDetector`.

    Predictions and pseudo-labels are `Instances`. `loss` is that of Faster R-CNN and `loss_mask`: the cross
    entropy of the mask that the head draws into each matched proposal against the target's. `divergence` is
    that of Faster R-CNN and `mask`, of the masks in the boxes that the reference detects.
    """

    task = Task.INSTANCE_SEGMENTATION

    def __init__(
        self,
        model: TorchvisionMaskRCNN,
        name: str,
        categories: Sequence[Category],
        model_labels: Sequence[int] | None = None,
        pseudo_label_threshold: float = PSEUDO_LABEL_THRESHOLD,
        crop_scale: float | None = None,
    ) -> None:
        super().__init__(model, name, categories, model_labels, pseudo_label_threshold, crop_scale)
        # A hundred masks of a picture's size are as much as is good to hold at once.
        self.most_at_once = 1
        own = f"{self.fingerprint} {self.task} {MASK_THRESHOLD}"
        self.fingerprint = hashlib.sha256(own.encode()).hexdigest()

    def _detect(self, images: list[Tensor], crops: bool) -> list[Detections]:
        found: list[Detections] = []
        for output in self._outputs_of(images, crops):
            labels = self.to_index[output["labels"]]
            masks = output["masks"][:, 0] >= MASK_THRESHOLD
            found.append(Instances(output["boxes"], labels, output["scores"], masks).where(labels >= 0))
        return found

    def _given(self, target: Detections) -> dict[str, Tensor]:
        assert isinstance(target, Instances)
        return {**super()._given(target), "masks": target.masks.to(torch.uint8)}

    def _divergence_on(
        self,
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        levels: dict[str, Tensor],
        reference: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            objects, _ = self.model.roi_heads(reference, proposals, sizes)
            scores = torch.cat([few["scores"] for few in objects])
            wanted = MaskOutputs(self._masks(reference, objects, sizes), scores)
        boxes = super()._divergence_on(proposals, sizes, levels, reference)
        return {**boxes, "mask": mask_divergence(self._masks(levels, objects, sizes), wanted)}

    def _masks(
        self, levels: dict[str, Tensor], objects: list[dict[str, Tensor]], sizes: list[tuple[int, int]]
    ) -> Tensor:
        """Logits [O, 28, 28] of the masks of all objects in all pictures, each of its label."""
        heads = self.model.roi_heads
        labels = torch.cat([few["labels"] for few in objects])
        pooled = heads.mask_roi_pool(levels, [few["boxes"] for few in objects], sizes)
        masks = heads.mask_predictor(heads.mask_head(pooled))
        return masks[torch.arange(len(labels), device=labels.device), labels]
