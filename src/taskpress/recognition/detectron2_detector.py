"""Detectron2's Faster R-CNN X101-FPN, the recognizer of Iino et al., as a frozen recognizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from taskpress.detections import Category, Detections
from taskpress.errors import RecognizerError
from taskpress.recognition.coco_categories import COCO_CATEGORIES
from taskpress.recognition.detector_settings import DetectorSettings
from taskpress.recognition.detectron2_boxes import RULES
from taskpress.recognition.detectron2_loss import rcnn_losses
from taskpress.recognition.detectron2_rcnn import TEST_TOP_K, Candidates, Detectron2RCNN
from taskpress.recognition.detectron2_weights import PIXEL_MEAN, PIXEL_STD, load_checkpoint, random_model
from taskpress.recognition.divergence import TwoStageOutputs, two_stage_divergence
from taskpress.recognition.frozen_detector import PSEUDO_LABEL_THRESHOLD, FrozenDetector, fingerprint
from taskpress.recognition.letterbox import resize, to_detector_pixels
from taskpress.recognition.protocol import freeze

SHORTEST_EDGE, LONGEST_EDGE = 800, 1333
DIVISOR = 32
MOST_AT_ONCE = 2
"""At 800×1333 a picture's activations in X101 take gigabytes."""


class Detectron2FasterRCNN(FrozenDetector):
    """A frozen Faster R-CNN with Detectron2's weights and rules; a `Recognizer`.

    A picture's short side is scaled to `shortest_edge` pixels, or its long side to `longest_edge` where it
    would come out longer; see `crop_scale` in `FrozenDetector` for training crops. `features` are P2 to P5
    (P6 is every second position of P5); `loss` gives Detectron2's four losses, see `rcnn_losses`.

    model:      see `load_checkpoint`, `random_model`
    categories: what its classes mean; by default COCO's for 80 classes, else "class 1" to "class K"
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Detectron2RCNN,
        name: str,
        categories: Sequence[Category] | None = None,
        shortest_edge: int = SHORTEST_EDGE,
        longest_edge: int = LONGEST_EDGE,
        pseudo_label_threshold: float = PSEUDO_LABEL_THRESHOLD,
        crop_scale: float | None = None,
    ) -> None:
        classes = model.architecture.classes
        if categories is None:
            numbered = [Category(number, f"class {number}") for number in range(1, classes + 1)]
            categories = COCO_CATEGORIES if classes == len(COCO_CATEGORIES) else numbered
        if len(categories) != classes:
            raise RecognizerError(f"{name} has {classes} classes, {len(categories)} categories were given")
        super().__init__(name, categories, pseudo_label_threshold, crop_scale, MOST_AT_ONCE)
        self.model = model
        self.shortest_edge = shortest_edge
        self.longest_edge = longest_edge
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)
        freeze(self)
        rules = (*RULES, shortest_edge, longest_edge, pseudo_label_threshold, crop_scale)
        self.fingerprint = fingerprint(model.state_dict(), rules)

    def pads(self, side: int) -> bool:
        return any(length % DIVISOR for length in self._training_size(self.mean.new_zeros(3, side, side)))

    def _detect(self, images: list[Tensor], crops: bool) -> list[Detections]:
        size = self._training_size(images[0]) if crops else self._whole_size(images[0])
        found = self.model(self._canvas(images, size), [size] * len(images))
        return [_in_picture(one, image, size) for one, image in zip(found, images, strict=True)]

    def _losses(
        self, images: list[Tensor], targets: list[Detections], levels: list[Tensor]
    ) -> dict[str, Tensor]:
        size = self._training_size(images[0])
        height, width = images[0].shape[-2:]
        given = [target.scaled(size[1] / width, size[0] / height) for target in targets]
        return rcnn_losses(self.model, _with_coarsest(levels), [size] * len(images), given)

    def _divergence(
        self, images: list[Tensor], levels: list[Tensor], reference: list[Tensor]
    ) -> dict[str, Tensor]:
        """See `two_stage_divergence`; both are held on the reference's proposals."""
        sizes = [self._training_size(images[0])] * len(images)
        with torch.no_grad():
            wanted_levels = _with_coarsest(reference)
            candidates = self.model.propose(wanted_levels)
            proposals = candidates.proposals(sizes, TEST_TOP_K)
            wanted = self._outputs(wanted_levels, candidates, proposals)
        levels = _with_coarsest(levels)
        return two_stage_divergence(self._outputs(levels, self.model.propose(levels), proposals), wanted)

    def _outputs(
        self, levels: list[Tensor], candidates: Candidates, proposals: list[Tensor]
    ) -> TwoStageOutputs:
        logits, deltas = self.model.classify(levels, proposals)
        return TwoStageOutputs(
            torch.cat(candidates.logits, dim=1).flatten(),
            torch.cat(candidates.deltas, dim=1).flatten(0, 1),
            logits[:, -1],
            logits[:, :-1],
            deltas,
        )

    def _levels(self, images: list[Tensor]) -> list[Tensor]:
        return self.model.backbone(self._canvas(images, self._training_size(images[0])))[:4]

    def _whole_size(self, image: Tensor) -> tuple[int, int]:
        return shortest_edge_size(image, self.shortest_edge, self.longest_edge)

    def _training_size(self, image: Tensor) -> tuple[int, int]:
        if self.crop_scale is None:
            return self._whole_size(image)
        height, width = image.shape[-2:]
        return max(1, int(height * self.crop_scale + 0.5)), max(1, int(width * self.crop_scale + 0.5))

    def _canvas(self, images: list[Tensor], size: tuple[int, int]) -> Tensor:
        batch = to_detector_pixels(resize(torch.stack(images), size))
        batch = (batch - self.mean) / self.std
        return F.pad(batch, (0, -size[1] % DIVISOR, 0, -size[0] % DIVISOR))


