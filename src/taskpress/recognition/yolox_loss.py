"""YOLOX's losses: its own, with hard targets (SimOTA assignment, IoU on boxes, cross entropy on scores), and
one between its outputs on two images, cell by cell.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv:2107.08430. Assignment: a cell is a candidate for an
object where its centre is within 1.5 cells of the object's; of these, the k cheapest are the object's, k
being the sum of its ten best overlaps. A cell that two objects want goes to the one it is cheaper for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from taskpress.detections import Detections

CENTER_RADIUS = 1.5
TOP_OVERLAPS = 10
IOU_COST = 3.0
BOX_WEIGHT = 5.0
OUTSIDE_COST = 1e6
LARGEST_LOG_SIZE = 10.0
"""A box side is at most e¹⁰ cells: pictures unlike any photograph must not turn the loss into infinities."""


class Cells(NamedTuple):
    """All cells of all levels, A in number, in the detector's order.

    boxes:      [B, A, 4] x0 y0 x1 y1 in pixels of the canvas
    objectness: [B, A] in [0, 1]
    classes:    [B, A, K] in [0, 1]
    centers:    [A, 2] x y in pixels of the canvas
    strides:    [A] pixels
    """

    boxes: Tensor
    objectness: Tensor
    classes: Tensor
    centers: Tensor
    strides: Tensor


class Assignment(NamedTuple):
    """Which cells are positive and for which object.

    cells:   [P] int64, indices of positive cells, ascending
    objects: [P] int64, the object each of them belongs to
    """

    cells: Tensor
    objects: Tensor


def decode(maps: Sequence[Tensor], strides: Sequence[int]) -> Cells:
    """Maps [B, 5 + K, h, w] of raw boxes and probabilities, one for each stride, to cells."""
    boxes, objectness, classes, centers, cell_strides = [], [], [], [], []
    for level, stride in zip(maps, strides, strict=True):
        height, width = level.shape[-2:]
        ys, xs = torch.meshgrid(
            torch.arange(height, device=level.device, dtype=level.dtype),
            torch.arange(width, device=level.device, dtype=level.dtype),
            indexing="ij",
        )
        corner = torch.stack([xs, ys], dim=-1).reshape(-1, 2)
        rows = level.flatten(2).transpose(1, 2)
        middle = (rows[..., 0:2] + corner) * stride
        half = rows[..., 2:4].clamp(max=LARGEST_LOG_SIZE).exp() * (stride / 2)
        boxes.append(torch.cat([middle - half, middle + half], dim=-1))
        objectness.append(rows[..., 4])
        classes.append(rows[..., 5:])
        centers.append((corner + 0.5) * stride)
        cell_strides.append(corner.new_full((len(corner),), float(stride)))
    return Cells(
        torch.cat(boxes, 1),
        torch.cat(objectness, 1),
        torch.cat(classes, 1),
        torch.cat(centers),
        torch.cat(cell_strides),
    )


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box in a [n, 4] with every box in b [m, 4]: [n, m]."""
    top_left = torch.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    areas = (a[:, 2:] - a[:, :2]).prod(dim=1)[:, None] + (b[:, 2:] - b[:, :2]).prod(dim=1)[None]
    return shared / (areas - shared).clamp(min=1e-9)


