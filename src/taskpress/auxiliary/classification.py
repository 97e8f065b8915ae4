"""The classification branch: what the whole picture shows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from taskpress.auxiliary.branch import AuxiliaryBranch, prediction, stem, tower
from taskpress.targets import ClassScores


class ClassificationBranch(AuxiliaryBranch):
    """Classes of the picture from the mean of the latent's features.

        Ẑ ── 3×3, width ── separable 3×3 ── mean over places ── 1×1 ── class logits [B, K, 1, 1]

    Output: `classes` [B, K, 1, 1] logits. Loss: `classes`, KL(teacher's probabilities ‖ seen) in nats, mean
    over the batch: 0 for a branch that sees what the teacher does.
    """

    def __init__(self, latent_channels: int, classes: int, stride: int = 16, width: int = 64) -> None:
        super().__init__()
        self.stride = stride
        self.stem = stem(latent_channels, width)
        self.tower = tower(width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classes = prediction(width, classes)

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        return {"classes": self.classes(self.pool(self.tower(self.stem(latent))))}

    def loss(self, output: dict[str, Tensor], targets: Sequence[ClassScores]) -> dict[str, Tensor]:
        seen = output["classes"].float().flatten(1).log_softmax(dim=1)
        wanted = torch.stack([target.probabilities for target in targets]).to(seen.device)
        return {"classes": F.kl_div(seen, wanted, reduction="batchmean")}
