"""The heads branch: what the recognizer's own frozen heads make of layers predicted from the latent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from taskpress.auxiliary.branch import Heads, Learns, Lesson, prediction
from taskpress.auxiliary.features import FeaturesBranch, relative_squared_error


class HeadsBranch(FeaturesBranch):
    """A features branch that reads its prediction as the recognizer reads its own layers.

        Ẑ ── stem ── tower ─┬─ 1×1, pixels shuffled ── layer 0 [B, C_0, h_0, w_0] ─┐
                            ├─ 1×1, pixels shuffled ── layer 1 [B, C_1, h_1, w_1] ─┼─ frozen heads
                            └─ …                                                  ─┘

    So L_aux is the recognition task's own loss, by the very heads that judge the decoded image, and its
    gradient passes neither g_s nor the backbone. Layers finer than the latent are predicted by sub-pixels, at
    the nearest power of two; the rest of the way to a layer's size is interpolation.

    Output: as of the features branch, at the layers' own resolution. Loss: the recognizer's terms, and
    `features`, the relative squared error of the layers.

    layers:     channels of each of the recognizer's layers
    finer:      how many of a layer's positions there are beside each other in a cell, one for each layer
    heads:      of the recognizer, which is frozen and no child of the branch
    """

    learns: ClassVar[Learns] = "heads"

    def __init__(
        self,
        latent_channels: int,
        layers: Sequence[int],
        finer: Sequence[float],
        heads: Heads,
        stride: int = 16,
        width: int = 64,
    ) -> None:
        super().__init__(latent_channels, layers, stride, width)
        self.factors = [2 ** max(0, round(math.log2(ratio))) for ratio in finer]
        for place, (channels, factor) in enumerate(zip(layers, self.factors, strict=True)):
            self.layers[place] = prediction(width, channels * factor**2)
        self.heads = heads

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        maps = super().forward(latent).items()
        return {
            name: F.pixel_shuffle(map, factor) for (name, map), factor in zip(maps, self.factors, strict=True)
        }

    def loss(self, output: dict[str, Tensor], targets: Lesson) -> dict[str, Tensor]:  # type: ignore[override]
        predicted = [
            _sized(map.float(), layer) for map, layer in zip(output.values(), targets.layers, strict=True)
        ]
        return {
            **self.heads(predicted, targets),
            "features": relative_squared_error(predicted, targets.layers),
        }


def _sized(map: Tensor, layer: Tensor) -> Tensor:
    """The map at the layer's height and width."""
    size = (layer.shape[-2], layer.shape[-1])
    if size[0] <= map.shape[-2] and size[1] <= map.shape[-1]:
        return F.adaptive_avg_pool2d(map, size)
    return F.interpolate(map, size, mode="bilinear", align_corners=False)
