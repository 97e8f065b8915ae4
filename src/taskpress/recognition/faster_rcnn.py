"""torchvision's Faster R-CNN (Ren et al., NeurIPS 2015) of any backbone as a frozen recognizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from itertools import groupby

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN

from taskpress.coding.errors import RecognizerError
from taskpress.detections import Category, Detections
from taskpress.recognition.protocol import Task, freeze

PSEUDO_LABEL_THRESHOLD = 0.5
MOST_AT_ONCE = 8
"""Pictures in one forward pass of `predict`; bounds memory however many are passed."""
SMALLEST_TARGET = 1.0
"""Targets narrower or lower than this many pixels are left out of the loss: their scale has no logarithm."""
SCENES_WEIGHTS = "scenes-recognizer.safetensors"


class FasterRCNN(nn.Module):
    """A frozen torchvision Faster R-CNN; a `Recognizer`.

    model:      what torchvision built; it keeps its own scaling, normalization and thresholds
    name:       how it is named on the command line
    categories: what it detects
    model_labels: the model's label of each category; by default 1, 2, … in order (0 is background).
        Detections with a label that belongs to no category are dropped.
    pseudo_label_threshold: lowest score of a pseudo-label, in [0, 1]
    """

    task = Task.DETECTION
    model: TorchvisionFasterRCNN
    to_label: Tensor
    to_index: Tensor

    def __init__(
        self,
        model: TorchvisionFasterRCNN,
        name: str,
        categories: Sequence[Category],
        model_labels: Sequence[int] | None = None,
        pseudo_label_threshold: float = PSEUDO_LABEL_THRESHOLD,
    ) -> None:
        super().__init__()
        if model_labels is None:
            model_labels = range(1, len(categories) + 1)
        known = model.roi_heads.box_predictor.cls_score.out_features
        if len(model_labels) != len(categories) or max(model_labels) >= known:
            raise RecognizerError(
                f"{name} has {known - 1} classes, {len(categories)} categories were given; give one for each"
            )
        self.model = model
        freeze(self)
        self.name = name
        self.categories = tuple(categories)
        self.pseudo_label_threshold = pseudo_label_threshold
        to_label = torch.tensor(list(model_labels), dtype=torch.int64)
        to_index = torch.full((known,), -1, dtype=torch.int64)
        to_index[to_label] = torch.arange(len(to_label))
        self.register_buffer("to_label", to_label, persistent=False)
        self.register_buffer("to_index", to_index, persistent=False)
        self.fingerprint = _fingerprint(model, pseudo_label_threshold)

    def train(self, mode: bool = True) -> FasterRCNN:
        """Stays in inference mode whatever is asked: a frozen model has no other."""
        super().train(False)
        return self

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor] | Tensor) -> list[Detections]:
        """The model's detections down to its own score threshold (torchvision's 0.05), best first.

        images: [3, H, W] float in [0, 1], RGB, any sizes. Only pictures of one size share a forward pass, so
        that padding never changes what is found.
        """
        found: list[Detections] = []
        for _, group in groupby(images, key=lambda image: image.shape):
            same = list(group)
            for start in range(0, len(same), MOST_AT_ONCE):
                few = [image.float() for image in same[start : start + MOST_AT_ONCE]]
                with _full_precision(few[0]):
                    found += [self._detections(output) for output in self.model(few)]
        return found

    def pseudo_labels(self, images: Sequence[Tensor] | Tensor) -> list[Detections]:
        """The detections of `predict` with a score of at least `pseudo_label_threshold`."""
        return [found.where(found.scores >= self.pseudo_label_threshold) for found in self.predict(images)]

    def loss(self, images: Sequence[Tensor] | Tensor, targets: Sequence[Detections]) -> dict[str, Tensor]:
        """The four losses Faster R-CNN is trained with, means over the batch; scores of targets do not count.

        Returns `loss_objectness`, `loss_rpn_box_reg` of the proposals, `loss_classifier`, `loss_box_reg` of
        the head. Anchors and proposals are sampled with torch's global random state, as in training.

        images: [B, 3, H, W] or B times [3, H, W]; targets: one a picture, boxes in its pixels, possibly none
        """
        given = [self._target(target, image) for target, image in zip(targets, images, strict=True)]
        few = [image.float() for image in images]
        with _full_precision(few[0]):
            batch, given = self.model.transform(few, given)
            levels = self.model.backbone(batch.tensors)
            with _sampling(self.model.rpn, self.model.roi_heads):
                proposals, proposal_losses = self.model.rpn(batch, levels, given)
                _, head_losses = self.model.roi_heads(levels, proposals, batch.image_sizes, given)
        return {**proposal_losses, **head_losses}

    def features(self, images: Sequence[Tensor] | Tensor) -> list[Tensor]:
        """Levels of the feature pyramid, finest first: [B, C, h / s, w / s] at the size the model scales to.

        Levels that only subsample another one (torchvision's "pool") are left out.
        """
        few = [image.float() for image in images]
        with _full_precision(few[0]):
            batch, _ = self.model.transform(few)
            levels = self.model.backbone(batch.tensors)
        return [level for name, level in levels.items() if name != "pool"]

    def _detections(self, output: dict[str, Tensor]) -> Detections:
        labels = self.to_index[output["labels"]]
        return Detections(output["boxes"], labels, output["scores"]).where(labels >= 0)

    def _target(self, target: Detections, image: Tensor) -> dict[str, Tensor]:
        target = target.to(image.device)
        extent = target.boxes[:, 2:] - target.boxes[:, :2]
        target = target.where((extent >= SMALLEST_TARGET).all(1))
        return {"boxes": target.boxes.float(), "labels": self.to_label[target.labels]}


def load_scenes_recognizer(pseudo_label_threshold: float = PSEUDO_LABEL_THRESHOLD) -> FasterRCNN:
    """The shipped recognizer of the embedded `scenes`; RecognizerError where its weights are missing."""
    from taskpress.recognition.slim_rcnn import slim_rcnn

    file = resources.files("taskpress").joinpath("weights", SCENES_WEIGHTS)
    try:
        with resources.as_file(file) as path, safe_open(path, framework="pt") as weights:
            categories = [Category(**category) for category in json.loads(weights.metadata()["categories"])]
            model = slim_rcnn(len(categories))
            model.load_state_dict({key: weights.get_tensor(key) for key in weights.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise RecognizerError(
            f"{file}: the shipped scenes recognizer is missing or damaged; install taskpress anew, or "
            "make it with `taskpress train-recognizer`"
        ) from error
    return FasterRCNN(model, "scenes", categories, pseudo_label_threshold=pseudo_label_threshold)


def from_torchvision(name: str, weights: str | None = None) -> FasterRCNN:
    """A Faster R-CNN by name, e.g. "fasterrcnn-r50-fpn"; see `faster_rcnn_models.build`."""
    from taskpress.recognition.faster_rcnn_models import build

    model, categories, model_labels = build(name, weights)
    return FasterRCNN(model, name if weights is None else f"{name}:{weights}", categories, model_labels)


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


def _full_precision(like: Tensor) -> torch.autocast:
    # Coordinates lose whole pixels in half precision.
    return torch.autocast(like.device.type, enabled=False)


def _fingerprint(model: TorchvisionFasterRCNN, pseudo_label_threshold: float) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    heads, transform = model.roi_heads, model.transform
    rules = (
        heads.score_thresh,
        heads.nms_thresh,
        heads.detections_per_img,
        transform.min_size,
        transform.max_size,
    )
    digest.update(repr((*rules, pseudo_label_threshold)).encode())
    return digest.hexdigest()
