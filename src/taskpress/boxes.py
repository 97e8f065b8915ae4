"""How much of a grid the union of boxes covers, exactly."""

from __future__ import annotations

import torch
from torch import Tensor


def covered_areas(boxes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels of each cell that the union of boxes covers: float64 [h, w].

    boxes:         [n, 4] x0 y0 x1 y1 in pixels, clipped to the grid; those without extent cover nothing
    rows, columns: [h + 1], [w + 1] edges of the cells in pixels, ascending; equal ones have nothing between

    All edges of boxes and cells cut the plane into rectangles that are wholly covered or not at all; which
    ones, two-dimensional prefix sums over the boxes' corners tell.
    """
    exact, rows, columns = boxes.detach().double().reshape(-1, 4), rows.double(), columns.double()
    exact = exact[(exact[:, 2:] > exact[:, :2]).all(1)]
    edges_x = exact[:, 0::2].clamp(columns[0].item(), columns[-1].item())
    edges_y = exact[:, 1::2].clamp(rows[0].item(), rows[-1].item())
    xs = torch.cat([columns, edges_x.flatten()]).unique()
    ys = torch.cat([rows, edges_y.flatten()]).unique()
    left, right = torch.searchsorted(xs, edges_x.contiguous()).unbind(dim=1)
    top, bottom = torch.searchsorted(ys, edges_y.contiguous()).unbind(dim=1)
    corners = torch.zeros(len(ys), len(xs), device=boxes.device, dtype=torch.int64)
    for at_y, at_x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        corners.index_put_((at_y, at_x), torch.full_like(at_y, sign), accumulate=True)
    covered = corners.cumsum(dim=0).cumsum(dim=1)[:-1, :-1] > 0
    areas = covered * (ys.diff()[:, None] * xs.diff()[None])
    to_row = torch.searchsorted(rows, ys[:-1], right=True) - 1
    to_column = torch.searchsorted(columns, xs[:-1], right=True) - 1
    by_row = areas.new_zeros(len(rows) - 1, areas.shape[1]).index_add_(0, to_row, areas)
    return areas.new_zeros(len(rows) - 1, len(columns) - 1).index_add_(1, to_column, by_row)


def coverage(boxes: Tensor, height: int, width: int, stride: int) -> Tensor:
    """Share of each cell, `stride` pixels a side, that the union of boxes covers: float32 [height, width]."""
    edges = [torch.arange(count + 1, device=boxes.device) * stride for count in (height, width)]
    return (covered_areas(boxes, *edges) / stride**2).clamp(0, 1).float()
