"""The four transforms with their entropy models, each a listing to hold against its paper's figure.

State-dict names are CompressAI's, so that checkpoints travel. N is the width of the transforms, M the number
of latent channels.
"""

from collections.abc import Callable

from torch import nn

from taskpress.coding.hyperprior import HyperpriorModel
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
