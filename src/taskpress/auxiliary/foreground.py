"""The foreground branch: how much of each cell objects cover."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from taskpress.auxiliary.branch import AuxiliaryBranch, prediction, stem, tower
from taskpress.detections import Detections


def coverage(boxes: Tensor, height: int, width: int, stride: int) -> Tensor:
    """Share of each cell that the union of `boxes` [n, 4] (pixels) covers: [height, width] in [0, 1], exact.

    All edges of boxes and cells cut the plane into rectangles that are wholly covered or not at all; which
    ones, two-dimensional prefix sums over the boxes' corners tell.
    """
    grid_x = torch.arange(width + 1, device=boxes.device, dtype=torch.float64) * stride
    grid_y = torch.arange(height + 1, device=boxes.device, dtype=torch.float64) * stride
    exact = boxes.double()
    edges_x = exact[:, 0::2].clamp(0, width * stride)
    edges_y = exact[:, 1::2].clamp(0, height * stride)
    xs = torch.cat([grid_x, edges_x.flatten()]).unique()
    ys = torch.cat([grid_y, edges_y.flatten()]).unique()
    left, right = torch.searchsorted(xs, edges_x.contiguous()).unbind(dim=1)
    top, bottom = torch.searchsorted(ys, edges_y.contiguous()).unbind(dim=1)
    corners = torch.zeros(len(ys), len(xs), device=boxes.device, dtype=torch.int64)
    for rows, columns, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        corners.index_put_((rows, columns), torch.full_like(rows, sign), accumulate=True)
    covered = corners.cumsum(dim=0).cumsum(dim=1)[:-1, :-1] > 0
    areas = covered * (ys.diff()[:, None] * xs.diff()[None])
    to_row = torch.searchsorted(grid_y, ys[:-1], right=True) - 1
    to_column = torch.searchsorted(grid_x, xs[:-1], right=True) - 1
    by_row = areas.new_zeros(height, areas.shape[1]).index_add_(0, to_row, areas)
    by_cell = areas.new_zeros(height, width).index_add_(1, to_column, by_row)
    return (by_cell / stride**2).clamp(0, 1).float()


class ForegroundBranch(AuxiliaryBranch):
    """One map: the share of the cell that lies in some object's box.

        Ẑ ── 3×3, width ── separable 3×3 ── 1×1 ── foreground logit [B, 1, h, w]

    Output: `foreground` [B, 1, h, w] logits. Loss: `foreground`, the mean cross entropy over cells against
    the exact share; where boxes cut through cells its least value is these shares' entropy, not 0.
    """

    def __init__(self, latent_channels: int, stride: int = 16, width: int = 64) -> None:
        super().__init__()
        self.stride = stride
        self.stem = stem(latent_channels, width)
        self.tower = tower(width)
        self.foreground = prediction(width, 1, 0.5)

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        return {"foreground": self.foreground(self.tower(self.stem(latent)))}

    def loss(self, output: dict[str, Tensor], targets: Sequence[Detections]) -> dict[str, Tensor]:
        logits = output["foreground"].float()
        height, width = logits.shape[-2:]
        shares = [coverage(target.boxes.to(logits.device), height, width, self.stride) for target in targets]
        wanted = torch.stack(shares)[:, None]
        return {"foreground": F.binary_cross_entropy_with_logits(logits, wanted)}
