"""The losses Detectron2 trains Faster R-CNN with: matching, sampling, classification and L1 on boxes.

Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1. Everything random comes from torch's global state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from taskpress.detections import Detections
from taskpress.recognition.detectron2_boxes import HEAD_WEIGHTS, RPN_WEIGHTS, encode
from taskpress.recognition.detectron2_rcnn import TRAINING_TOP_K, Candidates, Detectron2RCNN

ANCHOR_NEGATIVE_IOU, ANCHOR_POSITIVE_IOU = 0.3, 0.7
ANCHORS_SAMPLED, ANCHORS_POSITIVE = 256, 0.5
PROPOSAL_POSITIVE_IOU = 0.5
PROPOSALS_SAMPLED, PROPOSALS_POSITIVE = 512, 0.25
IGNORED = -1


class Samples(NamedTuple):
    """Proposals of one picture that the head learns from.

    boxes: [n, 4]; labels: [n], background being the last class's successor; wanted: [n, 4], the object's box,
    of meaning only where the label is an object's
    """

    boxes: Tensor
    labels: Tensor
    wanted: Tensor


def rcnn_losses(
    model: Detectron2RCNN, levels: list[Tensor], sizes: list[tuple[int, int]], targets: list[Detections]
) -> dict[str, Tensor]:
    """Four scalars: `loss_rpn_cls`, `loss_rpn_loc` of the proposals, `loss_cls`, `loss_box_reg` of the head.

    levels: P2 to P6 of the batch; targets: one a picture, boxes in pixels of the canvas with sides above 0
    """
    candidates = model.propose(levels)
    losses = proposal_losses(candidates, targets)
    proposals = candidates.proposals(sizes, TRAINING_TOP_K)
    classes = model.architecture.classes
    samples = [sample_proposals(few, target, classes) for few, target in zip(proposals, targets, strict=True)]
    logits, deltas = model.classify(levels, [sample.boxes for sample in samples])
    return {**losses, **head_losses(logits, deltas, samples)}


def proposal_losses(candidates: Candidates, targets: list[Detections]) -> dict[str, Tensor]:
    """Cross entropy of the sampled anchors and L1 of the positive ones; sums over 256 times the pictures."""
    anchors = torch.cat(candidates.anchors)
    logits, deltas = torch.cat(candidates.logits, dim=1), torch.cat(candidates.deltas, dim=1)
    objectness, location = logits.sum() * 0.0, deltas.sum() * 0.0
    for index, target in enumerate(targets):
        labels, matches = label_anchors(anchors, target.boxes)
        positive, negative = sample(labels, ANCHORS_SAMPLED, ANCHORS_POSITIVE, background=0)
        chosen = torch.cat([positive, negative])
        objectness = objectness + F.binary_cross_entropy_with_logits(
            logits[index, chosen], labels[chosen].to(logits.dtype), reduction="sum"
        )
        if len(positive):
            wanted = encode(anchors[positive], target.boxes[matches[positive]], RPN_WEIGHTS)
            location = location + (deltas[index, positive] - wanted).abs().sum()
    count = ANCHORS_SAMPLED * len(targets)
    return {"loss_rpn_cls": objectness / count, "loss_rpn_loc": location / count}


def label_anchors(anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Labels [A] (1 object, 0 background, -1 neither) and the object [A] each anchor overlaps most.

    An anchor is an object's from IoU 0.7 on, or where no anchor has more of the object; below 0.3 it is
    background.
    """
    if len(boxes) == 0:
        nothing = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
        return nothing, nothing
    overlap = box_iou(boxes, anchors)
    best, matches = overlap.max(dim=0)
    labels = torch.full_like(matches, IGNORED)
    labels[best < ANCHOR_NEGATIVE_IOU] = 0
    labels[best >= ANCHOR_POSITIVE_IOU] = 1
    # Such an anchor is matched to the object it overlaps most itself, which may be another one.
    labels[(overlap == overlap.max(dim=1, keepdim=True).values).any(dim=0)] = 1
    return labels, matches


def sample(labels: Tensor, count: int, positive_share: float, background: int) -> tuple[Tensor, Tensor]:
    """Random indices of objects, at most the share, and of background, which fills up to `count`."""
    positive = ((labels != IGNORED) & (labels != background)).nonzero().squeeze(1)
    negative = (labels == background).nonzero().squeeze(1)
    positives = min(len(positive), int(count * positive_share))
    negatives = min(len(negative), count - positives)
    return (
        positive[torch.randperm(len(positive), device=labels.device)[:positives]],
        negative[torch.randperm(len(negative), device=labels.device)[:negatives]],
    )


@torch.no_grad()
def sample_proposals(proposals: Tensor, target: Detections, classes: int) -> Samples:
    """512 of a picture's proposals and target boxes (as many as there are), at most a quarter objects.

    A proposal is of the object it overlaps most, from IoU 0.5 on; else background, label `classes`.
    """
    boxes = torch.cat([proposals, target.boxes])
    if len(target) == 0:
        labels = torch.full((len(boxes),), classes, dtype=torch.int64, device=boxes.device)
        wanted = boxes
    else:
        best, matches = box_iou(target.boxes, boxes).max(dim=0)
        labels, wanted = target.labels[matches], target.boxes[matches]
        labels[best < PROPOSAL_POSITIVE_IOU] = classes
    chosen = torch.cat(sample(labels, PROPOSALS_SAMPLED, PROPOSALS_POSITIVE, background=classes))
    return Samples(boxes[chosen], labels[chosen], wanted[chosen])


def head_losses(logits: Tensor, deltas: Tensor, samples: list[Samples]) -> dict[str, Tensor]:
    """Cross entropy, mean over all samples, and L1 of the objects' boxes over the number of all samples.

    logits: [R, K + 1]; deltas: [R, K, 4]; R samples over all pictures
    """
    labels = torch.cat([sample.labels for sample in samples])
    if len(labels) == 0:
        nothing = logits.sum() * 0.0
        return {"loss_cls": nothing, "loss_box_reg": nothing}
    rows = (labels < logits.shape[1] - 1).nonzero().squeeze(1)
    boxes = torch.cat([sample.boxes for sample in samples])[rows]
    wanted = torch.cat([sample.wanted for sample in samples])[rows]
    location = (deltas[rows, labels[rows]] - encode(boxes, wanted, HEAD_WEIGHTS)).abs().sum()
    return {"loss_cls": F.cross_entropy(logits, labels), "loss_box_reg": location / len(labels)}
