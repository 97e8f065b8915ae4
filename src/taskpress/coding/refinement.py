"""An encoder that goes on after g_a: the latent of one picture, refined by what the codec was trained for.

g_a guesses a latent in one pass. An encoder that has time begins there and descends

    L = λ · distortion(x̂) + R

by the latent alone, for this one picture; weights, format and decoder stay as they are (Campos et al.,
“Content adaptive optimization for neural image compression”, 2019; Yang et al., “Improving inference for
neural image compression”, NeurIPS 2020; for machines Le et al., “Learned image coding for machines: a
content-adaptive approach”, ICME 2021). x̂ is what the file of that moment would decode to, rounded as it is
coded, with the gradient of what is unrounded; R is that of a noisy latent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from taskpress.coding.hyperprior import HyperpriorModel
from taskpress.coding.transforms import Transforms
from taskpress.errors import CodecError

Distortion = Callable[[Tensor], Tensor]
"""The distortion of a decoded picture [1, 3, H, W] in [0, 1]: a scalar, differentiable."""


class Refinement(NamedTuple):
    """How a latent is refined.

    distortion_of: from a picture, [1, 3, H, W] float32 in [0, 1], to the distortion of what is decoded of it
    lmbda:         λ
    steps:         of Adam
    learning_rate: at the first of them, in units of the quantization step; it falls to 0 by a cosine
    judge:         what the distortion runs, as results name it
    """

    distortion_of: Callable[[Tensor], Distortion]
    lmbda: float
    steps: int = 30
    learning_rate: float = 0.08
    judge: str = "a distortion"


class LatentCoder(Protocol):
    """What `picture_coding.PictureCoder` is to a latent [1, M, h, w]."""

    @property
    def model(self) -> HyperpriorModel: ...

    @property
    def transforms(self) -> Transforms: ...

    def quantized(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """ŷ and ẑ, as a file holds them."""
        ...

    def payload(self, y: Tensor) -> bytes: ...


def refine(
    coder: LatentCoder, picture: Tensor, y: Tensor, gain: Tensor | None, refinement: Refinement
) -> Tensor:
    """A latent [1, M, h, w] to be coded instead of `y`, of no larger L than it.

    picture: [1, 3, H, W] in [0, 1], not padded
    y:       what would be coded without: g_a's latent, times `gain` where the codec has an allocator

    The same for the same picture, whatever torch's global random state, which is left as it was: so refine
    one picture at a time in a process. CodecError where L or its gradient is not finite.
    """
    chance = [y.device] if y.device.type == "cuda" else []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(chance):
        distortion = refinement.distortion_of(picture.clone())
        # Copies: what inference mode gave takes no part in gradients.
        first, gain = y.clone(), None if gain is None else gain.clone()
        latent = first.clone().requires_grad_()
        optimizer = torch.optim.Adam([latent], refinement.learning_rate)
        for step in range(refinement.steps):
            _seed(step, y.device)
            optimizer.param_groups[0]["lr"] = refinement.learning_rate * _cosine(step / refinement.steps)
            decoded = _decoded(coder, latent, picture, gain)
            loss = refinement.lmbda * distortion(decoded) + _noisy_rate(coder.model, latent, picture)
            (latent.grad,) = torch.autograd.grad(loss, latent)
            if not (torch.isfinite(loss) and torch.isfinite(latent.grad).all()):
                raise CodecError(_not_finite(refinement, loss.item(), step))
            optimizer.step()
        with torch.no_grad():
            # L of both as files have it, under the same chance; the last step may have been a bad one.
            outcomes = []
            for candidate in (first, latent.detach()):
                _seed(refinement.steps, y.device)
                rate = 8 * len(coder.payload(candidate)) / (picture.shape[2] * picture.shape[3])
                missed = float(distortion(_decoded(coder, candidate, picture, gain)))
                outcomes.append(refinement.lmbda * missed + rate)
        if not all(map(math.isfinite, outcomes)):
            raise CodecError(_not_finite(refinement, max(outcomes, key=abs), refinement.steps))
        return latent.detach() if outcomes[1] < outcomes[0] else first


def _seed(seed: int, device: torch.device) -> None:
    """The states of the generators that the process and this device draw from, and no other's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _not_finite(refinement: Refinement, loss: float, step: int) -> str:
    if step == 0:
        return f"refining: by {refinement.judge} the loss is {loss} in step 1, or its gradient is no number"
    return (
        f"refining: the loss is {loss} in step {step + 1}, or its gradient is no number; lower the "
        f"refinement's lmbda ({refinement.lmbda:g}) or learning_rate ({refinement.learning_rate:g})"
    )


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def _decoded(coder: LatentCoder, latent: Tensor, picture: Tensor, gain: Tensor | None) -> Tensor:
    """What a file of the latent decodes to, of the picture's size; its gradient is that of no rounding."""
    y_hat, _ = coder.quantized(latent.detach())
    coded = latent + (y_hat - latent).detach()
    with torch.autocast(
        latent.device.type, torch.bfloat16, enabled=coder.transforms.synthesis.dtype == torch.bfloat16
    ):
        x_hat = coder.model.g_s(coded if gain is None else coded / gain)
    return x_hat[..., : picture.shape[2], : picture.shape[3]].float().clamp(0, 1)


def _noisy_rate(model: HyperpriorModel, latent: Tensor, picture: Tensor) -> Tensor:
    """R in bits per pixel, with noise in place of rounding."""
    likelihoods = model.noisy_likelihoods(latent)
    bits = -(torch.log2(likelihoods["y"]).sum() + torch.log2(likelihoods["z"]).sum())
    return bits / (picture.shape[2] * picture.shape[3])
