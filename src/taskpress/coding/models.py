"""The four transforms with their entropy models, each a listing to hold against its paper's figure.

State-dict names are CompressAI's, so that checkpoints travel. N is the width of the transforms, M the number
of latent channels; images are [B, 3, H, W] with H and W multiples of 64, the latent y is [B, M, H/16, W/16]
and the hyper-latent z [B, N, H/64, W/64].
"""

from collections.abc import Callable
from typing import TypedDict

import torch
from torch import Tensor, nn

from taskpress.coding.entropy_models import (
    EntropyBottleneck,
    GaussianConditional,
    add_noise,
    at_least_float32,
    round_straight_through,
)
from taskpress.coding.layers import (
    GDN,
    AttentionBlock,
    MaskedConv2d,
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    conv,
    conv3x3,
    deconv,
    subpel_conv3x3,
)


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

    def code(self, y: Tensor, gain: Tensor | None = None, straight_through: bool = False) -> Output:
        """`forward` from the latent on: y [B, M, h, w] as it is quantized.

        `gain` [B, M, h, w] is what y was multiplied by for a finer or coarser quantization: the synthesis
        gets, and "y_hat" is, ŷ divided by it. `straight_through`: while training, the synthesis gets, and
        "y_hat" is, y rounded around its mean, as it is coded, with the gradient of y itself; the rate keeps
        the noise, without which it would have no gradient of use (Minnen and Singh, “Channel-wise
        autoregressive entropy models”, 2020). The means are those of the noisy context.
        """
        if self.training:
            y_hat, means, likelihoods = self._noisy(y, self.entropy_bottleneck)
            if straight_through:
                y_hat = means + round_straight_through(y - means)
        else:
            z_hat, z_likelihoods = self.entropy_bottleneck(at_least_float32(self.h_a(y)))
            scales, means = self.scales_and_means(self.h_s(z_hat), torch.round(y))
            y_hat, y_likelihoods = self.gaussian_conditional(y, scales, means)
            likelihoods = {"y": y_likelihoods, "z": z_likelihoods}
            if self.context_prediction is not None:
                y_hat = torch.round(y)
        decoded = y_hat if gain is None else y_hat / gain
        return {
            "x_hat": at_least_float32(self.g_s(decoded)),
            "likelihoods": likelihoods,
            "y_hat": decoded,
        }

    def noisy_likelihoods(self, y: Tensor) -> Likelihoods:
        """Of y [B, M, h, w] and z with noise in place of rounding, as in training, whatever the mode."""
        return self._noisy(y, self.entropy_bottleneck.noisy)[2]

    def _noisy(
        self, y: Tensor, prior: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor, Likelihoods]:
        """y with noise, its means, and the likelihoods; `prior` gives z with noise and its likelihoods."""
        z_hat, z_likelihoods = prior(at_least_float32(self.h_a(y)))
        # One draw for all: synthesis, context and likelihood see the same ŷ, as they will when coding.
        y_hat = add_noise(y)
        scales, means = self.scales_and_means(self.h_s(z_hat), y_hat)
        y_likelihoods = self.gaussian_conditional.likelihood(y_hat, scales, means)
        return y_hat, means, {"y": y_likelihoods, "z": z_likelihoods}


def gdn_analysis(N: int, M: int) -> nn.Sequential:
    return nn.Sequential(conv(3, N), GDN(N), conv(N, N), GDN(N), conv(N, N), GDN(N), conv(N, M))


def gdn_synthesis(N: int, M: int) -> nn.Sequential:
    return nn.Sequential(
        deconv(M, N),
        GDN(N, inverse=True),
        deconv(N, N),
        GDN(N, inverse=True),
        deconv(N, N),
        GDN(N, inverse=True),
        deconv(N, 3),
    )


def hyper_analysis(N: int, M: int) -> nn.Sequential:
    return nn.Sequential(
        conv(M, N, kernel=3, stride=1),
        nn.LeakyReLU(inplace=True),
        conv(N, N),
        nn.LeakyReLU(inplace=True),
        conv(N, N),
    )