def load_detectron2(
    name: str, weights: str | None, settings: DetectorSettings = DetectorSettings()
) -> Detectron2FasterRCNN:
    """Detectron2's faster_rcnn_X_101_32x8d_FPN_3x.

    weights: its checkpoint in the model zoo (`model_final_68b088.pkl`), or a .pth or .safetensors of that
             layout; or "random" (seed 0), which says so in its name and fingerprint.

    Raises RecognizerError where weights are missing or do not fit.
    """
    if weights is None:
        raise RecognizerError(
            f"{name} needs weights: give {name}:FILE with Detectron2's checkpoint of "
            f"faster_rcnn_X_101_32x8d_FPN_3x (.pkl or .pth), or {name}:random for a rehearsal"
        )
    model = random_model() if weights == "random" else load_checkpoint(Path(weights))
    return Detectron2FasterRCNN(
        model,
        f"{name}:{weights}{settings.suffix}",
        shortest_edge=SHORTEST_EDGE if settings.shortest_edge is None else settings.shortest_edge,
        longest_edge=LONGEST_EDGE if settings.longest_edge is None else settings.longest_edge,
        pseudo_label_threshold=PSEUDO_LABEL_THRESHOLD if settings.threshold is None else settings.threshold,
        crop_scale=settings.crop_scale,
    )


def shortest_edge_size(image: Tensor, shortest: int, longest: int) -> tuple[int, int]:
    """Height and width that Detectron2's ResizeShortestEdge gives a picture [..., H, W]; halves round up."""
    height, width = image.shape[-2:]
    scale = shortest / min(height, width)
    new_height, new_width = (shortest, scale * width) if height < width else (scale * height, shortest)
    if max(new_height, new_width) > longest:
        scale = longest / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def _with_coarsest(levels: list[Tensor]) -> list[Tensor]:
    """P2 to P6 of P2 to P5."""
    return [*levels, F.max_pool2d(levels[-1], 1, 2)]


def _in_picture(found: Detections, image: Tensor, size: tuple[int, int]) -> Detections:
    height, width = image.shape[-2:]
    found = found.scaled(width / size[1], height / size[0])
    boxes = found.boxes.clamp(min=0)
    boxes = torch.minimum(boxes, boxes.new_tensor([width, height, width, height]))
    found = Detections(boxes, found.labels, found.scores)
    return found.where((boxes[:, 2:] > boxes[:, :2]).all(dim=1))
