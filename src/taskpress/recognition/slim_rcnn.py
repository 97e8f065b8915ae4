"""The shipped `scenes` recognizer's architecture: Faster R-CNN (Ren et al., NeurIPS 2015), slim enough
for a CPU.

image ─ stem /2 ─ stage /4 ─ stage /8 ── stage /16 ── stage /32
                               │C3          │C4           │C5
                               └─ FPN (Lin et al., CVPR 2017), 64 wide ──► RPN, RoIAlign 7×7, two-layer head
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from taskpress.errors import RecognizerError

WIDTHS = (24, 48, 80, 144, 192)
DEPTHS = (1, 2, 2, 1)
DEEPEST = 32
PYRAMID, HIDDEN = 64, 256
ANCHORS = ((22, 32), (46, 66), (94, 134))
IMAGE_SIZE = 256


class Residual(nn.Module):
    """Two 3×3 convolutions around an identity (He et al., CVPR 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class SlimBackbone(nn.Module):
    """[B, 3, H, W] to an ordered dict of [B, 64, H/8, W/8], [B, 64, H/16, W/16], [B, 64, H/32, W/32].

    deeper:  how many times as many residual blocks; the longest way has 17 convolutions with 1, 101 with 8
    """

    out_channels = PYRAMID

    def __init__(self, deeper: int = 1) -> None:
        super().__init__()
        self.stem = _halve(3, WIDTHS[0])
        self.stages = nn.ModuleList(
            nn.Sequential(_halve(wide, wider), *[Residual(wider) for _ in range(deeper * depth)])
            for wide, wider, depth in zip(WIDTHS[:-1], WIDTHS[1:], DEPTHS, strict=True)
        )
        self.pyramid = FeaturePyramidNetwork(list(WIDTHS[2:]), PYRAMID)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        x = self.stem(x)
        levels: OrderedDict[str, Tensor] = OrderedDict()
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number > 0:
                levels[str(number - 1)] = x
        return self.pyramid(levels)


def _halve(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def slim_rcnn(classes: int, image_size: int = IMAGE_SIZE, deeper: int = 1) -> TorchvisionFasterRCNN:
    """An untrained slim Faster R-CNN for `classes` classes beside background, initialized from torch's seed.

    `deeper` as in `SlimBackbone`, 1 … 32. RecognizerError beyond that.

    Images of `image_size` pixels square pass unscaled; others are scaled to that short side.
    """
    if not 1 <= deeper <= DEEPEST:
        raise RecognizerError(f"a slim Faster R-CNN {deeper} times as deep: give 1 … {DEEPEST}")
    backbone = SlimBackbone(deeper)
    levels = ["0", "1", "2"]
    anchors = AnchorGenerator(ANCHORS, ((1.0,),) * len(levels))
    pool = MultiScaleRoIAlign(levels, output_size=7, sampling_ratio=2, canonical_scale=112, canonical_level=4)
    return TorchvisionFasterRCNN(
        backbone,
        min_size=image_size,
        max_size=2 * image_size,
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=400,
        rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_train=200,
        rpn_post_nms_top_n_test=100,
        rpn_fg_iou_thresh=0.6,
        rpn_batch_size_per_image=128,
        box_roi_pool=pool,
        box_head=TwoMLPHead(PYRAMID * 7 * 7, HIDDEN),
        box_predictor=FastRCNNPredictor(HIDDEN, classes + 1),
        box_batch_size_per_image=64,
        box_positive_fraction=0.35,
    )
