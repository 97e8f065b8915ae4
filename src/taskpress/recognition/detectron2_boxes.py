"""Anchors, box coordinates, and what is kept of proposals and detections, as in Detectron2.

Boxes are x0 y0 x1 y1 in pixels of the network's input; a pixel's centre is at half past its index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image, roi_align

from taskpress.detections import Detections

ANCHOR_SIDES = (32.0, 64.0, 128.0, 256.0, 512.0)
"""Square roots of the anchors' areas on P2 to P6."""
ASPECT_RATIOS = (0.5, 1.0, 2.0)
"""Height over width."""
LARGEST_LOG_SCALE = math.log(1000 / 16)
RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
HEAD_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
RPN_NMS_IOU = 0.7
SCORE_THRESHOLD = 0.05
NMS_IOU = 0.5
MOST_DETECTIONS = 100
POOLED = 7
CANONICAL_SIDE, CANONICAL_LEVEL = 224.0, 4
"""A box of 224×224 pixels is pooled from P4."""
RULES = (RPN_NMS_IOU, SCORE_THRESHOLD, NMS_IOU, MOST_DETECTIONS)


def cell_anchors(side: float) -> Tensor:
    """The three anchors of area side² around the origin: [3, 4]."""
    widths = [math.sqrt(side**2 / ratio) for ratio in ASPECT_RATIOS]
    halves = [(width / 2, width * ratio / 2) for width, ratio in zip(widths, ASPECT_RATIOS, strict=True)]
    return torch.tensor([[-x, -y, x, y] for x, y in halves])


def grid_anchors(size: tuple[int, int], stride: int, side: float, device: torch.device | str) -> Tensor:
    """Anchors of a level of height × width cells: [height · width · 3, 4], row by row, ratio fastest.

    The first cell's anchors lie around the picture's corner, not around the cell's middle (offset 0).
    """
    ys, xs = torch.meshgrid(
        torch.arange(size[0], device=device, dtype=torch.float32) * stride,
        torch.arange(size[1], device=device, dtype=torch.float32) * stride,
        indexing="ij",
    )
    corners = torch.stack([xs, ys, xs, ys], dim=-1).reshape(-1, 1, 4)
    return (corners + cell_anchors(side).to(device)).reshape(-1, 4)


def encode(sources: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """Deltas [n, 4] that `decode` turns sources [n, 4] into boxes [n, 4] with."""
    size, wanted = sources[:, 2:] - sources[:, :2], boxes[:, 2:] - boxes[:, :2]
    shift = (boxes[:, :2] + 0.5 * wanted - sources[:, :2] - 0.5 * size) / size
    return torch.cat([shift, (wanted / size).log()], dim=1) * boxes.new_tensor(weights)


def decode(sources: Tensor, deltas: Tensor, weights: Sequence[float]) -> Tensor:
    """Boxes [..., 4] from sources and deltas [..., 4] (dx dy dw dh): middles move by d · size, sizes by eᵈ.

    A size grows at most 62.5-fold.
    """
    shift, scale = (deltas / deltas.new_tensor(weights)).split(2, dim=-1)
    size = sources[..., 2:] - sources[..., :2]
    middle = sources[..., :2] + 0.5 * size + shift * size
    half = 0.5 * scale.clamp(max=LARGEST_LOG_SCALE).exp() * size
    return torch.cat([middle - half, middle + half], dim=-1)


@torch.no_grad()
def select_proposals(
    anchors: Sequence[Tensor],
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    size: tuple[int, int],
    before: int,
    after: int,
) -> Tensor:
    """Proposals [n, 4] of one picture of `size` (height, width), likeliest first, n ≤ `after`.

    Of each level's anchors [A_l, 4], logits [A_l] and deltas [A_l, 4] the `before` likeliest are decoded and
    clipped to the picture; empty ones go; NMS at IoU 0.7 within each level.
    """
    boxes, scores, levels = [], [], []
    for level, (anchor, logit, delta) in enumerate(zip(anchors, logits, deltas, strict=True)):
        score, index = logit.topk(min(before, len(logit)))
        boxes.append(decode(anchor[index], delta[index], RPN_WEIGHTS))
        scores.append(score)
        levels.append(torch.full_like(index, level))
    box, score, level_of_box = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
    sound = box.isfinite().all(dim=1) & score.isfinite()
    box = clip_boxes_to_image(box, size)
    keep = sound & (box[:, 2:] > box[:, :2]).all(dim=1)
    box, score, level_of_box = box[keep], score[keep], level_of_box[keep]
    return box[batched_nms(box, score, level_of_box, RPN_NMS_IOU)[:after]]


def select_detections(boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> Detections:
    """At most 100 detections of one picture, best first, from R proposals and K classes.

    boxes: [R, K, 4], one per class; scores: [R, K + 1] after the softmax, background last; size: the
    picture's (height, width), to which boxes are clipped. Scores above 0.05 count; NMS at IoU 0.5 per class.
    """
    sound = boxes.isfinite().all(dim=(1, 2)) & scores.isfinite().all(dim=1)
    boxes, scores = clip_boxes_to_image(boxes[sound], size), scores[sound, :-1]
    row, label = (scores > SCORE_THRESHOLD).nonzero(as_tuple=True)
    found = Detections(boxes[row, label], label, scores[row, label])
    return found.where(batched_nms(found.boxes, found.scores, found.labels, NMS_IOU)[:MOST_DETECTIONS])


def level_of(boxes: Tensor, levels: int) -> Tensor:
    """Index of the level [n] that boxes [n, 4] are pooled from, 0 being P2 (FPN, eq. 1)."""
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
    level = torch.floor(CANONICAL_LEVEL + torch.log2(sides / CANONICAL_SIDE + 1e-8))
    return (level - 2).clamp(0, levels - 1).long()


def pool(levels: Sequence[Tensor], strides: Sequence[int], boxes: Sequence[Tensor]) -> Tensor:
    """Aligned RoIAlign: [R, C, 7, 7] from levels [B, C, h_l, w_l] and B times boxes [R_b, 4].

    Each bin averages ⌈its side⌉² samples (sampling ratio 0).
    """
    everything = torch.cat(list(boxes))
    picture = torch.cat([box.new_full((len(box), 1), float(index)) for index, box in enumerate(boxes)])
    regions = torch.cat([picture, everything], dim=1)
    level_index = level_of(everything, len(levels))
    pooled = levels[0].new_zeros(len(regions), levels[0].shape[1], POOLED, POOLED)
    for index, (level, stride) in enumerate(zip(levels, strides, strict=True)):
        chosen = (level_index == index).nonzero().squeeze(1)
        pooled = pooled.index_put(
            (chosen,),
            roi_align(level, regions[chosen], POOLED, 1 / stride, sampling_ratio=0, aligned=True),
        )
    return pooled
