"""torchvision's Mask R-CNN (He et al., ICCV 2017) as a frozen detector of boxes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from taskpress.detections import Detections
from taskpress.recognition.faster_rcnn import FasterRCNN


class MaskRCNN(FasterRCNN):
    """A frozen torchvision Mask R-CNN; a `Recognizer` of boxes.

    Its mask head is kept (and counts in the fingerprint) and is not run: `loss` is the four losses of its
    boxes, which it shares with Faster R-CNN.
    """

    def _detect(self, images: list[Tensor], crops: bool) -> list[Detections]:
        with _boxes_alone(self.model.roi_heads):
            return super()._detect(images, crops)

    def _losses(
        self, images: list[Tensor], targets: list[Detections], levels: list[Tensor]
    ) -> dict[str, Tensor]:
        with _boxes_alone(self.model.roi_heads):
            return super()._losses(images, targets, levels)


@contextmanager
def _boxes_alone(heads: Any) -> Iterator[None]:
    """torchvision leaves out masks, and asks for none in targets, where `mask_roi_pool` is None."""
    pool, heads.mask_roi_pool = heads.mask_roi_pool, None
    try:
        yield
    finally:
        heads.mask_roi_pool = pool
