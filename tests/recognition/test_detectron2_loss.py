"""Detectron2's training losses against loops over boxes, one at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from taskpress.detections import Detections
from taskpress.recognition.detectron2_loss import (
    Samples,
    head_losses,
    label_anchors,
    proposal_losses,
    sample,
    sample_proposals,
)
from taskpress.recognition.detectron2_rcnn import Candidates


def some_boxes(count: int, seed: int, smallest: float = 8.0, largest: float = 60.0) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=chance) * 60
    return torch.cat(
        [corner, corner + smallest + torch.rand(count, 2, generator=chance) * (largest - smallest)], dim=1
    )


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def wanted_deltas(source: list[float], box: list[float], weights: tuple[float, ...]) -> list[float]:
    sizes = [(b[2] - b[0], b[3] - b[1], (b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (source, box)]
    (sw, sh, sx, sy), (w, h, x, y) = sizes
    raw = ((x - sx) / sw, (y - sy) / sh, math.log(w / sw), math.log(h / sh))
    return [weight * value for weight, value in zip(weights, raw, strict=True)]


def numpy_labels(anchors: Tensor, boxes: Tensor) -> tuple[list[int], list[int]]:
    table = [[iou(box, anchor) for anchor in anchors.tolist()] for box in boxes.tolist()]
    labels, matches = [], []
    for column in zip(*table, strict=True):
        best = max(column)
        matches.append(column.index(best))
        labels.append(1 if best >= 0.7 else 0 if best < 0.3 else -1)
    for row in table:
        for index, value in enumerate(row):
            if value == max(row):
                labels[index] = 1
    return labels, matches


def test_anchors_are_matched_by_overlap_and_every_object_gets_its_best() -> None:
    anchors = torch.cat([some_boxes(200, seed=0), torch.tensor([[500.0, 500.0, 510.0, 510.0]])])
    # An exact hit, one that no anchor overlaps well, one far from all but the last anchor.
    boxes = torch.cat([anchors[3:4], torch.tensor([[0.0, 0, 5, 5], [490, 490, 505, 505]]), some_boxes(4, 1)])
    labels, matches = label_anchors(anchors, boxes)
    wanted_labels, wanted_matches = numpy_labels(anchors, boxes)
    assert labels.tolist() == wanted_labels
    assert matches.tolist() == wanted_matches
    assert set(wanted_labels) == {-1, 0, 1} and wanted_labels[200] == 1
    assert label_anchors(anchors, torch.zeros(0, 4))[0].eq(0).all()


def test_samples_are_drawn_from_torchs_seed_within_their_share() -> None:
    labels = torch.tensor([-1] * 10 + [0] * 50 + [1] * 40)
    torch.manual_seed(0)
    positive, negative = sample(labels, 32, 0.5, background=0)
    torch.manual_seed(0)
    again = sample(labels, 32, 0.5, background=0)
    assert torch.equal(positive, again[0]) and torch.equal(negative, again[1])
    assert len(positive) == len(positive.unique()) == 16 and labels[positive].eq(1).all()
    assert len(negative) == len(negative.unique()) == 16 and labels[negative].eq(0).all()
    few = torch.tensor([0] * 50 + [3, 3])
    positive, negative = sample(few, 32, 0.5, background=0)
    assert (len(positive), len(negative)) == (2, 30)
    positive, negative = sample(few, 200, 0.25, background=0)
    assert (len(positive), len(negative)) == (2, 50)


def test_proposal_losses_are_sums_over_the_sample() -> None:
    chance = torch.Generator().manual_seed(2)
    anchors = [some_boxes(90, seed=3), some_boxes(30, seed=4)]
    logits = [torch.randn(2, len(level), generator=chance) for level in anchors]
    deltas = [torch.randn(2, len(level), 4, generator=chance) for level in anchors]
    boxes = torch.cat([some_boxes(3, seed=5), anchors[1][4:5]])
    targets = [Detections(boxes, torch.zeros(4, dtype=torch.int64), torch.ones(4)), Detections.empty()]
    got = proposal_losses(Candidates(anchors, logits, deltas), targets)

    objectness = location = 0.0
    everything = torch.cat(anchors)
    for index, target in enumerate(targets):
        labels, matches = numpy_labels(everything, target.boxes) if len(target) else ([0] * 120, [0] * 120)
        assert labels.count(1) < 128  # so that all anchors are in the sample
        flat_logits = torch.cat(logits, 1)[index].tolist()
        flat_deltas = torch.cat(deltas, 1)[index].tolist()
        for number, label in enumerate(labels):
            if label >= 0:
                probability = 1 / (1 + math.exp(-flat_logits[number]))
                objectness -= math.log(probability if label else 1 - probability)
            if label == 1:
                wanted = wanted_deltas(
                    everything[number].tolist(), target.boxes[matches[number]].tolist(), (1, 1, 1, 1)
                )
                location += sum(abs(a - b) for a, b in zip(flat_deltas[number], wanted, strict=True))
    assert got["loss_rpn_cls"].item() == pytest.approx(objectness / (256 * 2), rel=1e-5)
    assert got["loss_rpn_loc"].item() == pytest.approx(location / (256 * 2), rel=1e-5)
    assert location > 0


def test_proposals_and_the_objects_themselves_are_labelled_at_half_overlap() -> None:
    proposals = some_boxes(60, seed=6)
    target = Detections(some_boxes(3, seed=7), torch.tensor([4, 0, 2]), torch.ones(3))
    samples = sample_proposals(proposals, target, classes=5)
    assert len(samples.labels) == 63  # all of them, being fewer than 512
    objects = 0
    for box, label, wanted in zip(
        samples.boxes.tolist(), samples.labels.tolist(), samples.wanted, strict=True
    ):
        overlaps = [iou(box, other) for other in target.boxes.tolist()]
        best = overlaps.index(max(overlaps))
        assert label == (target.labels[best] if max(overlaps) >= 0.5 else 5)
        if label != 5:
            objects += 1
            assert torch.equal(wanted, target.boxes[best])
    assert 3 <= objects < 63
    alone = sample_proposals(proposals, Detections.empty(), classes=5)
    assert alone.labels.eq(5).all() and len(alone.labels) == 60
    many = sample_proposals(target.boxes.repeat(300, 1), target, classes=5)
    assert len(many.labels) == 128  # a quarter of 512, and there is no background


def test_head_losses_are_means_over_all_samples() -> None:
    chance = torch.Generator().manual_seed(8)
    counts, classes = (7, 4), 5
    logits = torch.randn(11, classes + 1, generator=chance)
    deltas = torch.randn(11, classes, 4, generator=chance)
    labels = torch.tensor([0, 5, 4, 5, 1, 5, 5, 5, 2, 5, 0])
    boxes, wanted = some_boxes(11, seed=9), some_boxes(11, seed=10)
    samples = [
        Samples(*parts)
        for parts in zip(boxes.split(counts), labels.split(counts), wanted.split(counts), strict=True)
    ]
    got = head_losses(logits, deltas, samples)
    classification = location = 0.0
    for row, label in enumerate(labels.tolist()):
        scores = np.exp(logits[row].double().numpy())
        classification -= math.log(scores[label] / scores.sum())
        if label < classes:
            target = wanted_deltas(boxes[row].tolist(), wanted[row].tolist(), (10, 10, 5, 5))
            location += sum(abs(a - b) for a, b in zip(deltas[row, label].tolist(), target, strict=True))
    assert got["loss_cls"].item() == pytest.approx(classification / 11, rel=1e-5)
    assert got["loss_box_reg"].item() == pytest.approx(location / 11, rel=1e-5)


def test_nothing_at_all_is_a_loss_of_zero() -> None:
    empty = Samples(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    losses = head_losses(torch.zeros(0, 6), torch.zeros(0, 5, 4), [empty])
    assert [loss.item() for loss in losses.values()] == [0.0, 0.0]
