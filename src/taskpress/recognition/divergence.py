"""How far a detector's raw outputs on one batch are from those on another, number by number: L_task on soft
outputs of the detectors that number their candidates by anchors and proposals.

Kullback-Leibler divergences of scores and smooth L1 of box offsets, all 0 for equal outputs. Offsets count by
the reference's probability that there is an object (of that class), so that the many candidates that see
nothing do not add up; every sum is divided by the sum of those probabilities, at least 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class TwoStageOutputs(NamedTuple):
    """What both heads of a Faster R-CNN say of a batch: A anchors and P proposals in all, K classes.

    objectness: [A] logits; anchor_offsets: [A, 4]; background: [P] logits; classes: [P, K] logits;
    offsets: [P, K, 4]
    """

    objectness: Tensor
    anchor_offsets: Tensor
    background: Tensor
    classes: Tensor
    offsets: Tensor


class MaskOutputs(NamedTuple):
    """What a mask head says of O objects' boxes: [O, h, w] logits, and how sure the reference is of each.

    scores: [O] in [0, 1]
    """

    masks: Tensor
    scores: Tensor


class OneStageOutputs(NamedTuple):
    """What a RetinaNet says of a batch, of A anchors in all.

    classes: [A, K] logits, each of its own; offsets: [A, 4]
    """

    classes: Tensor
    offsets: Tensor


def two_stage_divergence(found: TwoStageOutputs, wanted: TwoStageOutputs) -> dict[str, Tensor]:
    """Scalars `objectness`, `rpn_box` of the anchors, `classes`, `box` of the proposals, which both share.

    Background is a class among the classes, and none among the boxes.
    """
    anchors = wanted.objectness.sigmoid()
    scores, wanted_scores = (_with_background(outputs).log_softmax(dim=1) for outputs in (found, wanted))
    there = wanted_scores[:, 1:].exp()
    anchor_count, count = anchors.sum().clamp(min=1), there.sum().clamp(min=1)
    classes = F.kl_div(scores, wanted_scores, reduction="sum", log_target=True)
    return {
        "objectness": _bernoulli(found.objectness, wanted.objectness).sum() / anchor_count,
        "rpn_box": (anchors * _apart(found.anchor_offsets, wanted.anchor_offsets)).sum() / anchor_count,
        "classes": classes / count,
        "box": (there * _apart(found.offsets, wanted.offsets)).sum() / count,
    }


def one_stage_divergence(found: OneStageOutputs, wanted: OneStageOutputs) -> dict[str, Tensor]:
    """Scalars `classes` and `box` of the anchors; a box counts by its best class."""
    there = wanted.classes.sigmoid().amax(dim=1)
    count = there.sum().clamp(min=1)
    return {
        "classes": _bernoulli(found.classes, wanted.classes).sum() / count,
        "box": (there * _apart(found.offsets, wanted.offsets)).sum() / count,
    }


def mask_divergence(found: Tensor, wanted: MaskOutputs) -> Tensor:
    """A scalar: mean over the pixels of masks [O, h, w] (logits), objects weighed by their scores."""
    apart = _bernoulli(found, wanted.masks).mean(dim=(1, 2))
    return (wanted.scores * apart).sum() / wanted.scores.sum().clamp(min=1)


def _with_background(outputs: TwoStageOutputs) -> Tensor:
    return torch.cat([outputs.background[:, None], outputs.classes], dim=1)


def _bernoulli(found: Tensor, wanted: Tensor) -> Tensor:
    target = wanted.sigmoid()
    cross, own = (
        F.binary_cross_entropy_with_logits(logits, target, reduction="none") for logits in (found, wanted)
    )
    return cross - own


def _apart(found: Tensor, wanted: Tensor) -> Tensor:
    return F.smooth_l1_loss(found, wanted, reduction="none").sum(dim=-1)
