"""Explicit allocation to regions of interest, after Li et al., Neurocomputing 500, 2022.

A foreground model of the encoder's own says how likely each latent cell belongs to an object; this
probability, in equal steps, is the cell's quantization level. Channel attention weighs the latent's channels
by the whole picture before that. docs/alternatives.md says what was taken and where this differs.
"""

import torch
from torch import Tensor, nn

from taskpress.coding.allocation import Allocator, AllocatorSettings, CellNetwork, Decision


class ChannelAttention(nn.Module):
    """y · 2σ(W₂ relu(W₁ mean(|y|))): squeeze and excitation (Hu et al. 2018), which starts at a factor of 1.

    The encoder's alone: the decoder takes the channels as they come, so no bit is spent on the factors.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, max(4, channels // 4))
        self.excite = nn.Linear(max(4, channels // 4), channels)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, y: Tensor) -> Tensor:
        weights = torch.sigmoid(self.excite(torch.relu(self.squeeze(y.abs().mean((2, 3))))))
        return y * (2 * weights)[:, :, None, None]


class RoiAllocator(Allocator):
    """Foreground probability to levels.

        x ── CellNetwork ── 1×1 ── foreground logit [B, 1, h, w] ── σ · (levels - 1) ── round ── level

    Output: `foreground` [B, 1, h, w] logits. They start at 0, a probability of a half: the middle level
    everywhere. Rate and distortion reach the network straight through the rounding.
    """

    def __init__(self, settings: AllocatorSettings, latent_channels: int) -> None:
        super().__init__(settings, latent_channels)
        self.network = CellNetwork(settings.width)
        self.foreground = nn.Conv2d(settings.width, 1, 1)
        nn.init.zeros_(self.foreground.weight)
        nn.init.zeros_(self.foreground.bias)  # type: ignore[arg-type]
        self.attention = ChannelAttention(latent_channels)

    def forward(self, x: Tensor, explore: torch.Generator | None = None) -> Decision:
        logits = self.foreground(self.network(x)).float()
        levels, gain = self.gains.at(torch.sigmoid(logits[:, 0]) * (self.settings.levels - 1))
        return self.decision(levels, gain, {"foreground": logits})

    def attend(self, y: Tensor) -> Tensor:
        return self.attention(y)
