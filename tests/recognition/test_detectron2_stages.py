"""Each stage of Detectron2's Faster R-CNN against a small computation in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from taskpress.recognition.detectron2_backbone import STRIDES
from taskpress.recognition.detectron2_boxes import (
    ANCHOR_SIDES,
    HEAD_WEIGHTS,
    decode,
    encode,
    grid_anchors,
    level_of,
    pool,
    select_detections,
    select_proposals,
)
from taskpress.recognition.detectron2_detector import shortest_edge_size
from taskpress.recognition.letterbox import resize


def test_anchors_are_the_papers() -> None:
    for stride, side in zip(STRIDES, ANCHOR_SIDES, strict=True):
        got = grid_anchors((2, 3), stride, side, "cpu").numpy().reshape(2, 3, 3, 4)
        for row in range(2):
            for column in range(3):
                for index, ratio in enumerate((0.5, 1.0, 2.0)):
                    height = side * ratio**0.5
                    width = side**2 / height
                    x, y = column * stride, row * stride
                    wanted = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
                    np.testing.assert_allclose(got[row, column, index], wanted, rtol=1e-6, atol=1e-4)


def numpy_decode(box: np.ndarray, delta: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    width, height = box[2] - box[0], box[3] - box[1]
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    dx, dy, dw, dh = delta / np.array(weights)
    x, y = x + dx * width, y + dy * height
    width = width * np.exp(min(dw, np.log(62.5)))
    height = height * np.exp(min(dh, np.log(62.5)))
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def test_decoding_is_the_papers_and_encoding_undoes_it() -> None:
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 300, (50, 2)), rng.uniform(1, 200, (50, 2))
    boxes = np.concatenate([corner, corner + size], axis=1)
    deltas = rng.uniform(-4, 4, (50, 4))
    deltas[0, 2:] = 40.0
    for weights in ((1.0, 1.0, 1.0, 1.0), HEAD_WEIGHTS):
        wanted = np.stack([numpy_decode(*pair, weights) for pair in zip(boxes, deltas, strict=True)])
        got = decode(torch.tensor(boxes), torch.tensor(deltas), weights)
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-9)
        again = encode(torch.tensor(boxes[1:]), got[1:], weights)
        np.testing.assert_allclose(again.numpy(), deltas[1:], rtol=1e-6, atol=1e-9)


def test_boxes_are_pooled_from_the_level_of_their_size() -> None:
    sides = [1.0, 55, 111, 113, 223, 225, 447, 449, 895, 5000]
    boxes = torch.tensor([[7.0, 9.0, 7 + side, 9 + side] for side in sides])
    assert level_of(boxes, 4).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]


def numpy_pool(level: np.ndarray, box: np.ndarray, stride: int, side: int = 7) -> np.ndarray:
    """Average of bilinear samples; a map's value at (i, j) is that at (j + 1/2, i + 1/2) of its plane."""
    x0, y0, x1, y1 = box / stride - 0.5
    bin_width, bin_height = (x1 - x0) / side, (y1 - y0) / side
    across, down = max(1, int(np.ceil(bin_width))), max(1, int(np.ceil(bin_height)))
    height, width = level.shape[1:]

    def at(y: float, x: float) -> np.ndarray:
        if y < -1 or y > height or x < -1 or x > width:
            return np.zeros(len(level))
        y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        v, u = y - top, x - left
        return (1 - v) * ((1 - u) * level[:, top, left] + u * level[:, top, right]) + v * (
            (1 - u) * level[:, bottom, left] + u * level[:, bottom, right]
        )

    out = np.zeros((len(level), side, side))
    for i in range(side):
        for j in range(side):
            samples = [
                at(y0 + (i + (a + 0.5) / down) * bin_height, x0 + (j + (b + 0.5) / across) * bin_width)
                for a in range(down)
                for b in range(across)
            ]
            out[:, i, j] = np.mean(samples, axis=0)
    return out


