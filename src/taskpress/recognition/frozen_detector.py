"""What every detector that is built here has in common, whatever network is behind it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from taskpress.detections import Category, Detections
from taskpress.errors import RecognizerError
from taskpress.recognition.device import full_precision
from taskpress.recognition.protocol import Task

PSEUDO_LABEL_THRESHOLD = 0.5
MOST_AT_ONCE = 8
SMALLEST_TARGET = 1.0
"""Targets narrower or lower than this many pixels are left out of the loss: their scale has no logarithm."""


class FrozenDetector(nn.Module, ABC):
    """A `SoftHeadedRecognizer` but for the network: subclasses give `_detect`, `_losses`, `_divergence` and
    `_levels`.

    name:       how it is named on the command line
    categories: what it detects
    pseudo_label_threshold: lowest score of a pseudo-label, in [0, 1]
    crop_scale: what `loss`, `features` and `crop_labels` scale by; None: to the size `predict` would choose.
        `predict` and `pseudo_labels` see whole pictures and scale them to a fixed short side; a crop scaled
        so would show its objects larger than the detector ever sees them. With the factor by which whole
        pictures are scaled (about 800 / 480 for COCO's 640×480 and a short side of 800), a crop keeps the
        scale of the picture it was cut from, and costs its own size.
    most_at_once: pictures in one forward pass of `predict`; bounds memory however many are passed
    """

    task = Task.DETECTION
    fingerprint: str

    def __init__(
        self,
        name: str,
        categories: Sequence[Category],
        pseudo_label_threshold: float = PSEUDO_LABEL_THRESHOLD,
        crop_scale: float | None = None,
        most_at_once: int = MOST_AT_ONCE,
    ) -> None:
        super().__init__()
        if not 0 <= pseudo_label_threshold <= 1:
            raise RecognizerError(
                f"{name}: a pseudo-label threshold of {pseudo_label_threshold} is no score; give 0 to 1"
            )
        if crop_scale is not None and not 0 < crop_scale < float("inf"):
            raise RecognizerError(f"{name}: a crop scale of {crop_scale} is no factor; give one above 0")
        self.name = name
        self.categories = tuple(categories)
        self.pseudo_label_threshold = pseudo_label_threshold
        self.crop_scale = crop_scale
        self.most_at_once = most_at_once

    def train(self, mode: bool = True) -> FrozenDetector:
        """Stays in inference mode whatever is asked: a frozen model has no other."""
        super().train(False)
        return self

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor] | Tensor) -> list[Detections]:
        """All detections down to the model's own score threshold, best first.

        images: [3, H, W] float in [0, 1], RGB, any sizes. Only pictures of one size share a forward pass, so
        that padding never changes what is found.
        """
        return self._find(images, crops=False)

    def _find(self, images: Sequence[Tensor] | Tensor, crops: bool) -> list[Detections]:
        found: list[Detections] = []
        for _, group in groupby(images, key=lambda image: image.shape):
            same = list(group)
            for start in range(0, len(same), self.most_at_once):
                few = [image.float() for image in same[start : start + self.most_at_once]]
                with full_precision(few[0]):
                    found += self._detect(few, crops)
        return found

    def pseudo_labels(self, images: Sequence[Tensor] | Tensor) -> list[Detections]:
        """The detections of `predict` with a score of at least `pseudo_label_threshold`."""
        return self._confident(self.predict(images))

    @torch.no_grad()
    def crop_labels(self, images: Sequence[Tensor] | Tensor) -> list[Detections]:
        """The same of crops, at the scale at which `loss` sees them."""
        return self._confident(self._find(images, crops=True))

    def _confident(self, found: list[Detections]) -> list[Detections]:
        return [one.where(one.scores >= self.pseudo_label_threshold) for one in found]

    def loss(self, images: Sequence[Tensor] | Tensor, targets: Sequence[Detections]) -> dict[str, Tensor]:
        """The losses the detector is trained with, means over the batch; scores of targets do not count.

        Where anchors and proposals are sampled, torch's global random state decides, as in training.

        images: [B, 3, H, W] or B times [3, H, W]; targets: one a picture, boxes in its pixels, possibly none
        """
        few = [image.float() for image in images]
        with full_precision(few[0]):
            return self._losses(few, _large_enough(few, targets), self._levels(few))

    def loss_of_features(
        self,
        images: Sequence[Tensor] | Tensor,
        features: Sequence[Tensor],
        targets: Sequence[Detections],
    ) -> dict[str, Tensor]:
        """What `loss` gives if `features(images)` were `features`; differentiable in these alone."""
        few = [image.float() for image in images]
        with full_precision(few[0]):
            levels = [level.float() for level in features]
            return self._losses(few, _large_enough(few, targets), levels)

    def divergence(
        self, images: Sequence[Tensor] | Tensor, reference: Sequence[Tensor] | Tensor
    ) -> dict[str, Tensor]:
        """How far its raw outputs are from those on `reference`, the uncompressed images; both as in `loss`.

        Scalars, 0 for equal images, differentiable in `images` alone; see `recognition/divergence.py`.
        """
        with torch.no_grad():
            wanted = self.features(reference)
        return self.divergence_of_features(images, self.features(images), wanted)

    def divergence_of_features(
        self, images: Sequence[Tensor] | Tensor, features: Sequence[Tensor], reference: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """What `divergence` gives if its images' features were `features` and its reference's `reference`."""
        few = [image.float() for image in images]
        with full_precision(few[0]):
            levels, wanted = ([level.float() for level in some] for some in (features, reference))
            return self._divergence(few, levels, wanted)

    def features(self, images: Sequence[Tensor] | Tensor) -> list[Tensor]:
        """Levels of the feature pyramid, finest first: [B, C, h / s, w / s] at the size it scales to.

        Levels that only subsample another one (P6 of Faster R-CNN) are left out.
        """
        few = [image.float() for image in images]
        with full_precision(few[0]):
            return self._levels(few)

    @abstractmethod
    def pads(self, side: int) -> bool:
        """Whether `features` of a square picture of `side` pixels show padding right of and below it."""

    @abstractmethod
    def _detect(self, images: list[Tensor], crops: bool) -> list[Detections]:
        """Detections in pictures of one size, boxes in their pixels; crops are scaled as `loss` does."""

    @abstractmethod
    def _losses(
        self, images: list[Tensor], targets: list[Detections], levels: list[Tensor]
    ) -> dict[str, Tensor]:
        """What `loss` gives, of targets that are large enough, where the network's levels are `levels`."""

    @abstractmethod
    def _divergence(
        self, images: list[Tensor], levels: list[Tensor], reference: list[Tensor]
    ) -> dict[str, Tensor]:
        """What `divergence` gives where the network's levels are `levels` and the reference's `reference`."""

    @abstractmethod
    def _levels(self, images: list[Tensor]) -> list[Tensor]:
        """What `features` gives."""


def fingerprint(state: Mapping[str, Tensor], rules: object) -> str:
    """Hex digest of weights and of whatever else decides a detector's outputs."""
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    digest.update(repr(rules).encode())
    return digest.hexdigest()


def _large_enough(images: Sequence[Tensor], targets: Sequence[Detections]) -> list[Detections]:
    """Targets beside their images, without those that are too small for a loss."""
    kept = []
    for target, image in zip(targets, images, strict=True):
        there = target.to(image.device)
        extent = there.boxes[:, 2:] - there.boxes[:, :2]
        kept.append(there.where((extent >= SMALLEST_TARGET).all(1)))
    return kept
