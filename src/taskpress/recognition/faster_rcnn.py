"""torchvision's Faster R-CNN (Ren et al., NeurIPS 2015) of any backbone as a frozen recognizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN

from taskpress.coding.errors import RecognizerError
from taskpress.detections import Category, Detections
from taskpress.recognition.frozen_detector import PSEUDO_LABEL_THRESHOLD, full_precision
from taskpress.recognition.torchvision_detector import TorchvisionDetector

SCENES_WEIGHTS = "scenes-recognizer.safetensors"


class RcnnOutputs(NamedTuple):
    """What both heads say of a batch: A anchors and P proposals in all, K labels with background as 0.

    objectness: [A] logits; anchor_offsets: [A, 4]; classes: [P, K] logits; offsets: [P, K, 4]
    """

    objectness: Tensor
    anchor_offsets: Tensor
    classes: Tensor
    offsets: Tensor


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

    def divergence(self, images: Sequence[Tensor], reference: Sequence[Tensor]) -> dict[str, Tensor]:
        """How far its outputs are from those on `reference`, both heads on the reference's proposals.

        Returns scalars `objectness`, `rpn_box` of the anchors, `classes`, `box` of the proposals, all 0 for
        equal images: Kullback-Leibler divergences of scores and smooth L1 of box offsets. Offsets count by
        the reference's probability that there is an object (of that class), and every sum is divided by the
        sum of those (at least 1). Images as in `loss`.
        """
        few, plain = ([image.float() for image in some] for some in (images, reference))
        with full_precision(few[0]):
            with torch.no_grad():
                wanted = self._levels(plain)
            return self.divergence_of_features(few, self._levels(few), wanted)

    def divergence_of_features(
        self, images: Sequence[Tensor], features: Sequence[Tensor], reference: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """What `divergence` gives if the layers were `features`, and `reference` those of its reference."""
        few = [image.float() for image in images]
        with full_precision(few[0]):
            batch, _ = self._scaled(few, None)
            with torch.no_grad():
                levels = self._named(reference)
                proposals, _ = self.model.rpn(batch, levels)
                wanted = self._outputs(levels, proposals, batch.image_sizes)
            found = self._outputs(self._named(features), proposals, batch.image_sizes)
        return _rcnn_divergence(found, wanted)

    def _named(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """What `features` gives as torchvision's backbones would, with the level that only subsamples."""
        named = {str(place): level.float() for place, level in enumerate(levels)}
        if len(self.model.rpn.anchor_generator.sizes) > len(levels):
            named["pool"] = F.max_pool2d(named[str(len(levels) - 1)], 1, 2)
        return named

    def _outputs(
        self, levels: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> RcnnOutputs:
        anchors, offsets = self.model.rpn.head(list(levels.values()))
        heads = self.model.roi_heads
        classes, boxes = heads.box_predictor(heads.box_head(heads.box_roi_pool(levels, proposals, sizes)))
        return RcnnOutputs(
            torch.cat([level.flatten() for level in anchors]),
            torch.cat([level.unflatten(1, (-1, 4)).movedim(2, -1).flatten(0, -2) for level in offsets]),
            classes,
            boxes.unflatten(1, (-1, 4)),
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
            categories = [Category(**category) for category in json.loads(weights.metadata()["categories"])]
            model = slim_rcnn(len(categories))
            model.load_state_dict({key: weights.get_tensor(key) for key in weights.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        what = "no recognizer of scenes" if trained else "the shipped scenes recognizer is missing or damaged"
        remedy = "" if trained else "install taskpress anew, or "
        raise RecognizerError(f"{file}: {what}; {remedy}make it with `taskpress train-recognizer`") from error
    name = f"scenes:{trained.name}" if trained else "scenes"
    return FasterRCNN(model, name, categories, pseudo_label_threshold=pseudo_label_threshold)


def _rcnn_divergence(found: RcnnOutputs, wanted: RcnnOutputs) -> dict[str, Tensor]:
    anchors, labels = wanted.objectness.sigmoid(), wanted.classes.softmax(1)
    there = labels[:, 1:]
    objectness = F.binary_cross_entropy_with_logits(found.objectness, anchors, reduction="sum")
    certain = F.binary_cross_entropy_with_logits(wanted.objectness, anchors, reduction="sum")
    classes = F.kl_div(
        found.classes.log_softmax(1), wanted.classes.log_softmax(1), reduction="sum", log_target=True
    )
    anchor_offsets = F.smooth_l1_loss(found.anchor_offsets, wanted.anchor_offsets, reduction="none").sum(-1)
    offsets = F.smooth_l1_loss(found.offsets, wanted.offsets, reduction="none").sum(-1)[:, 1:]
    anchor_count, count = anchors.sum().clamp(min=1), there.sum().clamp(min=1)
    return {
        "objectness": (objectness - certain) / anchor_count,
        "rpn_box": (anchors * anchor_offsets).sum() / anchor_count,
        "classes": classes / count,
        "box": (there * offsets).sum() / count,
    }


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