def test_pooling_is_aligned_bilinear_averaging() -> None:
    chance = torch.Generator().manual_seed(0)
    levels = [
        torch.randn(2, 3, 256 // stride, 320 // stride, generator=chance, dtype=torch.float64)
        for stride in STRIDES[:4]
    ]
    first = torch.tensor([[3.0, 5.0, 40.0, 90.0], [0.0, 0.0, 320.0, 256.0], [10.3, 20.7, 12.1, 21.0]])
    second = torch.tensor([[50.0, 40.0, 210.0, 190.0], [300.0, 200.0, 320.0, 256.0]])
    boxes = [first.double(), second.double()]
    got = pool(levels, STRIDES[:4], boxes).numpy()
    assert got.shape == (5, 3, 7, 7)
    rows = [(0, box) for box in first] + [(1, box) for box in second]
    indices = level_of(torch.cat(boxes), 4).tolist()
    assert len(set(indices)) >= 2
    for row, ((picture, box), index) in enumerate(zip(rows, indices, strict=True)):
        wanted = numpy_pool(levels[index][picture].numpy(), box.double().numpy(), STRIDES[index])
        np.testing.assert_allclose(got[row], wanted, rtol=1e-9, atol=1e-9)
    assert pool(levels, STRIDES[:4], [torch.zeros(0, 4).double()] * 2).shape == (0, 3, 7, 7)


def numpy_nms(boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, limit: float) -> list[int]:
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        for other in kept:
            if groups[other] != groups[index]:
                continue
            low, high = (
                np.maximum(boxes[other, :2], boxes[index, :2]),
                np.minimum(boxes[other, 2:], boxes[index, 2:]),
            )
            shared = np.prod(np.clip(high - low, 0, None))
            areas = np.prod(boxes[[other, index], 2:] - boxes[[other, index], :2], axis=1).sum()
            if shared / (areas - shared) > limit:
                break
        else:
            kept.append(int(index))
    return kept


def test_proposals_are_the_likeliest_of_each_level_after_nms() -> None:
    rng = np.random.default_rng(3)
    anchors, logits, deltas = [], [], []
    for count in (300, 80, 20):
        corner = rng.uniform(-10, 70, (count, 2))
        anchors.append(np.concatenate([corner, corner + rng.uniform(25, 40, (count, 2))], axis=1))
        logits.append(rng.normal(0, 2, count))
        deltas.append(rng.normal(0, 0.1, (count, 4)))
    anchors[1][0] = [-80.0, -80.0, -60.0, -60.0]  # beside the picture: nothing is left of it
    logits[1][0] = 50.0
    deltas[2][3] = np.nan

    boxes, scores, levels = [], [], []
    for level, (anchor, logit, delta) in enumerate(zip(anchors, logits, deltas, strict=True)):
        for index in np.argsort(-logit)[:60]:
            box = numpy_decode(anchor[index], delta[index], (1.0,) * 4)
            box = np.clip(box, 0, [100.0, 80.0, 100.0, 80.0])
            if np.isfinite(box).all() and box[2] > box[0] and box[3] > box[1]:
                boxes.append(box)
                scores.append(logit[index])
                levels.append(level)
    kept = numpy_nms(np.array(boxes), np.array(scores), np.array(levels), 0.7)
    assert len(kept) < len(boxes) - 5
    for after in (25, 1000):
        got = select_proposals(
            *[[torch.tensor(part) for part in parts] for parts in (anchors, logits, deltas)],
            (80, 100),
            60,
            after,
        )
        np.testing.assert_allclose(got.numpy(), np.array(boxes)[kept[:after]], rtol=1e-6, atol=1e-6)


def test_detections_are_the_confident_boxes_of_each_class_after_nms() -> None:
    rng = np.random.default_rng(5)
    corner = rng.uniform(-10, 70, (120, 4, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 60, (120, 4, 2))], axis=2)
    logits = rng.normal(0, 1.5, (120, 5))
    logits[7, 2] = np.nan
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows, labels = np.nonzero(scores[:, :4] > 0.05)
    flat = np.clip(boxes[rows, labels], 0, [90.0, 70.0, 90.0, 70.0])
    kept = numpy_nms(flat, scores[rows, labels], labels, 0.5)[:100]
    assert len(kept) == 100 < len(rows)
    found = select_detections(torch.tensor(boxes), torch.tensor(scores), (70, 90))
    np.testing.assert_allclose(found.boxes.numpy(), flat[kept])
    assert found.labels.tolist() == labels[kept].tolist()
    np.testing.assert_allclose(found.scores.numpy(), scores[rows, labels][kept])
    assert len(select_detections(torch.zeros(0, 4, 4), torch.zeros(0, 5), (70, 90))) == 0


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),
        ((375, 1242), (402, 1333)),  # 402.47
        ((1242, 375), (1333, 402)),
        ((333, 500), (800, 1201)),
        ((600, 600), (800, 800)),
        ((800, 1333), (800, 1333)),
        ((256, 320), (800, 1000)),
        ((1, 4000), (1, 1333)),
    ],
)
def test_sizes_are_those_of_shortest_edge_800(picture: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert shortest_edge_size(torch.zeros(3, *picture), 800, 1333) == wanted


@pytest.mark.parametrize("size", [(90, 120), (33, 44), (60, 80)])
def test_resizing_is_pillows_bilinear(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    wanted = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
    got = resize(torch.from_numpy(pixels).permute(2, 0, 1).float(), size).permute(1, 2, 0).numpy()
    assert np.abs(got - wanted).max() < 1.01  # Pillow rounds after each direction
