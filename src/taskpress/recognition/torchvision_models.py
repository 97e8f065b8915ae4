"""torchvision's detectors by name, with weights from a file or from torchvision itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models import WeightsEnum, detection, get_model_weights
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from taskpress.detections import Category
from taskpress.errors import RecognizerError, suggestion
from taskpress.recognition.coco_categories import COCO_CATEGORIES
from taskpress.recognition.detector_settings import DetectorSettings
from taskpress.recognition.faster_rcnn import FasterRCNN
from taskpress.recognition.frozen_detector import PSEUDO_LABEL_THRESHOLD
from taskpress.recognition.instance_segmentation import InstanceSegmenter
from taskpress.recognition.mask_rcnn import MaskRCNN
from taskpress.recognition.retinanet import RetinaNet
from taskpress.recognition.torchvision_detector import TorchvisionDetector
from taskpress.recognition.weight_files import published_as, read_weights, rows


@dataclass(frozen=True)
class Family:
    """detector: wraps its models; class_weight: whose rows are `rows_per_label` times the labels."""

    title: str
    detector: Callable[..., TorchvisionDetector]
    class_weight: str
    rows_per_label: int


FASTER_RCNN = Family("Faster R-CNN", FasterRCNN, "roi_heads.box_predictor.cls_score.weight", 1)
MASK_RCNN = Family("Mask R-CNN", MaskRCNN, "roi_heads.box_predictor.cls_score.weight", 1)
INSTANCES = Family("Mask R-CNN", InstanceSegmenter, "roi_heads.box_predictor.cls_score.weight", 1)
RETINANET = Family("RetinaNet", RetinaNet, "head.classification_head.cls_logits.weight", 9)

OWN: dict[str, tuple[Family, Callable[..., Any]]] = {
    "fasterrcnn-r50-fpn": (FASTER_RCNN, detection.fasterrcnn_resnet50_fpn),
    "fasterrcnn-r50-fpn-v2": (FASTER_RCNN, detection.fasterrcnn_resnet50_fpn_v2),
    "fasterrcnn-mobilenet-v3-large-fpn": (FASTER_RCNN, detection.fasterrcnn_mobilenet_v3_large_fpn),
    "fasterrcnn-mobilenet-v3-large-320-fpn": (FASTER_RCNN, detection.fasterrcnn_mobilenet_v3_large_320_fpn),
    "maskrcnn-r50-fpn": (MASK_RCNN, detection.maskrcnn_resnet50_fpn),
    "maskrcnn-r50-fpn-v2": (MASK_RCNN, detection.maskrcnn_resnet50_fpn_v2),
    "instance-maskrcnn-r50-fpn": (INSTANCES, detection.maskrcnn_resnet50_fpn),
    "instance-maskrcnn-r50-fpn-v2": (INSTANCES, detection.maskrcnn_resnet50_fpn_v2),
    "retinanet-r50-fpn": (RETINANET, detection.retinanet_resnet50_fpn),
    "retinanet-r50-fpn-v2": (RETINANET, detection.retinanet_resnet50_fpn_v2),
}
"""Models that torchvision builds itself and has weights for."""
RESNETS = {
    "fasterrcnn-r18-fpn": "resnet18",
    "fasterrcnn-r34-fpn": "resnet34",
    "fasterrcnn-r101-fpn": "resnet101",
    "fasterrcnn-r152-fpn": "resnet152",
    "fasterrcnn-x50-fpn": "resnext50_32x4d",
    "torchvision-fasterrcnn-x101-fpn": "resnext101_32x8d",
}
"""Faster R-CNNs of further backbones; weights come from a file. (fasterrcnn-x101-fpn is Detectron2's.)"""
EPS_ZERO = (
    detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
    detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1,
)
"""Weights that torchvision runs with eps = 0 in BatchNorm, so that a file of them must be, too."""


def from_torchvision(
    name: str, weights: str | None = None, settings: DetectorSettings = DetectorSettings()
) -> TorchvisionDetector:
    """A detector by name, e.g. "fasterrcnn-r50-fpn", "retinanet-r50-fpn-v2", "maskrcnn-r50-fpn".

    weights: one of torchvision's own by their name there ("COCO_V1"), downloaded once; or a file with a state
             dict of torchvision's layout (.safetensors, or .pth read without unpickling objects) with any
             number of classes: 91 labels are COCO's category ids as torchvision counts them, 81 COCO's
             classes in a row, K + 1 others "class 1" to "class K". None: torchvision's best.

    Raises RecognizerError for an unknown name, a file that is missing or does not fit, or a failed download.
    """
    if name not in OWN and name not in RESNETS:
        known = [*OWN, *RESNETS]
        raise RecognizerError(f"no detector is named '{name}'; {suggestion(name, known)}")
    family = OWN[name][0] if name in OWN else FASTER_RCNN
    published = _published(name)
    if weights is None or weights in published:
        if not published:
            raise RecognizerError(f"torchvision has no weights for {name}; give a file: {name}:WEIGHTS")
        model, labels = _downloaded(name, published[weights or "DEFAULT"]), 91
    else:
        model, labels = _from_file(name, family, Path(weights), published)
    transform: Any = model.transform
    if settings.shortest_edge is not None:
        transform.min_size = (settings.shortest_edge,)
    if settings.longest_edge is not None:
        transform.max_size = settings.longest_edge
    categories, model_labels = _categories(labels)
    return family.detector(
        model,
        f"{name}{'' if weights is None else f':{weights}'}{settings.suffix}",
        categories,
        model_labels,
        PSEUDO_LABEL_THRESHOLD if settings.threshold is None else settings.threshold,
        settings.crop_scale,
    )


def _published(name: str) -> dict[str, WeightsEnum]:
    if name not in OWN:
        return {}
    return dict(get_model_weights(OWN[name][1]).__members__)


def _downloaded(name: str, weights: WeightsEnum) -> nn.Module:
    try:
        return OWN[name][1](weights=weights, progress=False)
    except (OSError, RuntimeError) as error:
        raise RecognizerError(
            f"torchvision's weights for {name} cannot be downloaded ({error}); download "
            f"{weights.url} elsewhere and give the file: {name}:FILE"
        ) from error


def _from_file(
    name: str, family: Family, path: Path, published: dict[str, WeightsEnum]
) -> tuple[nn.Module, int]:
    if published and not path.exists() and path.name == str(path) and not path.suffix:
        raise RecognizerError(
            f"{name} has no weights '{path}', and no file is called so; torchvision's are "
            f"{', '.join(published)}"
        )
    state = read_weights(path)
    if family.class_weight not in state:
        raise RecognizerError(
            f"{path} is no state dict of torchvision's {family.title}: it lacks {family.class_weight}"
        )
    labels = rows(state, family.class_weight, path) // family.rows_per_label
    model = _untrained(name, labels)
    _fill(model, state, path, name)
    if published_as(path, EPS_ZERO) is not None:
        for module in model.modules():
            if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
                module.eps = 0.0
    return model, labels


def _untrained(name: str, labels: int) -> nn.Module:
    if name in RESNETS:
        backbone = resnet_fpn_backbone(backbone_name=RESNETS[name], weights=None)
        return detection.FasterRCNN(backbone, num_classes=labels)
    return OWN[name][1](weights=None, weights_backbone=None, num_classes=labels)


def _fill(model: nn.Module, state: dict[str, Tensor], path: Path, name: str) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RecognizerError(
            f"{path} does not fit {name}: {reason}; name the model it was trained with"
        ) from error


def _categories(labels: int) -> tuple[tuple[Category, ...], list[int]]:
    if labels == 91:
        return COCO_CATEGORIES, [category.id for category in COCO_CATEGORIES]
    if labels == len(COCO_CATEGORIES) + 1:
        return COCO_CATEGORIES, list(range(1, labels))
    return tuple(Category(number, f"class {number}") for number in range(1, labels)), list(range(1, labels))
