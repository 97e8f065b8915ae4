"""torchvision's semantic segmentation as frozen recognizers: DeepLabV3 (Chen et al., arXiv:1706.05587) and
LR-ASPP (Howard et al., ICCV 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from taskpress.errors import RecognizerError, suggestion
from taskpress.recognition.frozen_model import FrozenModel, load_torchvision, stacked
from taskpress.recognition.protocol import Task
from taskpress.targets import UNCOUNTED, SemanticMap

MODELS = {
    "deeplabv3-r50": "deeplabv3_resnet50",
    "deeplabv3-r101": "deeplabv3_resnet101",
    "deeplabv3-mobilenet-v3": "deeplabv3_mobilenet_v3_large",
    "lraspp-mobilenet-v3": "lraspp_mobilenet_v3_large",
}
"""Names on the command line and torchvision's."""


class SemanticSegmenter(FrozenModel):
    """A frozen network that says the class of every pixel; a `Recognizer`.

    Pictures are seen at the size they come in: the networks are convolutional, so that a crop looks like the
    picture it was cut from. torchvision's weights know pictures of a short side of about 520 pixels; choose
    `--resize` and `data.long_side` to match.

    model: of torchvision's segmentation models: {"out": [B, K, H, W] logits}, with a `backbone`
    """

    task = Task.SEGMENTATION

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor] | Tensor) -> list[SemanticMap]:
        """The most probable class of each pixel. images: [3, H, W] float in [0, 1], RGB, any sizes."""
        return [SemanticMap(self._logits(image[None])[0].argmax(dim=0).to(torch.uint8)) for image in images]

    def pseudo_labels(self, images: Sequence[Tensor] | Tensor) -> list[SemanticMap]:
        """The same as `predict`: every pixel is labelled."""
        return self.predict(images)

    def loss(self, images: Sequence[Tensor] | Tensor, targets: Sequence[SemanticMap]) -> dict[str, Tensor]:
        """`cross_entropy`: the mean over the counted pixels of the batch; 0 where none is counted.

        images: [B, 3, H, W] or B times [3, H, W]; targets: one a picture, of its size
        """
        logits = self._logits(stacked(images))
        wanted = torch.stack([target.labels for target in targets]).to(logits.device).long()
        total = F.cross_entropy(logits, wanted, ignore_index=UNCOUNTED, reduction="sum")
        return {"cross_entropy": total / (wanted != UNCOUNTED).sum().clamp(min=1)}

    def features(self, images: Sequence[Tensor] | Tensor) -> list[Tensor]:
        """What the backbone hands to the classifier: [B, C, h, w], the finest first where there are two."""
        levels = self.model.backbone(self.normalized(stacked(images)))
        return [level.float() for name, level in levels.items() if name != "aux"]

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.normalized(images))["out"].float()
        return logits


def load_segmenter(name: str, weights: str | None = None) -> SemanticSegmenter:
    """A segmentation network by name, e.g. "lraspp-mobilenet-v3"; weights as in `load_torchvision`.

    Raises RecognizerError for an unknown name, weights that are missing or do not fit, or a failed download.
    """
    if name not in MODELS:
        raise RecognizerError(f"no segmentation model is named '{name}'; {suggestion(name, MODELS)}")
    spec = name if weights is None else f"{name}:{weights}"

    loaded = load_torchvision(MODELS[name], spec, weights, weights_backbone=None)
    # A second head, which helped to train the backbone.
    if hasattr(loaded.model, "aux_classifier"):
        loaded.model.aux_classifier = None
    return SemanticSegmenter(
        loaded.model, spec, loaded.categories, loaded.transforms.mean, loaded.transforms.std
    )
