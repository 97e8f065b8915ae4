"""How the parts of a model are joined, transforms, hyperprior and context, and how a latent is quantized.

Images are [B, 3, H, W] with H and W multiples of 64, the latent y is [B, M, H/16, W/16] and the hyper-latent
z [B, N, H/64, W/64].
"""

from typing import Literal, TypedDict

import torch
from torch import Tensor, nn

from taskpress.coding.entropy_models import (
    EntropyBottleneck,
    GaussianConditional,
    add_noise,
    at_least_float32,
    round_around,
    round_straight_through,
)
from taskpress.coding.layers import MaskedConv2d

Quantization = Literal["noise", "straight-through", "rounded"]
"""What stands for rounding while training, so that gradients pass.

noise             uniform noise, for synthesis and rate (Ballé et al. 2018)
straight-through  the synthesis gets y rounded around the mean of a noisy context, with the gradient of y; the
                  rate is that of noise (Minnen and Singh, “Channel-wise autoregressive entropy models”, 2020)
rounded           ŷ, ẑ and the rate are those of files, but for a context that is found in a few passes.
                  ŷ and ẑ have the gradients of y and z; the rate has for y - mean and for z the gradient that
                  it has with noise, in expectation (`entropy_models.slope_of_noise`), for the scales its own,
                  and passes none to y by the context
"""

CONTEXT_PASSES = 3


class Likelihoods(TypedDict):
    """y [B, M, h, w] and z [B, N, h/4, w/4], each in (0, 1]."""

    y: Tensor
    z: Tensor


class Output(TypedDict):
    """x_hat [B, 3, H, W], the likelihoods, and ŷ [B, M, h, w]."""

    x_hat: Tensor
    likelihoods: Likelihoods
    y_hat: Tensor


class HyperpriorModel(nn.Module):
    """What the four share: how the parts are joined.

         ┌───┐  y            ┌───┐ z  ┌───┐ ẑ   ┌───┐ params
    x ──►│g_a├──►───┬───────►│h_a├───►│ Q ├────►│h_s├───┐
         └───┘      ▼        └───┘    └───┘  EB └───┘   ▼
                  ┌───┐                     ┌──────────────────┐
                  │ Q │ ŷ    ┌────────────┐ │     entropy_     │ mean, scale of
                  └─┬─┘─────►│ context_   ├►│    parameters    ├────► GC(ŷ)
         ┌───┐      │        │ prediction │ └──────────────────┘
    x̂ ◄──┤g_s│◄─────┘        └────────────┘
         └───┘
    EB: factorized entropy bottleneck; GC: Gaussian conditional. A model without `context_prediction` takes
    scale and mean straight from `params`.
    """

    N: int
    M: int
    g_a: nn.Sequential
    g_s: nn.Sequential
    h_a: nn.Sequential
    h_s: nn.Sequential
    entropy_parameters: nn.Sequential | None
    context_prediction: MaskedConv2d | None

    def __init__(self, N: int, M: int) -> None:
        super().__init__()
        self.N = N
        self.M = M
        self.entropy_bottleneck = EntropyBottleneck(N)
        self.gaussian_conditional = GaussianConditional()
        self.entropy_parameters = None
        self.context_prediction = None

    def scales_and_means(self, params: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and mean [B, M, h, w] each of ŷ, from h_s's output [B, 2M, h, w] and what precedes in ŷ."""
        if self.context_prediction is not None and self.entropy_parameters is not None:
            params = self.entropy_parameters(torch.cat((params, self.context_prediction(y_hat)), 1))
        scales, means = at_least_float32(params).chunk(2, 1)
        return scales, means

    def forward(self, x: Tensor) -> Output:
        """x [B, 3, H, W] in [0, 1] → {"x_hat": as x, "likelihoods": {"y", "z"}, "y_hat": [B, M, h, w]}.

        While training, quantization is additive noise. In evaluation mode this is what CompressAI's
        `forward` computes, which for models with a context is the parallel approximation: ŷ is rounded to
        integers and likelihoods are those of y rounded around its mean. What is coded rounds around the mean
        for both, along the wavefront: `Codec.estimate` gives that.
        """
        return self.code(at_least_float32(self.g_a(x)))

    def code(self, y: Tensor, gain: Tensor | None = None, quantization: Quantization = "noise") -> Output:
        """`forward` from the latent on: y [B, M, h, w] as it is quantized.

        `gain` [B, M, h, w] is what y was multiplied by for a finer or coarser quantization: the synthesis
        gets, and "y_hat" is, ŷ divided by it. `quantization` is what stands for rounding while training.
        """
        if not self.training:
            z_hat, z_likelihoods = self.entropy_bottleneck(at_least_float32(self.h_a(y)))
            scales, means = self.scales_and_means(self.h_s(z_hat), torch.round(y))
            y_hat, y_likelihoods = self.gaussian_conditional(y, scales, means)
            likelihoods: Likelihoods = {"y": y_likelihoods, "z": z_likelihoods}
            if self.context_prediction is not None:
                y_hat = torch.round(y)
        elif quantization == "rounded":
            y_hat, likelihoods = self._rounded(y)
        else:
            y_hat, means, likelihoods = self._noisy(y)
            if quantization == "straight-through":
                y_hat = means + round_straight_through(y - means)
        decoded = y_hat if gain is None else y_hat / gain
        return {
            "x_hat": at_least_float32(self.g_s(decoded)),
            "likelihoods": likelihoods,
            "y_hat": decoded,
        }

    def noisy_likelihoods(self, y: Tensor) -> Likelihoods:
        """Likelihoods of y [B, M, h, w] and z with noise in place of rounding, as in training, whatever the
        mode."""
        return self._noisy(y)[2]

    def rounded_likelihoods(self, y: Tensor) -> Likelihoods:
        """Likelihoods of y [B, M, h, w] as it is coded, as in training with `rounded`, whatever the mode."""
        return self._rounded(y)[1]

    def _noisy(self, y: Tensor) -> tuple[Tensor, Tensor, Likelihoods]:
        """y with noise, its means, and the likelihoods."""
        z_hat, z_likelihoods = self.entropy_bottleneck.noisy(at_least_float32(self.h_a(y)))
        # One draw for all: synthesis, context and likelihood see the same ŷ, as they will when coding.
        y_hat = add_noise(y)
        scales, means = self.scales_and_means(self.h_s(z_hat), y_hat)
        y_likelihoods = self.gaussian_conditional.likelihood(y_hat, scales, means)
        return y_hat, means, {"y": y_likelihoods, "z": z_likelihoods}

    def _rounded(self, y: Tensor) -> tuple[Tensor, Likelihoods]:
        """ŷ, with the gradient of y, and the likelihoods."""
        z_hat, z_likelihoods = self.entropy_bottleneck.rounded(at_least_float32(self.h_a(y)))
        params = self.h_s(z_hat)
        with torch.no_grad():
            # A file's ŷ follows from its neighbours one after another; all at once, a few passes come close.
            y_hat = torch.round(y)
            for _ in range(CONTEXT_PASSES):
                y_hat = round_around(y, self.scales_and_means(params, y_hat)[1])
        scales, means = self.scales_and_means(params, y_hat)
        y_likelihoods = self.gaussian_conditional.rounded_likelihood(y - means, scales)
        return means + round_straight_through(y - means), {"y": y_likelihoods, "z": z_likelihoods}
