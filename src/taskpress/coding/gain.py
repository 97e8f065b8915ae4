"""Gain units: how finely each latent channel is quantized at each level.

After Cui et al., "Asymmetric gained deep image compression with continuous rate adaptation" (CVPR 2021): the
encoder multiplies the latent by a gain before rounding, the decoder divides by it. There a picture has one
level; here a level is chosen for every latent position, so that the map of levels is a map of bits.
"""

import math

import torch
from torch import Tensor, nn

RATIO = math.sqrt(2)


class GainTable(nn.Module):
    """A learned gain per level and channel, held as its logarithm.

    Levels are a ladder of quantization steps that starts at √2 from rung to rung; the middle one starts at a
    gain of exactly 1, so that a map of middle levels leaves the latent as it is.
    """

    def __init__(self, levels: int, channels: int) -> None:
        super().__init__()
        # On the CPU in any case: arithmetic on parameters without values imports torch's compiler.
        rungs = torch.arange(levels, dtype=torch.float32, device="cpu") - levels // 2
        self.log_gain = nn.Parameter((rungs * math.log(RATIO))[:, None].repeat(1, channels))

    def forward(self, levels: Tensor) -> Tensor:
        """Gains [B, M, h, w] of levels, int64 [B, h, w]."""
        return _channels_first(self.log_gain[levels]).exp()

    def at(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """(levels int64 [B, h, w], their gains [B, M, h, w]) nearest to positions [B, h, w] on the ladder.

        Gains are exactly those of the levels. Their gradient in the position is that of the gain interpolated
        geometrically between the two levels around it (a straight-through estimate).
        """
        levels = position.detach().round().long().clamp(0, len(self.log_gain) - 1)
        below = position.detach().floor().long().clamp(0, len(self.log_gain) - 2)
        slope = (self.log_gain[below + 1] - self.log_gain[below]).detach()
        through = (position - position.detach())[..., None] * slope
        return levels, _channels_first(self.log_gain[levels] + through).exp()


def _channels_first(x: Tensor) -> Tensor:
    """[B, h, w, M] → [B, M, h, w], in memory too: a layout of its own would spread to the latent, for which
    convolutions then sum in another order, and training on the CPU would not be safe."""
    return x.permute(0, 3, 1, 2).contiguous()
