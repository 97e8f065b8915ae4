"""The objectness branch: where objects are, whatever they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from taskpress.auxiliary.assignment import assign_cells
from taskpress.auxiliary.branch import PRIOR, AuxiliaryBranch, prediction, stem, tower
from taskpress.detections import Detections


class ObjectnessBranch(AuxiliaryBranch):
    """One map: does the middle of an object, of whatever class, lie here?

        Ẑ ── 3×3, width ── separable 3×3 ── 1×1 ── objectness logit [B, 1, h, w]

    Output: `objectness` [B, 1, h, w] logits. Positive cells are those of the detection branch
    (`assign_cells`). Loss: `objectness`, focal, divided by the positive cells in the batch (at least 1).
    """

    def __init__(self, latent_channels: int, stride: int = 16, width: int = 64) -> None:
        super().__init__()
        self.stride = stride
        self.stem = stem(latent_channels, width)
        self.tower = tower(width)
        self.objectness = prediction(width, 1, PRIOR)

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        return {"objectness": self.objectness(self.tower(self.stem(latent)))}

    def loss(self, output: dict[str, Tensor], targets: Sequence[Detections]) -> dict[str, Tensor]:
        logits = output["objectness"].float()
        height, width = logits.shape[-2:]
        owners = [
            assign_cells(target.boxes.to(logits.device), height, width, self.stride) for target in targets
        ]
        wanted = (torch.stack(owners)[:, None] >= 0).to(logits.dtype)
        count = wanted.sum().clamp(min=1)
        return {"objectness": sigmoid_focal_loss(logits, wanted, reduction="sum") / count}
