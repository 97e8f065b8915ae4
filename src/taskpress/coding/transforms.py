"""How analysis g_a and synthesis g_s run when files are coded: in float32, or as copies in bfloat16.

Both run channels last, which spares oneDNN a reordering before and after every convolution. Where the
processor multiplies bfloat16 itself, the copies take about half the time. Nothing that decides a probability
is touched: what g_a gives is quantized and written, so a file decodes to one latent in either precision, and
only the rounding within g_s moves its pixels. docs/performance.md has the figures.
"""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from taskpress.coding.entropy_models import at_least_float32
from taskpress.coding.hyperprior import HyperpriorModel
from taskpress.coding.streams import in_strips, reach_of
from taskpress.errors import ConfigError

PRECISIONS = ("float32", "bfloat16", "auto")


@dataclass(frozen=True)
class Transform:
    """g_a or g_s: takes and gives float32, whatever it computes in.

    Without gradients only: in torch 2.14.1 the backward pass of channels last corrupts memory on the CPU.
    """

    layers: nn.Module
    dtype: torch.dtype = torch.float32

    def __call__(self, x: Tensor) -> Tensor:
        """Applies the transform to the whole tensor at once."""
        return self._given(self.layers(self._taken(x)))

    def in_strips(self, strips: Iterable[Tensor]) -> Iterator[Tensor]:
        """Applies the transform strip by strip of rows, as in `streams.in_strips`."""
        return map(self._given, in_strips(self.layers, map(self._taken, strips)))

    @cached_property
    def reach(self) -> Fraction | None:
        """Rows of input to either side that a row of output depends on; None where that is not known, and it
        has to be applied to the whole picture."""
        return reach_of(self.layers)

    def _taken(self, x: Tensor) -> Tensor:
        return x.to(dtype=self.dtype, memory_format=torch.channels_last)

    def _given(self, x: Tensor) -> Tensor:
        # Autocast may have computed in less.
        return at_least_float32(x).contiguous()


class Transforms(NamedTuple):
    """analysis  [B, 3, H, W] in [0, 1], H and W multiples of 64, to the latent [B, M, H/16, W/16]
    synthesis  a latent to its picture, not clamped
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
        return Transforms(Transform(model.g_a), Transform(model.g_s))
    return Transforms(_in_bfloat16(model.g_a), _in_bfloat16(model.g_s))


def _in_bfloat16(transform: nn.Module) -> Transform:
    converted = copy.deepcopy(transform).bfloat16().to(memory_format=torch.channels_last)
    converted.requires_grad_(False)
    return Transform(converted, torch.bfloat16)
