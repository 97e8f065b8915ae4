"""How likely a quantized value is: the factorized prior of the hyper-latent and the conditional Gaussian.

Both round, or have in training what stands for it (`hyperprior.Quantization`), and bound likelihoods from
below by 1e-9 (Ballé et al. 2018). Parameter names are CompressAI's. The noise is drawn from torch's global
generator, so that a seed fixes a training run.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taskpress.coding.layers import lower_bound

LIKELIHOOD_BOUND = 1e-9
SCALE_BOUND = 0.11


def add_noise(x: Tensor) -> Tensor:
    """x + U(-½, ½), the differentiable stand-in for rounding."""
    return x + torch.empty_like(x).uniform_(-0.5, 0.5)


def round_straight_through(x: Tensor) -> Tensor:
    """round(x), whose gradient is that of x."""
    return x + (torch.round(x) - x).detach()


def at_least_float32(x: Tensor) -> Tensor:
    """Undoes what mixed precision does to a layer's output: eight bits of mantissa code no probability."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def round_around(x: Tensor, mean: Tensor) -> Tensor:
    """round(x - mean) + mean, elementwise with broadcasting."""
    return torch.round(x - mean) + mean


def slope_of_noise(likelihood: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """1, with the gradient for x that lets the likelihood of round(x), times it, pass for differentiable.

    What a rounded value costs is flat in x but for jumps. With uniform noise u in place of rounding, the
    expected cost ∫ -log p(x + u) du over |u| < ½ has the slope log p(x - ½) - log p(x + ½), itself free of
    noise.
    """
    with torch.no_grad():
        slope = torch.log(likelihood(x - 0.5)) - torch.log(likelihood(x + 0.5))
    return torch.exp(-slope * (x - x.detach()))


class EntropyBottleneck(nn.Module):
    """Fully factorized prior: per channel a learned monotone cumulative (Ballé et al. 2018, appendix 6.1).

    `quantiles` [C, 1, 3] holds the 5e-10 quantile, the median and the 1 - 5e-10 quantile of every channel.
    Only the median matters: values are rounded around it. It is found by bisection, not by an auxiliary
    optimizer, whenever a bottleneck that was trained enters evaluation mode or gives its state dict, and in
    training where values are rounded; one that was only loaded keeps the quantiles it came with.
    """

    WIDTHS = (1, 3, 3, 3, 3, 1)
    INIT_SCALE = 10.0
    TAIL_MASS = 1e-9

    quantiles: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.matrices = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.factors = nn.ParameterList()
        layers = len(self.WIDTHS) - 1
        scale = self.INIT_SCALE ** (1 / layers)
        for inputs, outputs in zip(self.WIDTHS[:-1], self.WIDTHS[1:], strict=True):
            # A number first: arithmetic on parameters without values (torch's meta device) imports torch's
            # compiler, which takes seconds.
            start = torch.expm1(torch.tensor(1 / scale / outputs, device="cpu")).log().item()
            self.matrices.append(nn.Parameter(torch.full((channels, outputs, inputs), start)))
            self.biases.append(nn.Parameter(torch.empty(channels, outputs, 1).uniform_(-0.5, 0.5)))
        for outputs in self.WIDTHS[1:-1]:
            self.factors.append(nn.Parameter(torch.zeros(channels, outputs, 1)))
        spread = torch.tensor([-self.INIT_SCALE, 0.0, self.INIT_SCALE])
        self.register_buffer("quantiles", spread.expand(channels, 1, 3).clone())
        self.stale = False

    @property
    def medians(self) -> Tensor:
        """[1, C, 1, 1]: what values are rounded around."""
        return self.quantiles[:, 0, 1].reshape(1, -1, 1, 1)

    def logits_cumulative(self, x: Tensor) -> Tensor:
        """Logit of P(value ≤ x), for x [C, 1, n] in the parameters' dtype or a wider one."""
        logits = x
        for i, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            logits = F.softplus(matrix.to(x.dtype)) @ logits + bias.to(x.dtype)
            if i < len(self.factors):
                logits = logits + torch.tanh(self.factors[i].to(x.dtype)) * torch.tanh(logits)
        return logits

    def likelihood(self, x: Tensor) -> Tensor:
        """P(x - ½ < value ≤ x + ½), at least 1e-9, for x [B, C, H, W]."""
        values = x.transpose(0, 1).reshape(self.channels, 1, -1)
        with torch.autocast(x.device.type, enabled=False):
            upper = self.logits_cumulative(values + 0.5)
            lower = self.logits_cumulative(values - 0.5)
            # Both on the lower tail, where sigmoid keeps its precision.
            side = torch.where(upper + lower > 0, -1.0, 1.0).to(x.dtype)
            mass = (torch.sigmoid(side * upper) - torch.sigmoid(side * lower)).abs()
        bounded = lower_bound(mass, LIKELIHOOD_BOUND)
        batch, channels, height, width = x.shape
        return bounded.reshape(channels, batch, height, width).transpose(0, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] → (x as it is coded, likelihoods), both of x's shape."""
        quantized = round_around(x, self.medians)
        return quantized, self.likelihood(quantized)

    def noisy(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] with noise in place of rounding, and its likelihoods."""
        self.stale = self.stale or self.training
        quantized = add_noise(x)
        return quantized, self.likelihood(quantized)

    def rounded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] as it is coded, with the gradient of x, and its likelihoods (`slope_of_noise`).

        While training it is rounded around the median of this moment, to 2e-4.
        """
        if self.training:
            self.stale = True
            self.quantiles[:, 0, 1] = self.quantile_of(0.0, halvings=30)
        quantized = self.medians + round_straight_through(x - self.medians)
        return quantized, self.likelihood(quantized.detach()) * slope_of_noise(self.likelihood, x)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # A state dict of a training has the quantiles of its weights: whoever loads it cannot know that they
        # are stale. They stay so here, as the optimizer's next step may come without another batch.
        if self.stale:
            self.fit_quantiles()
            self.stale = self.training
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def train(self, mode: bool = True) -> "EntropyBottleneck":
        if not mode and self.stale:
            self.fit_quantiles()
        super().train(mode)
        return self

    @torch.no_grad()
    def quantile_of(self, logit: float, halvings: int = 54) -> Tensor:
        """[C] float64: where a channel's cumulative reaches sigmoid(`logit`), within ±1e5, by bisection.

        2e5 halved 54 times is 1e-11, far below the last bit of a float32 median.
        """
        low = torch.full((self.channels, 1, 1), -1e5, dtype=torch.float64, device=self.quantiles.device)
        high = -low
        for _ in range(halvings):
            middle = (low + high) / 2
            below = self.logits_cumulative(middle) < logit
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return ((low + high) / 2).reshape(-1)

    @torch.no_grad()
    def fit_quantiles(self) -> None:
        """Sets `quantiles` to those of the learned cumulative."""
        tail = torch.logit(torch.tensor(self.TAIL_MASS / 2, dtype=torch.float64)).item()
        for i, logit in enumerate((tail, 0.0, -tail)):
            self.quantiles[:, 0, i] = self.quantile_of(logit)
        self.stale = False


class GaussianConditional(nn.Module):
    """Gaussian with given mean and scale, integrated over bins of width one. It has nothing to learn."""

    def likelihood(self, x: Tensor, scales: Tensor, means: Tensor) -> Tensor:
        """P(x - ½ < N(mean, scale²) ≤ x + ½), at least 1e-9; scales are at least 0.11. All of one shape."""
        scales = lower_bound(scales, SCALE_BOUND)
        distance = (x - means).abs()
        # Both bounds on the lower tail, where erfc keeps its precision.
        upper = 0.5 * torch.erfc((distance - 0.5) / scales * 2**-0.5)
        lower = 0.5 * torch.erfc((distance + 0.5) / scales * 2**-0.5)
        return lower_bound(upper - lower, LIKELIHOOD_BOUND)

    def rounded_likelihood(self, distance: Tensor, scales: Tensor) -> Tensor:
        """`likelihood` of round(distance) around 0, with a gradient for `distance` [B, M, h, w] as well.

        Value and gradient for the scales are those of what is coded, the slope is `slope_of_noise`.
        """

        def centred(x: Tensor) -> Tensor:
            return self.likelihood(x, scales, torch.zeros_like(x))

        return centred(torch.round(distance).detach()) * slope_of_noise(centred, distance)

    def forward(self, x: Tensor, scales: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        """(x as it is coded, likelihoods), both of x's shape."""
        quantized = round_around(x, means)
        return quantized, self.likelihood(quantized, scales, means)
