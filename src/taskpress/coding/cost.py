"""What an encoder weighs: parameters, and multiply-adds as torch counts them."""

from typing import TYPE_CHECKING, NamedTuple

import torch

from taskpress.coding.allocation import Allocator
from taskpress.coding.grid import CELL
from taskpress.coding.hyperprior import HyperpriorModel

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

MODEL_SIDE = 64
PICTURE_SIDE = 256


class Cost(NamedTuple):
    """parameters: how many numbers; macs_per_pixel: multiply-adds per pixel of the picture."""

    parameters: int
    macs_per_pixel: float


def _counter() -> "FlopCounterMode":
    # Importing it takes half a second and 80 MB, for triton, of which coding needs nothing.
    from torch.utils.flop_counter import FlopCounterMode

    return FlopCounterMode(display=False)


@torch.no_grad()
def model_cost(model: HyperpriorModel) -> Cost:
    """The cost of what an encoder runs: analysis, hyperprior, context and entropy parameters."""
    parts = (
        model.g_a,
        model.h_a,
        model.h_s,
        model.entropy_bottleneck,
        model.context_prediction,
        model.entropy_parameters,
    )
    parameters = sum(p.numel() for part in parts if part is not None for p in part.parameters())
    device = next(model.parameters()).device
    with _counter() as counter:
        y = model.g_a(torch.zeros(1, 3, MODEL_SIDE, MODEL_SIDE, device=device))
        model.scales_and_means(model.h_s(model.h_a(y)), y)
    return Cost(parameters, counter.get_total_flops() / 2 / MODEL_SIDE**2)


@torch.no_grad()
def allocator_cost(allocator: Allocator, latent_channels: int) -> Cost:
    """The cost of an allocator; what it computes once a picture is spread over 256×256 pixels."""
    parameters = list(allocator.parameters())
    device, cells = parameters[0].device, PICTURE_SIDE // CELL
    with _counter() as counter:
        allocator(torch.zeros(1, 3, PICTURE_SIDE, PICTURE_SIDE, device=device))
        allocator.attend(torch.zeros(1, latent_channels, cells, cells, device=device))
    return Cost(sum(p.numel() for p in parameters), counter.get_total_flops() / 2 / PICTURE_SIDE**2)
