"""torchvision's RetinaNet (Lin et al., ICCV 2017) as a frozen recognizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet

from taskpress.detections import Category, Detections
from taskpress.recognition.divergence import OneStageOutputs, one_stage_divergence
from taskpress.recognition.frozen_detector import PSEUDO_LABEL_THRESHOLD
from taskpress.recognition.torchvision_detector import TorchvisionDetector


class RetinaNet(TorchvisionDetector):
    """A frozen torchvision RetinaNet; a `Recognizer`. Arguments as in `TorchvisionDetector`."""

    def __init__(
        self,
        model: TorchvisionRetinaNet,
        name: str,
        categories: Sequence[Category],
        model_labels: Sequence[int] | None = None,
        pseudo_label_threshold: float = PSEUDO_LABEL_THRESHOLD,
        crop_scale: float | None = None,
    ) -> None:
        super().__init__(
            model,
            name,
            categories,
            model.head.classification_head.num_classes,
            (model.score_thresh, model.nms_thresh, model.detections_per_img, model.topk_candidates),
            model_labels,
            pseudo_label_threshold,
            crop_scale,
        )

    def _losses(
        self, images: list[Tensor], targets: list[Detections], levels: list[Tensor]
    ) -> dict[str, Tensor]:
        """`classification` (focal loss of all anchors) and `bbox_regression`; nothing is sampled."""
        with torch.no_grad():
            batch, given = self._scaled(images, targets)
        anchors = self.model.anchor_generator(batch, levels)
        return self.model.compute_loss(given, self.model.head(levels), anchors)

    def _divergence(
        self, images: list[Tensor], levels: list[Tensor], reference: list[Tensor]
    ) -> dict[str, Tensor]:
        """See `one_stage_divergence`."""
        with torch.no_grad():
            wanted = self._outputs(reference)
        return one_stage_divergence(self._outputs(levels), wanted)

    def _outputs(self, levels: list[Tensor]) -> OneStageOutputs:
        outputs = self.model.head(levels)
        return OneStageOutputs(outputs["cls_logits"].flatten(0, 1), outputs["bbox_regression"].flatten(0, 1))
