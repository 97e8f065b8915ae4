"""Detectron2's Faster R-CNN with a feature pyramid: proposals, two-layer box head, detections.

Ren et al., "Faster R-CNN", NeurIPS 2015; configuration COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x. Every
name is a key of Detectron2's checkpoints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taskpress.detections import Detections
from taskpress.recognition.detectron2_backbone import STRIDES, Architecture, FeaturePyramid
from taskpress.recognition.detectron2_boxes import (
    ANCHOR_SIDES,
    ASPECT_RATIOS,
    HEAD_WEIGHTS,
    POOLED,
    decode,
    grid_anchors,
    pool,
    select_detections,
    select_proposals,
)

TEST_TOP_K = (1000, 1000)
TRAINING_TOP_K = (2000, 1000)
"""Proposals kept per level before NMS, and per picture after it."""


class Candidates(NamedTuple):
    """What the proposal head says of every anchor, a list of levels P2 to P6 each.

    anchors: [A_l, 4] pixels; logits: [B, A_l]; deltas: [B, A_l, 4]
    """

    anchors: list[Tensor]
    logits: list[Tensor]
    deltas: list[Tensor]

    def proposals(self, sizes: list[tuple[int, int]], top_k: tuple[int, int]) -> list[Tensor]:
        """Proposals [n, 4] of each picture, without gradients; see `select_proposals`."""
        return [
            select_proposals(
                self.anchors,
                [level[index] for level in self.logits],
                [level[index] for level in self.deltas],
                size,
                *top_k,
            )
            for index, size in enumerate(sizes)
        ]


class ProposalHead(nn.Module):
    """A level [B, C, h, w] to logits [B, h · w · 3] and deltas [B, h · w · 3, 4], ratio fastest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness_logits = nn.Conv2d(channels, len(ASPECT_RATIOS), 1)
        self.anchor_deltas = nn.Conv2d(channels, 4 * len(ASPECT_RATIOS), 1)

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu_(self.conv(level))
        logits = self.objectness_logits(x).permute(0, 2, 3, 1).flatten(1)
        # Four neighbouring channels belong to one anchor.
        return logits, self.anchor_deltas(x).permute(0, 2, 3, 1).reshape(len(level), -1, 4)


class BoxHead(nn.Module):
    """Pooled features [R, C, 7, 7] to [R, hidden]."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * POOLED**2, hidden)
        self.fc2 = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.fc2(F.relu_(self.fc1(x.flatten(1)))))


class BoxPredictor(nn.Module):
    """[R, hidden] to class logits [R, K + 1], background last, and deltas [R, K, 4], one box per class."""

    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(hidden, classes + 1)
        self.bbox_pred = nn.Linear(hidden, 4 * classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x).unflatten(1, (-1, 4))


class Detectron2RCNN(nn.Module):
    """Faster R-CNN on normalized canvases [B, 3, H, W], H and W multiples of 32, padded below and right.

    `sizes` are the pictures' own (height, width) on the canvas; what lies beyond is clipped.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = FeaturePyramid(architecture)
        self.proposal_generator = nn.ModuleDict({"rpn_head": ProposalHead(architecture.pyramid)})
        self.roi_heads = nn.ModuleDict(
            {
                "box_head": BoxHead(architecture.pyramid, architecture.hidden),
                "box_predictor": BoxPredictor(architecture.hidden, architecture.classes),
            }
        )

    def propose(self, levels: list[Tensor]) -> Candidates:
        """Anchors of P2 to P6 and what the proposal head says of them."""
        anchors = [
            grid_anchors((level.shape[-2], level.shape[-1]), stride, side, level.device)
            for level, stride, side in zip(levels, STRIDES, ANCHOR_SIDES, strict=True)
        ]
        outputs = [self.proposal_generator["rpn_head"](level) for level in levels]
        return Candidates(anchors, [logits for logits, _ in outputs], [deltas for _, deltas in outputs])

    def classify(self, levels: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits [R, K + 1] and deltas [R, K, 4] of all boxes of all pictures, pooled from P2 to P5."""
        pooled = pool(levels[:4], STRIDES[:4], boxes)
        return self.roi_heads["box_predictor"](self.roi_heads["box_head"](pooled))

    def forward(self, canvas: Tensor, sizes: list[tuple[int, int]]) -> list[Detections]:
        """Detections in pixels of the canvas, at most 100 a picture, best first; see `select_detections`."""
        levels = self.backbone(canvas)
        proposals = self.propose(levels).proposals(sizes, TEST_TOP_K)
        logits, deltas = self.classify(levels, proposals)
        boxes = decode(torch.cat(proposals)[:, None], deltas, HEAD_WEIGHTS)
        counts = [len(few) for few in proposals]
        pieces = zip(boxes.split(counts), logits.softmax(dim=1).split(counts), sizes, strict=True)
        return [select_detections(*piece) for piece in pieces]
