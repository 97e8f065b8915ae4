"""torchvision's Faster R-CNN (Ren et al., NeurIPS 2015) of any backbone as a frozen recognizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN

from taskpress.detections import Category, Detections
from taskpress.errors import RecognizerError
from taskpress.recognition.divergence import TwoStageOutputs, two_stage_divergence
from taskpress.recognition.frozen_detector import PSEUDO_LABEL_THRESHOLD
from taskpress.recognition.torchvision_detector import TorchvisionDetector

SCENES_WEIGHTS = "scenes-recognizer.safetensors"
UNREADABLE = (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError, RecognizerError)


class FasterRCNN(TorchvisionDetector):
    """A frozen torchvision Faster R-CNN; a `Recognizer`. Arguments as in `TorchvisionDetector`."""

    def __init__(
        self,
        model: TorchvisionFasterRCNN,
        name: str,
        categories: Sequence[Category],
        model_labels: Sequence[int] | None = None,
        pseudo_label_threshold: float = PSEUDO_LABEL_THRESHOLD,
        crop_scale: float | None = None,
    ) -> None:
        heads = model.roi_heads
        super().__init__(
            model,
            name,
            categories,
            heads.box_predictor.cls_score.out_features,
            (heads.score_thresh, heads.nms_thresh, heads.detections_per_img),
            model_labels,
            pseudo_label_threshold,
            crop_scale,
        )

    def _losses(
        self, images: list[Tensor], targets: list[Detections], levels: list[Tensor]
    ) -> dict[str, Tensor]:
        """`loss_objectness`, `loss_rpn_box_reg` of the proposals, `loss_classifier`, `loss_box_reg` of the
        head."""
        with torch.no_grad():
            batch, given = self._scaled(images, targets)
        named = self._named(levels)
        with _sampling(self.model.rpn, self.model.roi_heads):
            proposals, proposal_losses = self.model.rpn(batch, named, given)
            _, head_losses = self.model.roi_heads(named, proposals, batch.image_sizes, given)
        return {**proposal_losses, **head_losses}

    def _divergence(
        self, images: list[Tensor], levels: list[Tensor], reference: list[Tensor]
    ) -> dict[str, Tensor]:
        batch, _ = self._scaled(images, None)
        wanted = self._named(reference)
        with torch.no_grad():
            proposals, _ = self.model.rpn(batch, wanted)
        return self._divergence_on(proposals, batch.image_sizes, self._named(levels), wanted)

    def _divergence_on(
        self,
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        levels: dict[str, Tensor],
        reference: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """See `two_stage_divergence`; both are held on the reference's proposals."""
        with torch.no_grad():
            wanted = self._outputs(reference, proposals, sizes)
        return two_stage_divergence(self._outputs(levels, proposals, sizes), wanted)

    def _named(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """What `features` gives as torchvision's backbones would, with the level that only subsamples."""
        named = {str(place): level.float() for place, level in enumerate(levels)}
        if len(self.model.rpn.anchor_generator.sizes) > len(levels):
            named["pool"] = F.max_pool2d(named[str(len(levels) - 1)], 1, 2)
        return named

    def _outputs(
        self, levels: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> TwoStageOutputs:
        anchors, offsets = self.model.rpn.head(list(levels.values()))
        heads = self.model.roi_heads
        classes, boxes = heads.box_predictor(heads.box_head(heads.box_roi_pool(levels, proposals, sizes)))
        return TwoStageOutputs(
            torch.cat([level.flatten() for level in anchors]),
            torch.cat([level.unflatten(1, (-1, 4)).movedim(2, -1).flatten(0, -2) for level in offsets]),
            classes[:, 0],
            classes[:, 1:],
            boxes.unflatten(1, (-1, 4))[:, 1:],
        )


def load_scenes_recognizer(
    trained: Path | None = None, pseudo_label_threshold: float = PSEUDO_LABEL_THRESHOLD
) -> FasterRCNN:
    """The recognizer of the embedded `scenes`: the shipped one, or the file `trained` of another
    `taskpress train-recognizer`. RecognizerError where the weights are missing or damaged.
    """
    from taskpress.recognition.slim_rcnn import slim_rcnn

    file = trained or resources.files("taskpress").joinpath("weights", SCENES_WEIGHTS)
    try:
        with resources.as_file(file) as path, safe_open(path, framework="pt") as weights:
            about = weights.metadata()
            categories = [Category(**category) for category in json.loads(about["categories"])]
            model = slim_rcnn(len(categories), deeper=int(about.get("deeper", 1)))
            model.load_state_dict({key: weights.get_tensor(key) for key in weights.keys()})  # noqa: SIM118
    except UNREADABLE as error:
        what = "no recognizer of scenes" if trained else "the shipped scenes recognizer is missing or damaged"
        remedy = "" if trained else "install taskpress anew, or "
        raise RecognizerError(f"{file}: {what}; {remedy}make it with `taskpress train-recognizer`") from error
    name = f"scenes:{trained.name}" if trained else "scenes"
    return FasterRCNN(model, name, categories, pseudo_label_threshold=pseudo_label_threshold)


@contextmanager
def _sampling(*parts: nn.Module) -> Iterator[None]:
    """Lets parts compute losses.

    The flag is set on the parts alone: `train()` would reach the BatchNorm and dropout inside them.
    """
    for part in parts:
        part.training = True
    try:
        yield
    finally:
        for part in parts:
            part.training = False
