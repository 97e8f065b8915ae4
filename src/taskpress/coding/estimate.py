"""What coding would give and cost, without bytes."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from taskpress.coding.allocation import Decision
from taskpress.coding.hyperprior import Output


class Estimate(NamedTuple):
    """What coding a batch would give and cost.

    x_hat     [B, 3, H, W] float32, the decoded pictures, not clamped to [0, 1]
    latent    [B, M, h, w] float32, the decoded latent Ŷ; h = 4·⌈H/64⌉, w = 4·⌈W/64⌉
    rate      [B] bits per pixel of the unpadded picture
    rate_map  [B, h, w] bits per latent position: y's own, and z's spread evenly over the 4×4 it covers; the
              level map's, where there is one, evenly over all
    decision  of the allocator, where there is one
    """

    x_hat: Tensor
    latent: Tensor
    rate: Tensor
    rate_map: Tensor
    decision: Decision | None = None


def estimated(out: Output, decision: Decision | None, height: int, width: int) -> Estimate:
    """The estimate of a model's output for padded pictures that are `height` by `width` without padding."""
    likelihoods = out["likelihoods"]
    z_bits = -torch.log2(likelihoods["z"]).sum(1, keepdim=True)
    spread = F.interpolate(z_bits, scale_factor=4.0, mode="nearest").squeeze(1) / 16
    rate_map = -torch.log2(likelihoods["y"]).sum(1) + spread
    if decision is not None:
        rate_map = rate_map + decision.bits[:, None, None] / rate_map[0].numel()
    rate = rate_map.sum((1, 2)) / (height * width)
    return Estimate(out["x_hat"][..., :height, :width], out["y_hat"], rate, rate_map, decision)
