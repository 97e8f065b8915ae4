"""Which cells learn what: by hand, and by properties any assignment must have."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from taskpress.auxiliary.assignment import assign_cells
from taskpress.boxes import coverage


def owners(boxes: list[list[float]], height: int = 4, width: int = 5) -> list[list[int]]:
    return assign_cells(torch.tensor(boxes).reshape(-1, 4), height, width, 16).tolist()


def test_no_object_owns_nothing() -> None:
    assert owners([], 2, 3) == [[-1] * 3] * 2


def test_a_large_object_owns_the_cells_around_its_middle() -> None:
    # Middle (40, 32): cell centres within 24 pixels of it in x are those of columns 1, 2, 3; in y all of rows
    # 0.5 … 3.5, that is 8 and 56 (24 away, rows 0 and 3), 24 and 40.
    assert owners([[0.0, 0.0, 80.0, 64.0]]) == [[-1, 0, 0, 0, -1]] * 4


def test_cells_outside_the_box_are_not_its() -> None:
    # A flat box: only row 1 (centre y = 24) lies inside, the columns within reach of x = 40.
    assert owners([[0.0, 20.0, 80.0, 28.0]]) == [[-1] * 5, [-1, 0, 0, 0, -1], [-1] * 5, [-1] * 5]


def test_an_object_smaller_than_a_cell_owns_the_one_it_lies_in() -> None:
    expected = [[-1] * 5 for _ in range(4)]
    expected[2][3] = 0
    assert owners([[49.0, 33.0, 52.0, 35.0]]) == expected


def test_the_smallest_wins_but_not_another_ones_own_cell() -> None:
    large, small = [0.0, 0.0, 80.0, 64.0], [16.0, 16.0, 48.0, 48.0]
    # The small one's middle (32, 32) is in cell (2, 2); so is the large one's (40, 32). It takes its four
    # inner cells, and the large one keeps the rest.
    assert owners([large, small]) == [
        [-1, 0, 0, 0, -1],
        [-1, 1, 1, 0, -1],
        [-1, 1, 1, 0, -1],
        [-1, 0, 0, 0, -1],
    ]
    # A tiny object in a cell beside does not lose its only cell to a smaller-area neighbour that spans it.
    flat, square = [18.0, 20.0, 62.0, 28.0], [32.0 + 17, 17.0, 32.0 + 31, 37.0]
    grid = owners([flat, square])
    assert grid[1][3] == 1
    assert grid[1][2] == 0


edge = st.integers(0, 320).map(lambda quarter: quarter / 4)


@st.composite
def box_tensor(draw: st.DrawFn, most: int = 6) -> torch.Tensor:
    rows = []
    for _ in range(draw(st.integers(1, most))):
        x, y = draw(edge), draw(edge)
        rows.append([x, y, x + draw(st.integers(1, 240)) / 4, y + draw(st.integers(1, 240)) / 4])
    return torch.tensor(rows).clamp(max=80)


@given(box_tensor(most=1))
def test_every_object_alone_owns_the_cell_of_its_middle(boxes: torch.Tensor) -> None:
    owner = assign_cells(boxes, 5, 5, 16)
    middle = (boxes[0, :2] + boxes[0, 2:]) / 2
    column, row = (middle / 16).long().clamp(max=4).tolist()
    assert owner[row, column] == 0


@given(box_tensor())
def test_owners_are_near_and_the_order_of_objects_does_not_matter(boxes: torch.Tensor) -> None:
    owner = assign_cells(boxes, 5, 5, 16)
    for row, column in (owner >= 0).nonzero().tolist():
        box = boxes[owner[row, column]]
        middle = (box[:2] + box[2:]) / 2
        center = torch.tensor([column + 0.5, row + 0.5]) * 16
        assert (center - middle).abs().max() <= 24
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    if len(areas.unique()) == len(areas):
        reversed_owner = assign_cells(boxes.flip(0), 5, 5, 16)
        assert torch.equal(torch.where(reversed_owner >= 0, len(boxes) - 1 - reversed_owner, -1), owner)


@given(box_tensor())
def test_coverage_is_what_counting_quarter_pixels_gives(boxes: torch.Tensor) -> None:
    fine = np.zeros((5 * 64, 4 * 64), dtype=bool)
    for x0, y0, x1, y1 in (boxes * 4).long().tolist():
        fine[y0:y1, x0:x1] = True
    expected = fine.reshape(5, 64, 4, 64).mean(axis=(1, 3))
    np.testing.assert_allclose(coverage(boxes, 5, 4, 16).numpy(), expected, atol=1e-6)


def test_coverage_of_nothing_and_of_all() -> None:
    assert coverage(torch.zeros(0, 4), 2, 3, 16).tolist() == [[0.0] * 3] * 2
    assert coverage(torch.tensor([[-5.0, -5.0, 99.0, 99.0]]), 2, 3, 16).tolist() == [[1.0] * 3] * 2
