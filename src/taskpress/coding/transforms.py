"""How analysis g_a and synthesis g_s run when files are coded: as they are, or as copies in bfloat16.

Where the processor multiplies bfloat16 itself, the copies take about half the time. Nothing that decides a
probability is touched: what g_a gives is quantized and written, so a file decodes to one latent in either
precision, and only the rounding within g_s moves its pixels. docs/performance.md has the figures.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from taskpress.coding.errors import ConfigError
from taskpress.coding.models import HyperpriorModel

PRECISIONS = ("float32", "bfloat16", "auto")

Transform = Callable[[Tensor], Tensor]


class Transforms(NamedTuple):
    """analysis  [B, 3, H, W] in [0, 1], H and W multiples of 64, to the latent [B, M, H/16, W/16]
    synthesis  a latent to its picture, not clamped

    Both take and give float32, whatever they compute in.
    """

    analysis: Transform
    synthesis: Transform


def check_precision(precision: str) -> str:
    """The name given; ConfigError for one that is not of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ConfigError(f"there is no precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    return precision


def has_bfloat16(device: torch.device) -> bool:
    """Whether a processor multiplies bfloat16 by instructions of its own (AVX512-BF16 or AMX).

    Where it does not, torch converts back and forth and is slower than in float32. False for other devices,
    which are not measured.
    """
    if device.type != "cpu":
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def build_transforms(model: HyperpriorModel, precision: str, device: torch.device) -> Transforms:
    """The transforms of the weights as they are now; float32 is the model's own modules, without a copy.

    "auto" is bfloat16 where `has_bfloat16`, else float32.
    """
    if precision == "float32" or (precision == "auto" and not has_bfloat16(device)):
        return Transforms(model.g_a, model.g_s)
    return Transforms(_in_bfloat16(model.g_a), _in_bfloat16(model.g_s))


def _in_bfloat16(transform: nn.Sequential) -> Transform:
    # Channels last spares oneDNN a reordering before and after every convolution.
    converted = copy.deepcopy(transform).bfloat16().to(memory_format=torch.channels_last)
    converted.requires_grad_(False)

    def run(x: Tensor) -> Tensor:
        x = x.to(dtype=torch.bfloat16, memory_format=torch.channels_last)
        return converted(x).to(dtype=torch.float32, memory_format=torch.contiguous_format)

    return run