def hyper_synthesis(N: int, M: int) -> nn.Sequential:
    return nn.Sequential(
        deconv(N, M),
        nn.LeakyReLU(inplace=True),
        deconv(M, M * 3 // 2),
        nn.LeakyReLU(inplace=True),
        conv(M * 3 // 2, M * 2, kernel=3, stride=1),
    )


def parameter_network(M: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(M * 4, M * 10 // 3, 1),
        nn.LeakyReLU(inplace=True),
        nn.Conv2d(M * 10 // 3, M * 8 // 3, 1),
        nn.LeakyReLU(inplace=True),
        nn.Conv2d(M * 8 // 3, M * 2, 1),
    )


class MeanScaleHyperprior(HyperpriorModel):
    """Minnen, Ballé, Toderici 2018 (arXiv 1809.02736) without the context model; CompressAI's mbt2018-mean.

    g_a  conv5×5↓2 GDN · conv5×5↓2 GDN · conv5×5↓2 GDN · conv5×5↓2
    h_a  conv3×3 ↯ conv5×5↓2 ↯ conv5×5↓2                          ↯ leaky ReLU
    h_s  deconv5×5↑2 ↯ deconv5×5↑2 ↯ conv3×3 → scale, mean
    g_s  deconv5×5↑2 IGDN · deconv5×5↑2 IGDN · deconv5×5↑2 IGDN · deconv5×5↑2
    """

    def __init__(self, N: int, M: int) -> None:
        super().__init__(N, M)
        self.g_a = gdn_analysis(N, M)
        self.g_s = gdn_synthesis(N, M)
        self.h_a = hyper_analysis(N, M)
        self.h_s = hyper_synthesis(N, M)


class JointAutoregressive(HyperpriorModel):
    """Minnen, Ballé, Toderici 2018 (arXiv 1809.02736), the whole model; CompressAI's mbt2018.

    g_a, h_a, h_s, g_s as in MeanScaleHyperprior, and

    context_prediction  masked 5×5 over ŷ ────┐
    h_s ──────────────────────────────────────┴─ concat ─ entropy_parameters 1×1 ↯ 1×1 ↯ 1×1 → scale, mean
    """

    def __init__(self, N: int, M: int) -> None:
        super().__init__(N, M)
        self.g_a = gdn_analysis(N, M)
        self.g_s = gdn_synthesis(N, M)
        self.h_a = hyper_analysis(N, M)
        self.h_s = hyper_synthesis(N, M)
        self.entropy_parameters = parameter_network(M)
        self.context_prediction = MaskedConv2d(M, 2 * M)


class Cheng2020(HyperpriorModel):
    """Hyperprior, context and synthesis shared by both models of Cheng et al. 2020; M = N.

    h_a  3×3 ↯ 3×3 ↯ 3×3↓2 ↯ 3×3 ↯ 3×3↓2
    h_s  3×3 ↯ 3×3↑2 ↯ 3×3 ↯ 3×3↑2 ↯ 3×3 ──┬─ concat ─ entropy_parameters → scale, mean
    context_prediction  masked 5×5 over ŷ ─┘
    """

    def __init__(self, N: int) -> None:
        super().__init__(N, N)
        self.h_a = nn.Sequential(
            conv3x3(N, N),
            nn.LeakyReLU(inplace=True),
            conv3x3(N, N),
            nn.LeakyReLU(inplace=True),
            conv3x3(N, N, stride=2),
            nn.LeakyReLU(inplace=True),
            conv3x3(N, N),
            nn.LeakyReLU(inplace=True),
            conv3x3(N, N, stride=2),
        )
        self.h_s = nn.Sequential(
            conv3x3(N, N),
            nn.LeakyReLU(inplace=True),
            subpel_conv3x3(N, N, 2),
            nn.LeakyReLU(inplace=True),
            conv3x3(N, N * 3 // 2),
            nn.LeakyReLU(inplace=True),
            subpel_conv3x3(N * 3 // 2, N * 3 // 2, 2),
            nn.LeakyReLU(inplace=True),
            conv3x3(N * 3 // 2, N * 2),
        )
        self.entropy_parameters = parameter_network(N)
        self.context_prediction = MaskedConv2d(N, 2 * N)


class Cheng2020Anchor(Cheng2020):
    """Cheng et al. 2020 (arXiv 2001.01568) without attention; CompressAI's cheng2020-anchor.

    g_a  RB↓2 · RB · RB↓2 · RB · RB↓2 · RB · 3×3↓2          RB: residual block, ↓2/↑2 with GDN/IGDN
    g_s  RB · RB↑2 · RB · RB↑2 · RB · RB↑2 · RB · 3×3↑2
    """

    def __init__(self, N: int) -> None:
        super().__init__(N)
        self.g_a = nn.Sequential(
            ResidualBlockWithStride(3, N),
            ResidualBlock(N),
            ResidualBlockWithStride(N, N),
            ResidualBlock(N),
            ResidualBlockWithStride(N, N),
            ResidualBlock(N),
            conv3x3(N, N, stride=2),
        )
        self.g_s = nn.Sequential(
            ResidualBlock(N),
            ResidualBlockUpsample(N),
            ResidualBlock(N),
            ResidualBlockUpsample(N),
            ResidualBlock(N),
            ResidualBlockUpsample(N),
            ResidualBlock(N),
            subpel_conv3x3(N, 3, 2),
        )


class Cheng2020Attention(Cheng2020):
    """Cheng et al. 2020 (arXiv 2001.01568), figure 4, with one Gaussian; CompressAI's cheng2020-attn.

    g_a  RB↓2 · RB · RB↓2 · ATT · RB · RB↓2 · RB · 3×3↓2 · ATT
    g_s  ATT · RB · RB↑2 · RB · RB↑2 · ATT · RB · RB↑2 · RB · 3×3↑2
    """

    def __init__(self, N: int) -> None:
        super().__init__(N)
        self.g_a = nn.Sequential(
            ResidualBlockWithStride(3, N),
            ResidualBlock(N),
            ResidualBlockWithStride(N, N),
            AttentionBlock(N),
            ResidualBlock(N),
            ResidualBlockWithStride(N, N),
            ResidualBlock(N),
            conv3x3(N, N, stride=2),
            AttentionBlock(N),
        )
        self.g_s = nn.Sequential(
            AttentionBlock(N),
            ResidualBlock(N),
            ResidualBlockUpsample(N),
            ResidualBlock(N),
            ResidualBlockUpsample(N),
            AttentionBlock(N),
            ResidualBlock(N),
            ResidualBlockUpsample(N),
            ResidualBlock(N),
            subpel_conv3x3(N, 3, 2),
        )


# Each builds a model from (N, M).
ARCHITECTURES: dict[str, Callable[[int, int], HyperpriorModel]] = {
    "cheng2020-attention": lambda N, M: Cheng2020Attention(N),
    "cheng2020-anchor": lambda N, M: Cheng2020Anchor(N),
    "joint-autoregressive": JointAutoregressive,
    "mean-scale-hyperprior": MeanScaleHyperprior,
}
SQUARE_ARCHITECTURES = ("cheng2020-attention", "cheng2020-anchor")
