"""Weights of Detectron2's Faster R-CNN: from its checkpoints, or random for rehearsals."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from taskpress.errors import RecognizerError
from taskpress.recognition.detectron2_backbone import Architecture, Bottleneck
from taskpress.recognition.detectron2_boxes import ANCHOR_SIDES, cell_anchors
from taskpress.recognition.detectron2_rcnn import BoxPredictor, Detectron2RCNN, ProposalHead
from taskpress.recognition.weight_files import read_weights, rows

PIXEL_MEAN = (103.530, 116.280, 123.675)
PIXEL_STD = (57.375, 57.120, 58.395)
"""Means and deviations of blue, green and red in 0 … 255, subtracted and divided by."""
EXPECTED = "give a checkpoint of Detectron2's faster_rcnn_X_101_32x8d_FPN_3x"
CLASS_WEIGHT = "roi_heads.box_predictor.cls_score.weight"
COUNTER = re.compile(r"\.norm\.num_batches_tracked$")
"""BatchNorm's count of training steps, which inference does not read."""
RANDOM_BOX_STD = 0.001
RANDOM_CLASS_STD = 0.02


def load_checkpoint(path: Path, architecture: Architecture = Architecture()) -> Detectron2RCNN:
    """A model with the weights of a Detectron2 checkpoint (see `read_weights` for the kinds of file).

    Every key is one of the model's, or a constant that old checkpoints carry along (pixel mean and std, cell
    anchors), which must then be the same here. The number of classes is the file's; all else must have
    the architecture's shapes.

    Raises RecognizerError that names the file and the first key that is missing, not known, of another shape
    or of another value.
    """
    state = read_weights(path)
    if CLASS_WEIGHT in state:
        architecture = dataclasses.replace(architecture, classes=rows(state, CLASS_WEIGHT, path) - 1)
    with torch.device("meta"):
        model = Detectron2RCNN(architecture)
    wanted = model.state_dict()
    constants = _constants()
    chosen: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in wanted:
            if value.shape != wanted[key].shape:
                raise RecognizerError(
                    f"{path}: {key} has shape {list(value.shape)}, this model needs "
                    f"{list(wanted[key].shape)}; {EXPECTED}"
                )
            chosen[key] = value.float().contiguous()
        elif key in constants:
            _same(path, key, value, constants[key])
        elif not COUNTER.search(key):
            raise RecognizerError(f"{path}: {key} is not known in this model; {EXPECTED}")
    missing = [key for key in wanted if key not in chosen]
    if missing:
        raise RecognizerError(
            f"{path} lacks {missing[0]} and {len(missing) - 1} more of {len(wanted)} keys; {EXPECTED}"
        )
    model.load_state_dict(chosen, assign=True)
    return model


def random_model(architecture: Architecture = Architecture(), seed: int = 0) -> Detectron2RCNN:
    """A model with random weights that sees nonsense at a trained one's cost: for rehearsals and tests.

    Normal with variance 2 / fan-in (He et al., ICCV 2015), but small where Detectron2 is: proposal head, box
    deltas. Residual branches are scaled down, since frozen BatchNorm holds nothing back; class logits vary
    widely, so that a rehearsal has confident detections to work with.
    """
    with torch.device("meta"):
        model = Detectron2RCNN(architecture)
    model.to_empty(device="cpu")
    chance = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.fill_(1.0)
            module.bias.zero_()
            module.running_mean.zero_()
            module.running_var.fill_(1.0 - module.eps)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fan = module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan), generator=chance)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Bottleneck):
            module.conv3.norm.weight.fill_(1 / math.sqrt(sum(architecture.blocks)))
        elif isinstance(module, ProposalHead):
            nn.init.normal_(module.objectness_logits.weight, std=0.01, generator=chance)
            nn.init.normal_(module.anchor_deltas.weight, std=0.01, generator=chance)
        elif isinstance(module, BoxPredictor):
            nn.init.normal_(module.cls_score.weight, std=RANDOM_CLASS_STD, generator=chance)
            nn.init.normal_(module.bbox_pred.weight, std=RANDOM_BOX_STD, generator=chance)
    return model


def _constants() -> dict[str, Tensor]:
    anchors = "proposal_generator.anchor_generator.cell_anchors"
    return {
        "pixel_mean": torch.tensor(PIXEL_MEAN),
        "pixel_std": torch.tensor(PIXEL_STD),
        **{f"{anchors}.{level}": cell_anchors(side) for level, side in enumerate(ANCHOR_SIDES)},
    }


def _same(path: Path, key: str, value: Tensor, expected: Tensor) -> None:
    if value.numel() != expected.numel() or not torch.allclose(
        value.float().flatten(), expected.flatten(), rtol=1e-4, atol=1e-3
    ):
        raise RecognizerError(
            f"{path}: {key} is {value.flatten()[:12].tolist()}, this model works with "
            f"{expected.flatten().tolist()}; {EXPECTED}"
        )
