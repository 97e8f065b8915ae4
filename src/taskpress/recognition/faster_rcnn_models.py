"""Builds torchvision's Faster R-CNNs by name, with weights from a file or from torchvision itself."""

from __future__ import annotations

import difflib
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor
from torchvision.models import detection
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from taskpress.coding.errors import RecognizerError
from taskpress.detections import Category
from taskpress.recognition.coco_categories import COCO_CATEGORIES

OWN = {
    "fasterrcnn-r50-fpn": detection.fasterrcnn_resnet50_fpn,
    "fasterrcnn-r50-v2-fpn": detection.fasterrcnn_resnet50_fpn_v2,
    "fasterrcnn-mobilenet-v3-large-fpn": detection.fasterrcnn_mobilenet_v3_large_fpn,
    "fasterrcnn-mobilenet-v3-large-320-fpn": detection.fasterrcnn_mobilenet_v3_large_320_fpn,
}
"""Models that torchvision builds itself and has weights for."""
RESNETS = {
    "fasterrcnn-r18-fpn": "resnet18",
    "fasterrcnn-r34-fpn": "resnet34",
    "fasterrcnn-r101-fpn": "resnet101",
    "fasterrcnn-r152-fpn": "resnet152",
    "fasterrcnn-x50-fpn": "resnext50_32x4d",
    "fasterrcnn-x101-fpn": "resnext101_32x8d",
}
"""Further backbones; weights come from a file."""
TORCHVISION_EPS_ZERO = "258fb6c6"
"""SHA-256 prefix of the weight file that torchvision runs with eps = 0 in frozen BatchNorm (r50, COCO_V1)."""
CLASS_WEIGHT = "roi_heads.box_predictor.cls_score.weight"


def build(
    name: str, weights: str | Path | None
) -> tuple[TorchvisionFasterRCNN, tuple[Category, ...], list[int]]:
    """The model that `name` and `weights` name, its categories, and the model's label of each.

    name:    e.g. "fasterrcnn-r50-fpn", "fasterrcnn-mobilenet-v3-large-fpn", "fasterrcnn-x101-fpn"
    weights: a state dict of torchvision's layout (.safetensors, or .pth read without unpickling objects) with
             any number of classes: 91 labels are COCO's category ids as torchvision counts them, 81 COCO's
             classes in a row, K + 1 others "class 1" to "class K".
             None: torchvision's own COCO weights, downloaded once.

    Raises RecognizerError for an unknown name, a file that is missing or does not fit, or a failed download.
    """
    if name not in OWN and name not in RESNETS:
        known = [*OWN, *RESNETS]
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise RecognizerError(f"no Faster R-CNN is named '{name}'; {hint}(known: {', '.join(known)})")
    if weights is None:
        model = _downloaded(name)
        labels = model.roi_heads.box_predictor.cls_score.out_features
    else:
        path = Path(weights)
        data = _read(path)
        state = _state_dict(path, data)
        labels = len(state[CLASS_WEIGHT])
        model = _untrained(name, labels)
        _fill(model, state, path, name)
        if hashlib.sha256(data).hexdigest().startswith(TORCHVISION_EPS_ZERO):
            for module in model.modules():
                if isinstance(module, FrozenBatchNorm2d):
                    module.eps = 0.0
    return model, *_categories(labels)


def _categories(labels: int) -> tuple[tuple[Category, ...], list[int]]:
    if labels == 91:
        return COCO_CATEGORIES, [category.id for category in COCO_CATEGORIES]
    if labels == len(COCO_CATEGORIES) + 1:
        return COCO_CATEGORIES, list(range(1, labels))
    return tuple(Category(number, f"class {number}") for number in range(1, labels)), list(range(1, labels))


def _downloaded(name: str) -> TorchvisionFasterRCNN:
    if name not in OWN:
        raise RecognizerError(f"torchvision has no weights for {name}; give a file: {name}:WEIGHTS")
    try:
        return OWN[name](weights="DEFAULT", progress=False)
    except (OSError, RuntimeError) as error:
        raise RecognizerError(
            f"torchvision's weights for {name} cannot be downloaded ({error}); give a file: {name}:WEIGHTS"
        ) from error


def _untrained(name: str, labels: int) -> TorchvisionFasterRCNN:
    if name not in OWN:
        backbone = resnet_fpn_backbone(backbone_name=RESNETS[name], weights=None)
        return TorchvisionFasterRCNN(backbone, num_classes=labels)
    make: Callable[..., TorchvisionFasterRCNN] = OWN[name]
    return make(weights=None, weights_backbone=None, num_classes=labels)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecognizerError(
            f"cannot read the weights {path}: {error.strerror}; name a file that exists"
        ) from error


def _state_dict(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        content: Any
        if path.suffix == ".safetensors":
            content = load_safetensors(data)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise RecognizerError(
            f"{path} holds no weights that can be read safely; give a .safetensors file or a .pth state dict"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not isinstance(content.get(CLASS_WEIGHT), Tensor):
        raise RecognizerError(
            f"{path} is no state dict of torchvision's Faster R-CNN: it lacks {CLASS_WEIGHT}"
        )
    return content


def _fill(model: TorchvisionFasterRCNN, state: dict[str, Tensor], path: Path, name: str) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RecognizerError(
            f"{path} does not fit {name}: {reason}; name the backbone it was trained with"
        ) from error
