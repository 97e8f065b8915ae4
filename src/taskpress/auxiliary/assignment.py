"""Which cells of the latent learn which object: center sampling (Tian et al., "FCOS", arXiv:2006.09214)."""

from __future__ import annotations

import torch
from torch import Tensor

CENTER_RADIUS = 1.5
"""Cells around an object's centre that may be positive."""


def assign_cells(
    boxes: Tensor, height: int, width: int, stride: int, radius: float = CENTER_RADIUS
) -> Tensor:
    """The object that each cell of a height×width latent stands for.

    boxes:  [n, 4] x0 y0 x1 y1 in pixels
    radius: cells around an object's centre that may be its own; infinite: all whose centre its box holds
    Returns [height, width] int64: an index into `boxes`, or -1 for none.

    A cell is an object's where the cell's centre lies in its box and within `radius` of its centre, in x and
    in y; the cell that holds the object's centre is its own in any case, so that objects smaller than a cell
    count too. Where several want a cell, one whose centre it holds goes before the others, then the smallest.
    """
    if len(boxes) == 0:
        return torch.full((height, width), -1, dtype=torch.int64, device=boxes.device)
    ys = (torch.arange(height, device=boxes.device) + 0.5) * stride
    xs = (torch.arange(width, device=boxes.device) + 0.5) * stride
    x0, y0, x1, y1 = (side[:, None, None] for side in boxes.unbind(dim=1))
    center_x, center_y = (x0 + x1) / 2, (y0 + y1) / 2
    off_x, off_y = (xs[None, None, :] - center_x).abs(), (ys[None, :, None] - center_y).abs()
    reach = radius * stride
    inside = (off_x <= torch.minimum((x1 - x0) / 2, torch.full_like(x0, reach))) & (
        off_y <= torch.minimum((y1 - y0) / 2, torch.full_like(y0, reach))
    )
    home_row = (center_y / stride).floor().long().clamp(0, height - 1)
    home_column = (center_x / stride).floor().long().clamp(0, width - 1)
    rows = torch.arange(height, device=boxes.device)[None, :, None]
    columns = torch.arange(width, device=boxes.device)[None, None, :]
    home = (rows == home_row) & (columns == home_column)

    # Ranks instead of areas, so that both rules fit into one number without rounding.
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    rank = torch.empty_like(areas, dtype=torch.int64)
    rank[areas.argsort(stable=True)] = torch.arange(len(boxes), device=boxes.device)
    never = 2 * len(boxes)
    price = rank[:, None, None] + len(boxes) * ~home
    price = torch.where(inside | home, price, never)
    cheapest, owner = price.min(dim=0)
    return torch.where(cheapest < never, owner, -1)
