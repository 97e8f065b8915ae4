"""What a recognizer is to the rest of TaskPress: one protocol, whatever model family is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from taskpress.detections import Category, Detections


class Task(StrEnum):
    """What a recognizer recognizes, and therefore which metric and which auxiliary branches fit it."""

    DETECTION = "detection"
    SEGMENTATION = "segmentation"
    CLASSIFICATION = "classification"


@runtime_checkable
class Recognizer(Protocol):
    """A frozen recognition model, differentiable in its images.

    Implementations are `nn.Module`s whose parameters never require gradients and which stay in inference
    mode whatever is done to them (`frozen`). Images are float tensors [3, H, W] in [0, 1], RGB, of any
    sizes; resizing, letterboxing and normalization happen inside and are differentiable. Boxes come
    back in the pixels of the image that was passed.
    """

    name: str
    """How it is named on the command line, e.g. `onnx:yolox_nano.onnx`."""
    task: Task
    categories: tuple[Category, ...]
    fingerprint: str
    """Hex digest of what decides its outputs; keys caches of pseudo-labels."""

    def predict(self, images: Sequence[Tensor]) -> list[Detections]:
        """What evaluation scores: all detections down to a low score, without gradients."""
        ...

    def pseudo_labels(self, images: Sequence[Tensor]) -> list[Detections]:
        """The teacher's view of uncompressed images: confident detections, without gradients."""
        ...

    def loss(self, images: Sequence[Tensor], targets: Sequence[Detections]) -> dict[str, Tensor]:
        """L_task on outputs: named scalar terms whose sum is the loss, differentiable in `images`.

        `images` have one size (a batch); `targets` are in their pixels.
        """
        ...

    def features(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Features of chosen layers, [B, C_l, h_l, w_l] each, for L_task on features; images of one size."""
        ...


def freeze(model: nn.Module) -> nn.Module:
    """Makes every parameter deaf to gradients and puts the model into inference mode; returns it."""
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model