def iou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - IoU² of box pairs [P, 4], [P, 4]: [P] in [0, 1], as YOLOX trains its boxes."""
    top_left = torch.maximum(boxes[:, :2], targets[:, :2])
    bottom_right = torch.minimum(boxes[:, 2:], targets[:, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) + (targets[:, 2:] - targets[:, :2]).prod(dim=1)
    return 1 - (shared / (areas - shared).clamp(min=1e-9)) ** 2


@torch.no_grad()
def assign(
    boxes: Tensor, objectness: Tensor, classes: Tensor, centers: Tensor, strides: Tensor, target: Detections
) -> Assignment:
    """SimOTA for one image: boxes [A, 4], objectness [A], classes [A, K], centers [A, 2], strides [A].

    Both of an object's ends are free: it may get no cell only where a cheaper object takes all it wants.
    """
    nothing = torch.zeros(0, dtype=torch.int64, device=boxes.device)
    if len(target) == 0:
        return Assignment(nothing, nothing)
    middles = (target.boxes[:, :2] + target.boxes[:, 2:]) / 2
    offset = (centers[None] - middles[:, None]).abs().amax(dim=2)
    near = offset < CENTER_RADIUS * strides[None]
    candidates = near.any(dim=0).nonzero().squeeze(1)
    if len(candidates) == 0:
        return Assignment(nothing, nothing)

    overlap = pairwise_iou(target.boxes, boxes[candidates])
    joint = (classes[candidates] * objectness[candidates, None]).sqrt()
    wanted = F.one_hot(target.labels, classes.shape[1]).to(joint.dtype)
    absent = F.binary_cross_entropy(joint, torch.zeros_like(joint), reduction="none")
    present = F.binary_cross_entropy(joint, torch.ones_like(joint), reduction="none")
    class_cost = absent.sum(dim=1)[None] + wanted @ (present - absent).T
    cost = class_cost - IOU_COST * (overlap + 1e-8).log() + OUTSIDE_COST * ~near[:, candidates]

    taken = torch.zeros_like(cost, dtype=torch.bool)
    counts = overlap.topk(min(TOP_OVERLAPS, len(candidates)), dim=1).values.sum(dim=1).int().clamp(min=1)
    for index, count in enumerate(counts.tolist()):
        taken[index, cost[index].topk(count, largest=False).indices] = True
    disputed = taken.sum(dim=0) > 1
    if disputed.any():
        cheapest = cost[:, disputed].argmin(dim=0)
        taken[:, disputed] = F.one_hot(cheapest, len(target)).bool().T
    positive = taken.any(dim=0)
    return Assignment(candidates[positive], taken[:, positive].int().argmax(dim=0))


def yolox_loss(cells: Cells, targets: Sequence[Detections]) -> dict[str, Tensor]:
    """Loss terms of a batch; targets in pixels of the canvas, on the cells' device.

    Returns scalars `box`, `objectness`, `classes`, each divided by the number of positive cells in the batch
    (at least 1). An image without objects counts by its objectness alone.
    """
    box_terms, class_terms = [], []
    wanted_objectness = torch.zeros_like(cells.objectness)
    positives = 0
    for index, target in enumerate(targets):
        boxes, scores = cells.boxes[index], cells.classes[index]
        found = assign(boxes, cells.objectness[index], scores, cells.centers, cells.strides, target)
        if len(found.cells) == 0:
            continue
        positives += len(found.cells)
        wanted_objectness[index, found.cells] = 1.0
        wanted_boxes = target.boxes[found.objects]
        losses = iou_loss(boxes[found.cells], wanted_boxes)
        box_terms.append(losses.sum())
        overlap = (1 - losses.detach()).clamp(min=0).sqrt()
        wanted = F.one_hot(target.labels[found.objects], scores.shape[1]) * overlap[:, None]
        class_terms.append(_cross_entropy(scores[found.cells], wanted))
    nothing = cells.boxes.sum() * 0.0
    count = max(1, positives)
    return {
        "box": BOX_WEIGHT * sum(box_terms, nothing) / count,
        "objectness": _cross_entropy(cells.objectness, wanted_objectness) / count,
        "classes": sum(class_terms, nothing) / count,
    }


def yolox_divergence(cells: Cells, reference: Cells) -> dict[str, Tensor]:
    """How far the outputs on one batch are from those on another, such as the uncompressed images.

    Returns scalars `box`, `objectness`, `classes`, all 0 where `cells` equals `reference`: 1 - IoU² of boxes
    and Kullback-Leibler divergences of scores, summed over cells. Boxes and classes count by the reference's
    score (objectness times its best class), so that the many cells that see nothing do not add up; every sum
    is divided by the sum of those (at least 1), about the number of cells that see an object. No gradient
    reaches `reference`.
    """
    reference = Cells(*(tensor.detach() for tensor in reference))
    weight = reference.objectness * reference.classes.amax(dim=2)
    count = weight.sum().clamp(min=1)
    distances = iou_loss(cells.boxes.flatten(0, 1), reference.boxes.flatten(0, 1))
    return {
        "box": BOX_WEIGHT * (weight.flatten() * distances).sum() / count,
        "objectness": _divergence(cells.objectness, reference.objectness).sum() / count,
        "classes": (weight[..., None] * _divergence(cells.classes, reference.classes)).sum() / count,
    }


def _divergence(probability: Tensor, target: Tensor) -> Tensor:
    cross_entropy = F.binary_cross_entropy(probability, target, reduction="none")
    return cross_entropy - F.binary_cross_entropy(target, target, reduction="none")


def _cross_entropy(probability: Tensor, target: Tensor) -> Tensor:
    # torch bounds the logarithm at -100 and the gradient's 1 / p(1 - p) at 1e12, so that through the sigmoid
    # before it the gradient is p - target, neither exploding nor vanishing while p(1 - p) is representable.
    return F.binary_cross_entropy(probability, target, reduction="sum")
