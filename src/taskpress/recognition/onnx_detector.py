"""Any detector exported to ONNX in YOLOX's output layout, frozen, with gradients reaching the image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from taskpress.detections import Category, Detections
from taskpress.errors import RecognizerError
from taskpress.recognition.coco_categories import COCO_CATEGORIES
from taskpress.recognition.device import full_precision
from taskpress.recognition.letterbox import Placement, fitted_size, letterbox, to_detector_pixels
from taskpress.recognition.protocol import Task, freeze
from taskpress.recognition.yolox_graph import STRIDES, read_network
from taskpress.recognition.yolox_loss import Cells, decode, yolox_divergence, yolox_loss

SCORE_THRESHOLD = 0.01
NMS_IOU = 0.65
MOST_DETECTIONS = 100
PSEUDO_LABEL_THRESHOLD = 0.3
MOST_AT_ONCE = 8
"""Pictures in one forward pass of `predict`; bounds memory however many are passed."""


class OnnxDetector(nn.Module):
    """A frozen detector of YOLOX's layout from an ONNX file; a `Recognizer`.

    Two ways a picture comes onto the network's canvas, whose side S the file states:

    - `predict` and `pseudo_labels`: long side scaled to S, padded to S×S. At long side S nothing is
      resampled.
    - `loss` and `features`: a picture no larger than S×S is not scaled, and padded only to the next multiple
      of 32, so that a training crop costs its own size and its objects keep the scale the detector sees at
      evaluation. A larger picture is scaled as above. Files that take only S×S get that canvas.

    path: an ONNX file; see `yolox_graph` for the layout. Raises RecognizerError for anything else.
    categories: names of the file's K classes; by default COCO's for K = 80, else "class 1" to "class K".
    pseudo_label_threshold: lowest score of a pseudo-label, in [0, 1]
    """

    task = Task.DETECTION

    def __init__(
        self,
        path: str | Path,
        categories: Sequence[Category] | None = None,
        pseudo_label_threshold: float = PSEUDO_LABEL_THRESHOLD,
    ) -> None:
        super().__init__()
        path = Path(path)
        if not 0 <= pseudo_label_threshold <= 1:
            raise RecognizerError(
                f"{path}: a pseudo-label threshold of {pseudo_label_threshold} is no score; give 0 to 1"
            )
        self.pseudo_label_threshold = pseudo_label_threshold
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RecognizerError(
                f"cannot read the recognizer {path}: {error.strerror}; name an ONNX file that exists"
            ) from error
        self.network = read_network(path, data)
        self.name = f"onnx:{path.name}"
        self.size = self.network.size
        classes = self.network.classes
        if categories is None:
            numbered = tuple(Category(index + 1, f"class {index + 1}") for index in range(classes))
            categories = COCO_CATEGORIES if classes == len(COCO_CATEGORIES) else numbered
        if len(categories) != classes:
            raise RecognizerError(f"{path} has {classes} classes but {len(categories)} categories were given")
        self.categories = tuple(categories)
        rules = f"{SCORE_THRESHOLD} {NMS_IOU} {MOST_DETECTIONS} {pseudo_label_threshold}"
        self.fingerprint = hashlib.sha256(hashlib.sha256(data).digest() + rules.encode()).hexdigest()
        freeze(self)

    def train(self, mode: bool = True) -> OnnxDetector:
        super().train(False)
        return self

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor]) -> list[Detections]:
        """All detections with objectness × class score of at least 0.01, after class-wise NMS at IoU 0.65.

        images: [3, H, W] float in [0, 1], RGB, any sizes. Returns at most 100 each, best first, boxes in the
        pixels of their image and clipped to it.
        """
        found: list[Detections] = []
        for start in range(0, len(images), MOST_AT_ONCE):
            found += self._predict_few(images[start : start + MOST_AT_ONCE])
        return found

    def pseudo_labels(self, images: Sequence[Tensor]) -> list[Detections]:
        """The detections of `predict` with a score of at least `pseudo_label_threshold`."""
        return self._confident(self.predict(images))

    @torch.no_grad()
    def crop_labels(self, images: Sequence[Tensor] | Tensor) -> list[Detections]:
        """The same of crops of one size, as `loss` sees them: at their own scale."""
        canvas, placement = self._batch(images)
        with full_precision(canvas):
            cells = self._cells(canvas)
        return self._confident([_found(cells, i, placement, image) for i, image in enumerate(images)])

    def _confident(self, found: list[Detections]) -> list[Detections]:
        return [one.where(one.scores >= self.pseudo_label_threshold) for one in found]

    def loss(self, images: Sequence[Tensor] | Tensor, targets: Sequence[Detections]) -> dict[str, Tensor]:
        """YOLOX's training loss (see `yolox_loss`): scalars `box`, `objectness`, `classes`.

        images: [B, 3, H, W] or B times [3, H, W], nominally in [0, 1]; targets in their pixels.
        """
        canvas, placement = self._batch(images)
        with full_precision(canvas):
            moved = [target.to(canvas.device).scaled(*placement) for target in targets]
            return yolox_loss(self._cells(canvas), moved)

    def divergence(
        self, images: Sequence[Tensor] | Tensor, reference: Sequence[Tensor] | Tensor
    ) -> dict[str, Tensor]:
        """How far its outputs are from those on `reference` (see `yolox_divergence`); both as in `loss`."""
        canvas, _ = self._batch(images)
        with full_precision(canvas):
            with torch.no_grad():
                wanted = self._cells(self._batch(reference)[0])
            return yolox_divergence(self._cells(canvas), wanted)

    def loss_of_features(
        self, images: Sequence[Tensor] | Tensor, features: Sequence[Tensor], targets: Sequence[Detections]
    ) -> dict[str, Tensor]:
        """What `loss` gives if `features(images)` were `features`; differentiable in these alone."""
        canvas, placement = self._batch(images)
        with full_precision(canvas):
            moved = [target.to(canvas.device).scaled(*placement) for target in targets]
            maps = self.network.maps_of([stem.float() for stem in features])
            return yolox_loss(decode(maps, STRIDES), moved)

    def divergence_of_features(
        self, images: Sequence[Tensor] | Tensor, features: Sequence[Tensor], reference: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """What `divergence` gives if the layers were `features`, and `reference` those of its reference."""
        with full_precision(features[0]):
            found, wanted = (
                decode(self.network.maps_of([stem.float() for stem in stems]), STRIDES)
                for stems in (features, reference)
            )
            return yolox_divergence(found, wanted)

    def features(self, images: Sequence[Tensor] | Tensor) -> list[Tensor]:
        """Activations of the head's stems: [B, C, h / s, w / s] for s = 8, 16, 32 of the canvas h×w.

        A stem is the convolution with which each level of the head starts; what it gives is the last that the
        class tower and the box tower share, so all that the detector says comes from these three tensors.
        Raises RecognizerError where the graph is built in another way.
        """
        canvas, _ = self._batch(images)
        with full_precision(canvas):
            return self.network.stems(to_detector_pixels(canvas))

    def pads(self, side: int) -> bool:
        """Whether `features` of a square picture of `side` pixels show padding right of and below it."""
        canvas, placement = self._batch(torch.zeros(1, 3, side, side))
        return canvas.shape[-1] != round(side * placement.scale_x)

    def _batch(self, images: Sequence[Tensor] | Tensor) -> tuple[Tensor, Placement]:
        batch = images if isinstance(images, Tensor) else torch.stack(list(images))
        batch = batch.float()
        height, width = batch.shape[-2:]
        size = (height, width)
        if max(size) > self.size:
            size = fitted_size(height, width, self.size)
        if self.network.any_size:
            canvas = (-(-size[0] // 32) * 32, -(-size[1] // 32) * 32)
        else:
            canvas = (self.size, self.size)
        return letterbox(batch, size, canvas)

    def _cells(self, canvas: Tensor) -> Cells:
        return decode(self.network(to_detector_pixels(canvas)), STRIDES)

    def _predict_few(self, images: Sequence[Tensor]) -> list[Detections]:
        placed = [
            letterbox(
                image.float(),
                fitted_size(image.shape[-2], image.shape[-1], self.size),
                (self.size, self.size),
            )
            for image in images
        ]
        canvas = torch.stack([one for one, _ in placed])
        with full_precision(canvas):
            cells = self._cells(canvas)
        return [
            _found(cells, index, placement, image)
            for index, (image, (_, placement)) in enumerate(zip(images, placed, strict=True))
        ]


def _found(cells: Cells, index: int, placement: Placement, image: Tensor) -> Detections:
    """What the cells of canvas `index` show, after class-wise NMS, in the pixels of the image on it."""
    scores = cells.objectness[index, :, None] * cells.classes[index]
    rows, labels = (scores >= SCORE_THRESHOLD).nonzero(as_tuple=True)
    candidates = Detections(cells.boxes[index, rows], labels, scores[rows, labels])
    kept = batched_nms(candidates.boxes, candidates.scores, candidates.labels, NMS_IOU)[:MOST_DETECTIONS]
    detections = candidates.where(kept).scaled(1 / placement.scale_x, 1 / placement.scale_y)
    height, width = image.shape[-2:]
    boxes = clip_boxes_to_image(detections.boxes, (height, width))
    clipped = Detections(boxes, detections.labels, detections.scores)
    return clipped.where((boxes[:, 2:] > boxes[:, :2]).all(1))
