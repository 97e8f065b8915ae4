"""Allocators: what an encoder may carry beyond its transform to say explicitly where bits go.

      x ──► allocator ──► levels [h, w] ───────────────────────────► bitstream ──► gain per level, channel
                            │ gain per level, channel                                   ▼
      x ──► g_a ──► y ──────×──► Q, entropy coding (as ever) ──────► bitstream ──► ŷ ── ÷ ──► g_s ──► x̂

The hyperprior and the context model see the scaled latent. A codec without an allocator, the rule in this
project, has none of this: no weight, no bit.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from taskpress.coding.entropy_models import at_least_float32
from taskpress.coding.gain import GainTable
from taskpress.coding.level_map import level_bits


@dataclass(frozen=True)
class AllocatorSettings:
    """What an allocator is built from; travels in the codec's file.

    kind     "roi" or "semantic"
    levels   quantization levels, an odd number from 3 to 15: the middle one changes nothing
    width    channels of its network
    classes  categories beside the background, for "semantic"
    """

    kind: str
    levels: int = 5
    width: int = 32
    classes: int = 0


class Decision(NamedTuple):
    """What an allocator says of a batch.

    levels   [B, h, w] int64, the map that is coded
    gain     [B, M, h, w] float32, what the latent is multiplied by before and divided by after rounding
    bits     [B] float32, what the map costs; without gradient
    outputs  maps by which the allocator learns, and "log_prob" [B] of levels that were drawn
    """

    levels: Tensor
    gain: Tensor
    bits: Tensor
    outputs: dict[str, Tensor]


class Allocator(nn.Module, ABC):
    """Decides a level per latent position from the picture."""

    def __init__(self, settings: AllocatorSettings, latent_channels: int) -> None:
        super().__init__()
        self.settings = settings
        self.gains = GainTable(settings.levels, latent_channels)

    @abstractmethod
    def forward(self, x: Tensor, explore: torch.Generator | None = None) -> Decision:
        """x [B, 3, H, W] in [0, 1], H and W multiples of 64. With a generator (on the CPU), what is decided
        by chance is drawn from it; without, the likeliest is taken, as when files are written."""

    def attend(self, y: Tensor) -> Tensor:
        """The latent [B, M, h, w] as the encoder weighs it before the gain; as it is, unless overridden."""
        return y

    def decision(self, levels: Tensor, gain: Tensor, outputs: dict[str, Tensor]) -> Decision:
        """A decision, the bits of its map counted."""
        maps = levels.cpu().numpy()
        bits = [level_bits(one, self.settings.levels) for one in maps]
        return Decision(levels, gain, torch.tensor(bits, device=gain.device), outputs)


class CellNetwork(nn.Module):
    """A light network from pixels to latent cells: [B, 3, H, W] → features [B, width, H/16, W/16].

        3×3↓2, width/2 ── separable 3×3↓2, width (three times) ── separable 3×3 (twice)

    Depthwise separable after MobileNet (Howard et al. 2017), each with group normalization and SiLU. A cell
    sees 95×95 pixels directly, and through the normalization the picture's statistics.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(4, width // 2),
            nn.SiLU(inplace=True),
            separable(width // 2, width, stride=2),
            separable(width, width, stride=2),
            separable(width, width, stride=2),
            separable(width, width),
            separable(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        # Pixels around zero; at their mean of a half the first layer would see little but brightness.
        return at_least_float32(self.layers(2 * x - 1))


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.GroupNorm(4, outputs),
        nn.SiLU(inplace=True),
    )
