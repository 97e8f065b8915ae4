"""The features branch: what the recognizer's own layers say of the uncompressed image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from taskpress.auxiliary.branch import AuxiliaryBranch, Learns, prediction, stem, tower


class FeaturesBranch(AuxiliaryBranch):
    """The recognizer's feature maps at the latent's resolution, a dense lesson where boxes are a sparse one.

        Ẑ ── 3×3, width ── separable 3×3 ─┬─ 1×1 ── layer 0 [B, C_0, h, w]
                                          ├─ 1×1 ── layer 1 [B, C_1, h, w]
                                          └─ …

    After feature distillation (Romero et al., “FitNets”, ICLR 2015), but from the latent and through a head
    that is thrown away. Any detector or segmentation network teaches it.

    Output: `0`, `1`, … a map of each layer. Loss: `features`, the mean over layers of the relative squared
    error, where a finer layer than the latent is averaged over each cell and the prediction of a coarser one
    over each of its positions: 1 for predicting nothing.

    layers: channels of each of the recognizer's layers
    """

    learns: ClassVar[Learns] = "features"

    def __init__(
        self, latent_channels: int, layers: Sequence[int], stride: int = 16, width: int = 64
    ) -> None:
        super().__init__()
        self.stride = stride
        self.stem = stem(latent_channels, width)
        self.tower = tower(width)
        self.layers = nn.ModuleList(prediction(width, channels) for channels in layers)

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        seen = self.tower(self.stem(latent))
        return {str(place): layer(seen) for place, layer in enumerate(self.layers)}

    def loss(self, output: dict[str, Tensor], targets: Sequence[Tensor]) -> dict[str, Tensor]:
        """`targets`: the layers of the whole batch, [B, C_l, h_l, w_l] each, of images without padding."""
        predicted, wanted = [], []
        for map, target in zip(output.values(), targets, strict=True):
            size = (min(map.shape[-2], target.shape[-2]), min(map.shape[-1], target.shape[-1]))
            predicted.append(F.adaptive_avg_pool2d(map.float(), size))
            wanted.append(F.adaptive_avg_pool2d(target, size))
        return {"features": relative_squared_error(predicted, wanted)}


def relative_squared_error(features: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
    """Mean over layers of ||f - f_ref||² / ||f_ref||²: 0 for equal features, 1 for none at all.

    features, reference: [B, C_l, h_l, w_l] for each layer; a scalar comes back.
    """
    errors = [
        F.mse_loss(f, r) / r.square().mean().clamp_min(1e-12)
        for f, r in zip(features, reference, strict=True)
    ]
    return torch.stack(errors).mean()
