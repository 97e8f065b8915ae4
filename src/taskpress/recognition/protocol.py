"""What a recognizer is to the rest of TaskPress: one protocol, whatever model family is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from taskpress.detections import Category
from taskpress.targets import Task as Task


@runtime_checkable
class Recognizer(Protocol):
    """A frozen recognition model, differentiable in its images.

    Its parameters never require gradients, and it stays in inference mode whatever is done to it; those that
    are `nn.Module`s are held to that. Images are float tensors [3, H, W] in [0, 1], RGB, of any
    sizes; resizing, letterboxing and normalization happen inside and are differentiable. Targets (what
    `taskpress.targets.TARGETS` lists for the task) come back in the pixels of the image that was passed.
    """

    @property
    def name(self) -> str:
        """How it is named on the command line, e.g. `onnx:yolox_nano.onnx`."""
        ...

    @property
    def task(self) -> Task: ...

    @property
    def categories(self) -> tuple[Category, ...]: ...

    @property
    def fingerprint(self) -> str:
        """Hex digest of what decides its outputs; keys caches of pseudo-labels."""
        ...

    def predict(self, images: Sequence[Tensor]) -> list[Any]:
        """What evaluation scores, a target for each image, without gradients: detections down to a low
        score, a map, class scores."""
        ...

    def pseudo_labels(self, images: Sequence[Tensor]) -> list[Any]:
        """The teacher's view of uncompressed images, without gradients: confident detections, a map, class
        scores."""
        ...

    def loss(self, images: Sequence[Tensor], targets: Sequence[Any]) -> dict[str, Tensor]:
        """L_task on outputs: named scalar terms whose sum is the loss, differentiable in `images`.

        `images` have one size (a batch); `targets` are in their pixels.
        """
        ...

    def features(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Features of chosen layers, [B, C_l, h_l, w_l] each, for L_task on features; images of one size."""
        ...


@runtime_checkable
class CropRecognizer(Recognizer, Protocol):
    """A recognizer that shows its network crops at another scale than whole pictures."""

    def crop_labels(self, images: Sequence[Tensor]) -> list[Any]:
        """`pseudo_labels` of crops of one size, as `loss` and `features` see them."""
        ...


@runtime_checkable
class SoftRecognizer(Recognizer, Protocol):
    """A recognizer whose outputs on two batches can be held against each other number by number."""

    def divergence(self, images: Sequence[Tensor], reference: Sequence[Tensor]) -> dict[str, Tensor]:
        """L_task on soft outputs: named scalar terms, 0 for equal images, differentiable in `images`.

        `reference` are the uncompressed images; both as in `loss`.
        """
        ...


@runtime_checkable
class HeadedRecognizer(Recognizer, Protocol):
    """A recognizer whose heads can be given layers in place of those that it computes."""

    def loss_of_features(
        self, images: Sequence[Tensor], features: Sequence[Tensor], targets: Sequence[Any]
    ) -> dict[str, Tensor]:
        """What `loss` gives if `features(images)` were `features`; differentiable in these."""
        ...


@runtime_checkable
class SoftHeadedRecognizer(HeadedRecognizer, SoftRecognizer, Protocol):
    """One whose heads' outputs on two sets of layers can be held against each other number by number."""

    def divergence_of_features(
        self, images: Sequence[Tensor], features: Sequence[Tensor], reference: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """What `divergence` gives if the images' features were `features` and the reference's `reference`;
        differentiable in the former. `images` say the size."""
        ...


def freeze(model: nn.Module) -> nn.Module:
    """Makes every parameter deaf to gradients and puts the model into inference mode; returns it."""
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model
