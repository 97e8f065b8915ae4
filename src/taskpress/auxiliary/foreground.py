"""The foreground branch: how much of each cell objects cover."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from taskpress.auxiliary.branch import AuxiliaryBranch, prediction, stem, tower
from taskpress.boxes import coverage
from taskpress.detections import Detections


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
