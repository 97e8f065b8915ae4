from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Bernoulli
from torchvision.ops import box_iou

from taskpress.detections import Detections
from taskpress.recognition.yolox_loss import (
    Cells,
    assign,
    decode,
    iou_loss,
    pairwise_iou,
    yolox_divergence,
    yolox_loss,
)


def box_list(most: int) -> st.SearchStrategy[torch.Tensor]:
    box = st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(0.5, 40), st.floats(0.5, 40))
    return st.lists(box, min_size=1, max_size=most).map(
        lambda rows: torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rows])
    )


@given(box_list(5), box_list(5))
def test_overlap_agrees_with_torchvision(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(pairwise_iou(a, b), box_iou(a, b), atol=1e-5, rtol=1e-4)


@given(box_list(5))
def test_iou_loss_agrees_with_torchvision(boxes: torch.Tensor) -> None:
    targets = boxes.flip(0) + torch.tensor([1.0, 0.0, 3.0, 2.0])
    expected = 1 - box_iou(boxes, targets).diagonal() ** 2
    torch.testing.assert_close(iou_loss(boxes, targets), expected, atol=1e-5, rtol=1e-4)


def test_iou_loss_gradient_is_the_derivative() -> None:
    boxes = torch.tensor([[1.0, 2, 9, 8], [3, 3, 5, 7]], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[2.0, 1, 8, 9], [2, 2, 6, 6]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda b: iou_loss(b, targets), boxes)


def test_decode_by_hand() -> None:
    level = torch.zeros(1, 7, 2, 3)
    level[0, :, 1, 2] = torch.tensor([0.25, 0.5, 0.0, torch.tensor(2.0).log(), 0.7, 0.1, 0.9])
    cells = decode([level], [8])
    assert cells.boxes.shape == (1, 6, 4)
    # Cell (row 1, column 2): centre (2.25, 1.5) cells, 1×2 cells.
    torch.testing.assert_close(cells.boxes[0, 5], torch.tensor([14.0, 4.0, 22.0, 20.0]))
    assert cells.centers[5].tolist() == [20.0, 12.0]
    assert cells.objectness[0, 5] == pytest.approx(0.7)
    torch.testing.assert_close(cells.classes[0, 5], torch.tensor([0.1, 0.9]))


def grid_cells(boxes: torch.Tensor, scores: float = 0.5) -> Cells:
    """One level of 4×4 cells of 8 pixels, two classes, with given boxes [16, 4]."""
    ys, xs = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    centers = (torch.stack([xs, ys], -1).reshape(-1, 2) + 0.5) * 8
    return Cells(
        boxes[None],
        torch.full((1, 16), scores),
        torch.full((1, 16, 2), scores),
        centers,
        torch.full((16,), 8.0),
    )


def assign_first(cells: Cells, target: Detections) -> tuple[list[int], list[int]]:
    found = assign(
        cells.boxes[0], cells.objectness[0], cells.classes[0], cells.centers, cells.strides, target
    )
    return found.cells.tolist(), found.objects.tolist()


def test_simota_takes_as_many_of_the_cheapest_as_overlaps_sum_to() -> None:
    target = Detections(torch.tensor([[4.0, 4, 20, 20]]), torch.tensor([1]), torch.ones(1))
    boxes = torch.full((16, 4), -100.0)
    boxes[:, 2:] = -90.0
    boxes[5] = torch.tensor([4.0, 4, 20, 20])  # IoU 1
    boxes[6] = torch.tensor([4.0, 4, 20, 16])  # IoU 3/4
    boxes[9] = torch.tensor([4.0, 4, 12, 20])  # IoU 1/2
    boxes[15] = torch.tensor([4.0, 4, 20, 20])  # its cell is too far from the object's middle
    # 1 + 3/4 + 1/2 = 2.25: two cells.
    assert assign_first(grid_cells(boxes), target) == ([5, 6], [0, 0])


def test_simota_prefers_the_right_class_at_equal_overlap() -> None:
    target = Detections(torch.tensor([[4.0, 4, 20, 20]]), torch.tensor([1]), torch.ones(1))
    boxes = torch.full((16, 4), -100.0)
    boxes[:, 2:] = -90.0
    boxes[[5, 10]] = torch.tensor([4.0, 4, 20, 16])  # two of IoU 3/4: one cell
    cells = grid_cells(boxes)
    cells.classes[0, 10] = torch.tensor([0.1, 0.9])
    assert assign_first(cells, target) == ([10], [0])


def test_simota_settles_a_dispute_for_the_cheaper() -> None:
    target = Detections(torch.tensor([[4.0, 4, 20, 20], [4, 4, 20, 22]]), torch.tensor([0, 0]), torch.ones(2))
    boxes = torch.full((16, 4), -100.0)
    boxes[:, 2:] = -90.0
    boxes[5] = torch.tensor([4.0, 4, 20, 22])
    assert assign_first(grid_cells(boxes), target) == ([5], [1])


def test_simota_without_objects_or_reach() -> None:
    boxes = torch.zeros(16, 4)
    assert assign_first(grid_cells(boxes), Detections.empty()) == ([], [])
    away = Detections(torch.tensor([[500.0, 500, 510, 510]]), torch.tensor([0]), torch.ones(1))
    assert assign_first(grid_cells(boxes), away) == ([], [])


def perfect(target: Detections) -> Cells:
    cells = grid_cells(target.boxes[0].expand(16, 4).clone(), scores=0.0)
    found, _ = assign_first(cells, target)
    cells.objectness[0, found] = 1.0
    cells.classes[0, :, target.labels[0]] = 1.0
    return cells


def test_the_truth_costs_nothing() -> None:
    target = Detections(torch.tensor([[4.0, 4, 20, 20]]), torch.tensor([1]), torch.ones(1))
    terms = yolox_loss(perfect(target), [target])
    assert {name: round(float(value), 5) for name, value in terms.items()} == {
        "box": 0.0,
        "objectness": 0.0,
        "classes": 0.0,
    }


def test_without_objects_only_objectness_counts() -> None:
    cells = grid_cells(torch.rand(16, 4))
    terms = yolox_loss(cells, [Detections.empty()])
    assert terms["box"] == 0
    assert terms["classes"] == 0
    assert terms["objectness"] == pytest.approx(16 * 0.6931, rel=1e-3)


@pytest.mark.parametrize("logit", [-27.0, -10.0, 0.0, 10.0, 16.0])
def test_gradient_through_the_sigmoid_is_probability_minus_target(logit: float) -> None:
    target = Detections(torch.tensor([[4.0, 4, 20, 20]]), torch.tensor([1]), torch.ones(1))
    base = grid_cells(target.boxes[0].expand(16, 4).clone())
    logits = torch.full((1, 16), logit, requires_grad=True)
    cells = base._replace(objectness=logits.sigmoid())
    wanted = torch.zeros(16)
    wanted[assign_first(cells, target)[0]] = 1.0
    yolox_loss(cells, [target])["objectness"].backward()
    assert logits.grad is not None
    expected = (logits.detach().double().sigmoid()[0] - wanted) / wanted.sum()
    torch.testing.assert_close(logits.grad[0].double(), expected, atol=0.02, rtol=0.02)


def test_boxes_beyond_all_bounds_give_no_infinities() -> None:
    level = torch.full((1, 7, 4, 4), 0.5)
    level[:, 2:4] = 500.0
    level.requires_grad_()
    target = Detections(torch.tensor([[4.0, 4, 20, 20]]), torch.tensor([1]), torch.ones(1))
    terms = yolox_loss(decode([level], [8]), [target])
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert total.isfinite()
    assert level.grad is not None
    assert level.grad.isfinite().all()


def some_cells(seed: int) -> Cells:
    chance = torch.Generator().manual_seed(seed)
    corners = torch.rand(16, 2, generator=chance) * 20
    boxes = torch.cat([corners, corners + 5 + torch.rand(16, 2, generator=chance) * 20], 1)
    scores = torch.rand(16, 3, generator=chance) * 0.9 + 0.05
    return grid_cells(boxes)._replace(objectness=scores[None, :, 0], classes=scores[None, :, 1:])


def test_divergence_of_equal_outputs_is_nothing_and_flat() -> None:
    cells = some_cells(0)
    leaves = [tensor.clone().requires_grad_() for tensor in (cells.boxes, cells.objectness, cells.classes)]
    terms = yolox_divergence(cells._replace(boxes=leaves[0], objectness=leaves[1], classes=leaves[2]), cells)
    sum(terms.values()).backward()  # type: ignore[union-attr]
    for value in terms.values():
        assert float(value.detach()) == pytest.approx(0, abs=1e-5)
    assert all(leaf.grad is not None and leaf.grad.abs().max() < 1e-4 for leaf in leaves[1:])


def test_divergence_is_kullback_leibler_and_overlap() -> None:
    found, wanted = some_cells(1), some_cells(2)
    terms = yolox_divergence(found, wanted)
    weight = (wanted.objectness[0] * wanted.classes[0].amax(1)).numpy()
    count = max(1.0, weight.sum())

    def divergence(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return torch.distributions.kl_divergence(Bernoulli(probs=wanted), Bernoulli(probs=found))

    overlap = box_iou(found.boxes[0], wanted.boxes[0]).diagonal().numpy()
    assert float(terms["box"]) == pytest.approx(5 * (weight * (1 - overlap**2)).sum() / count, rel=1e-4)
    objectness = divergence(found.objectness, wanted.objectness).sum() / count
    assert float(terms["objectness"]) == pytest.approx(float(objectness), rel=1e-4)
    classes = (divergence(found.classes[0], wanted.classes[0]).sum(1).numpy() * weight).sum() / count
    assert float(terms["classes"]) == pytest.approx(classes, rel=1e-4)


def test_boxes_where_nothing_was_seen_do_not_count() -> None:
    wanted = some_cells(3)
    wanted.objectness[0, :8] = 0.0
    found = wanted._replace(boxes=wanted.boxes.clone())
    found.boxes[0, :8] += 7
    assert float(yolox_divergence(found, wanted)["box"]) == pytest.approx(0, abs=1e-5)
    found.boxes[0, 8:] += 7
    assert yolox_divergence(found, wanted)["box"] > 0.1
