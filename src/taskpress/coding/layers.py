"""Building blocks of the transforms, with the attribute names of CompressAI's state dicts.

All blocks map [B, C, H, W] float tensors to [B, C', H', W'].
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LowerBoundFunction(torch.autograd.Function):
    """max(x, bound) whose gradient passes where x is above the bound or is pushed up towards it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp_min(bound)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        (grad,) = grads
        return grad * ((x >= ctx.bound) | (grad < 0)), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """max(x, bound), elementwise. Unlike clamp, an x below the bound still learns to rise above it."""
    return LowerBoundFunction.apply(x, bound)


def conv(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.Conv2d:
    """Strided convolution; the output is the input's size divided by `stride`."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def deconv(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.ConvTranspose2d:
    """Transposed convolution; the output is the input's size times `stride`."""
    return nn.ConvTranspose2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, output_padding=stride - 1
    )


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride=stride)


def subpel_conv3x3(inputs: int, outputs: int, factor: int) -> nn.Sequential:
    """3×3 convolution and pixel shuffle: up-sampling by `factor`."""
    return nn.Sequential(conv3x3(inputs, outputs * factor**2), nn.PixelShuffle(factor))


class GDN(nn.Module):
    """Generalized divisive normalization, y_i = x_i / sqrt(β_i + Σ_j γ_ij x_j²) (Ballé et al. 2016).

    `inverse=True` multiplies instead. β and γ are learned as square roots with a small pedestal, which
    keeps them non-negative and their gradients alive near zero.
    """

    PEDESTAL = 2.0**-36
    BETA_MIN = 1e-6

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        # Roots of 1, 0.1 and 0. Numbers first: arithmetic on parameters without values (torch's meta device)
        # imports torch's compiler, which takes seconds.
        starts = torch.tensor([1.0, 0.1, 0.0], device="cpu") + self.PEDESTAL
        beta, diagonal, beside = starts.sqrt().tolist()
        self.beta = nn.Parameter(torch.full((channels,), beta))
        self.gamma = nn.Parameter(torch.full((channels, channels), beside).fill_diagonal_(diagonal))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        beta = lower_bound(self.beta, (self.BETA_MIN + self.PEDESTAL) ** 0.5) ** 2 - self.PEDESTAL
        gamma = lower_bound(self.gamma, self.PEDESTAL**0.5) ** 2 - self.PEDESTAL
        norm = F.conv2d(x * x, gamma.reshape(channels, channels, 1, 1), beta)
        return x * (norm.sqrt() if self.inverse else norm.rsqrt())


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)
        self.leaky_relu = nn.LeakyReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.leaky_relu(self.conv2(self.leaky_relu(self.conv1(x)))) + x


class ResidualBlockWithStride(nn.Module):
    """Down-sampling by two: 3×3 stride 2, 3×3, GDN beside a strided 1×1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride=2)
        self.leaky_relu = nn.LeakyReLU(inplace=True)
        self.conv2 = conv3x3(outputs, outputs)
        self.gdn = GDN(outputs)
        self.skip = conv1x1(inputs, outputs, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.gdn(self.conv2(self.leaky_relu(self.conv1(x)))) + self.skip(x)


class ResidualBlockUpsample(nn.Module):
    """Up-sampling by two: sub-pixel 3×3, 3×3, inverse GDN beside a sub-pixel 3×3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.subpel_conv = subpel_conv3x3(channels, channels, 2)
        self.leaky_relu = nn.LeakyReLU(inplace=True)
        self.conv = conv3x3(channels, channels)
        self.igdn = GDN(channels, inverse=True)
        self.upsample = subpel_conv3x3(channels, channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.igdn(self.conv(self.leaky_relu(self.subpel_conv(x)))) + self.upsample(x)


class ResidualUnit(nn.Module):
    """1×1, 3×3, 1×1 bottleneck beside the identity, then ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv1x1(channels, channels // 2),
            nn.ReLU(inplace=True),
            conv3x3(channels // 2, channels // 2),
            nn.ReLU(inplace=True),
            conv1x1(channels // 2, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


class AttentionBlock(nn.Module):
    """x + a(x)·sigmoid(b(x)): the simplified attention of Cheng et al. 2020, figure 6(b)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_a = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)))
        self.conv_b = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)), conv1x1(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_a(x) * torch.sigmoid(self.conv_b(x)) + x


class MaskedConv2d(nn.Conv2d):
    """5×5 convolution that sees only what a raster scan has already passed (mask A of PixelCNN).

    Two rows above and two columns to the left: 12 of the 25 taps. The others are zero and stay so.
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 5, padding=2)
        mask = torch.zeros(1, 1, 5, 5)
        mask[..., :2, :] = 1
        mask[..., 2, :2] = 1
        self.register_buffer("mask", mask, persistent=False)
        with torch.no_grad():
            self.weight.mul_(mask)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight * self.mask, self.bias, padding=2)
