"""ResNeXt with a feature pyramid as Detectron2 builds it; every name is a key of its checkpoints.

Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017; Lin et al., "Feature
Pyramid Networks for Object Detection", CVPR 2017.

image ─ stem /4 ─ res2 /4 ─ res3 /8 ─ res4 /16 ─ res5 /32
                   │         │         │          │
             lateral 1×1     …         …          │
                   │   ×2    │   ×2    │    ×2    │
                   + ◄────── + ◄────── + ◄─────── ┤
              output 3×3     …         …          │
                   P2        P3        P4         P5 ─ every second position ─ P6
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

STRIDES = (4, 8, 16, 32, 64)
"""Strides of P2 to P6, in pixels."""


@dataclass(frozen=True)
class Architecture:
    """The numbers behind every shape; the defaults are COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.

    blocks:      bottlenecks in res2 to res5
    stem:        channels of the stem
    groups:      of each bottleneck's 3×3 convolution …
    group_width: … and channels of each in res2; they double from stage to stage
    res2:        channels that leave res2; they double from stage to stage
    pyramid:     channels of P2 to P6
    hidden:      width of the two layers of the box head
    classes:     without background
    """

    blocks: tuple[int, int, int, int] = (3, 4, 23, 3)
    stem: int = 64
    groups: int = 32
    group_width: int = 8
    res2: int = 256
    pyramid: int = 256
    hidden: int = 1024
    classes: int = 80


class NormalizedConv(nn.Conv2d):
    """A convolution without bias, then frozen BatchNorm (eps 1e-5)."""

    def __init__(self, channels: int, width: int, side: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, width, side, stride, side // 2, groups=groups, bias=False)
        self.norm = FrozenBatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class Stem(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = NormalizedConv(3, width, 7, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu_(self.conv1(x)), 3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """1×1, grouped 3×3 with the stride, 1×1, around an identity or a 1×1 convolution."""

    def __init__(self, channels: int, width: int, out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.shortcut = NormalizedConv(channels, out, 1, stride) if channels != out else None
        self.conv1 = NormalizedConv(channels, width, 1)
        self.conv2 = NormalizedConv(width, width, 3, stride, groups)
        self.conv3 = NormalizedConv(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))
        return F.relu_(branch + (x if self.shortcut is None else self.shortcut(x)))


class ResNeXt(nn.Module):
    """[B, 3, H, W] to the four outputs of res2 to res5, [B, 256, H/4, W/4] to [B, 2048, H/32, W/32]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.stem = Stem(architecture.stem)
        channels, out = architecture.stem, architecture.res2
        width = architecture.groups * architecture.group_width
        for stage, count in enumerate(architecture.blocks):
            blocks = []
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(Bottleneck(channels, width, out, stride, architecture.groups))
                channels = out
            self.add_module(f"res{stage + 2}", nn.Sequential(*blocks))
            out, width = 2 * out, 2 * width

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        outputs = []
        for number in range(2, 6):
            x = self.get_submodule(f"res{number}")(x)
            outputs.append(x)
        return outputs


class FeaturePyramid(nn.Module):
    """[B, 3, H, W], H and W multiples of 32, to P2 … P6: [B, 256, H/4, W/4] … [B, 256, ⌈H/64⌉, ⌈W/64⌉]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.bottom_up = ResNeXt(architecture)
        for number in range(2, 6):
            channels = architecture.res2 * 2 ** (number - 2)
            self.add_module(f"fpn_lateral{number}", nn.Conv2d(channels, architecture.pyramid, 1))
            self.add_module(
                f"fpn_output{number}", nn.Conv2d(architecture.pyramid, architecture.pyramid, 3, padding=1)
            )

    def forward(self, x: Tensor) -> list[Tensor]:
        stages = self.bottom_up(x)
        above = None
        levels: list[Tensor] = []
        for number, stage in zip((5, 4, 3, 2), reversed(stages), strict=True):
            merged = self.get_submodule(f"fpn_lateral{number}")(stage)
            if above is not None:
                merged = merged + F.interpolate(above, scale_factor=2.0, mode="nearest")
            levels.insert(0, self.get_submodule(f"fpn_output{number}")(merged))
            above = merged
        return [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2)]
