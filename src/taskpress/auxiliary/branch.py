"""What every auxiliary branch is: a light head on the decoded latent that exists only while training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

Learns = Literal["labels", "features", "heads"]
PRIOR = 0.01
"""Chance of an object that an untrained head states for every cell (Lin et al., arXiv:1708.02002, 3.3)."""


class Lesson(NamedTuple):
    """What the teacher saw in a batch: the uncompressed images, its layers of them, its labels."""

    images: Tensor
    layers: Sequence[Tensor]
    labels: Sequence[Any]


Heads = Callable[[Sequence[Tensor], Lesson], dict[str, Tensor]]
"""What a recognizer's heads lose, as named scalars, where its layers are the given ones."""


class AuxiliaryBranch(nn.Module, ABC):
    """Predicts from the decoded latent Ẑ what the teacher saw in the uncompressed image.

    A cell (i, j) of the latent stands for the pixels [stride·j, stride·(j+1)) × [stride·i, stride·(i+1)): the
    image's top left corner is the latent's, padding lies right and below.

    stride: pixels per cell
    learns: in the uncompressed image the teacher's "labels" or "features", or, by its "heads", from both
    """

    stride: int
    learns: ClassVar[Learns] = "labels"

    @abstractmethod
    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        """Latent [B, M, h, w] to named maps [B, ·, h, w]; which ones, the branch's docstring says."""

    @abstractmethod
    def loss(self, output: dict[str, Tensor], targets: Sequence[Any]) -> dict[str, Tensor]:
        """Named scalars whose sum is L_aux; one target of the branch's kind per image, in its pixels, or
        the teacher's layers, of the whole batch each."""


class Cost(NamedTuple):
    """parameters: how many numbers are learned; macs_per_pixel: multiply-adds per pixel of the image."""

    parameters: int
    macs_per_pixel: float


DEPTH = 5
"""Residual blocks of a stem: with the layers around them a branch sees 15 cells, 240 pixels at stride 16."""


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f(x)


def stem(latent_channels: int, width: int) -> nn.Sequential:
    """The start of every branch: one full 3×3 convolution, then separable ones, to see whole objects.

    Group normalization, since batches are of a few crops.
    """
    return nn.Sequential(
        nn.Conv2d(latent_channels, width, 3, padding=1, bias=False),
        nn.GroupNorm(_groups(width), width),
        nn.SiLU(inplace=True),
        *(Residual(tower(width)) for _ in range(DEPTH)),
    )


def tower(width: int) -> nn.Sequential:
    """A depthwise separable 3×3 convolution: a tenth of a full one's parameters and multiply-adds."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        nn.GroupNorm(_groups(width), width),
        nn.SiLU(inplace=True),
    )


def prediction(width: int, channels: int, prior: float | None = None) -> nn.Conv2d:
    """A 1×1 convolution to the predicted maps; as logits, it starts at the probability `prior` everywhere."""
    convolution = nn.Conv2d(width, channels, 1)
    nn.init.normal_(convolution.weight, std=0.01)
    bias = 0.0 if prior is None else float(torch.logit(torch.tensor(prior)))
    nn.init.constant_(convolution.bias, bias)  # type: ignore[arg-type]
    return convolution


@torch.no_grad()
def branch_cost(branch: AuxiliaryBranch, latent_channels: int) -> Cost:
    """What a branch costs a training step; in the exported codec it costs nothing, being absent."""
    side = 16
    device = next(branch.parameters()).device
    with FlopCounterMode(display=False) as counter:
        branch(torch.zeros(1, latent_channels, side, side, device=device))
    pixels = (side * branch.stride) ** 2
    parameters = sum(parameter.numel() for parameter in branch.parameters())
    return Cost(parameters, counter.get_total_flops() / 2 / pixels)


def _groups(width: int) -> int:
    return next(groups for groups in (8, 4, 2, 1) if width % groups == 0)
