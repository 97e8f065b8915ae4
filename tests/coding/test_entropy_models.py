"""Likelihoods against torch.distributions and sums to one; quantiles that are quantiles; seeded noise."""

from collections.abc import Callable

import torch
from torch.distributions import Normal

from taskpress.coding.entropy_models import EntropyBottleneck, GaussianConditional


def stirred(channels: int = 4) -> EntropyBottleneck:
    torch.manual_seed(0)
    bottleneck = EntropyBottleneck(channels)
    with torch.no_grad():
        for parameter in bottleneck.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return bottleneck


def test_gaussian_likelihood_is_a_difference_of_cumulatives() -> None:
    torch.manual_seed(0)
    x, means = torch.randint(-6, 7, (1, 2, 8, 8)).double(), torch.randn(1, 2, 8, 8).double()
    scales = torch.rand(1, 2, 8, 8).double() * 3 - 0.5
    normal = Normal(means, scales.clamp_min(0.11))
    expected = (normal.cdf(x + 0.5) - normal.cdf(x - 0.5)).clamp_min(1e-9)
    found = GaussianConditional().likelihood(x, scales, means)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


def noisy_slope(bits: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """d/dx of the mean of bits(x + u) over a fine grid of |u| < ½, differenced."""
    noise, step = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000 - 0.5, 1e-4
    above, below = (torch.stack([bits(x + sign * step + u) for u in noise]).mean(0) for sign in (1, -1))
    return (above - below) / (2 * step)


def test_a_rounded_gaussian_costs_what_is_coded_and_slopes_as_noise_does() -> None:
    distance = torch.linspace(-2.3, 2.3, 24, dtype=torch.float64).reshape(1, 1, 4, 6).requires_grad_()
    scales = torch.linspace(0.6, 2.0, 24, dtype=torch.float64).reshape(1, 1, 4, 6).requires_grad_()
    found = -GaussianConditional().rounded_likelihood(distance, scales).log()

    def bits(at: torch.Tensor) -> torch.Tensor:
        normal = Normal(torch.zeros_like(at), scales.detach())
        return -(normal.cdf(at + 0.5) - normal.cdf(at - 0.5)).log()

    torch.testing.assert_close(found, bits(distance.detach().round()), rtol=1e-6, atol=1e-9)
    to_distance, to_scales = torch.autograd.grad(found.sum(), (distance, scales))
    torch.testing.assert_close(to_distance, noisy_slope(bits, distance.detach()), rtol=1e-3, atol=1e-4)
    coded = GaussianConditional().likelihood(distance.detach().round(), scales, torch.zeros_like(scales))
    torch.testing.assert_close(to_scales, torch.autograd.grad(-coded.log().sum(), scales)[0])


def test_a_rounded_hyper_latent_is_what_is_coded_and_slopes_as_noise_does() -> None:
    bottleneck = stirred().double()
    x = (4 * torch.rand(1, 4, 2, 3, dtype=torch.float64) - 2).requires_grad_()
    quantized, likelihood = bottleneck.train().rounded(x)
    with torch.no_grad():
        coded, expected = bottleneck.eval()(x)
    torch.testing.assert_close(quantized, coded, rtol=0, atol=2e-4)
    torch.testing.assert_close(likelihood, expected, rtol=1e-3, atol=0)
    assert torch.equal(torch.autograd.grad(quantized.sum(), x)[0], torch.ones_like(x))
    with torch.no_grad():
        slope = noisy_slope(lambda at: -bottleneck.likelihood(at).log(), x)
    (found,) = torch.autograd.grad(-likelihood.log().sum(), x, retain_graph=True)
    torch.testing.assert_close(found, slope, rtol=1e-3, atol=1e-4)
    learned = torch.autograd.grad(-likelihood.log().sum(), list(bottleneck.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in learned)


def test_bottleneck_likelihoods_sum_to_one() -> None:
    values = torch.arange(-300.0, 301.0).reshape(1, 1, -1, 1).expand(1, 4, -1, 1)
    total = stirred().likelihood(values).double().sum(2)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-4)


def test_quantiles_are_where_the_cumulative_says() -> None:
    bottleneck = stirred()
    bottleneck.fit_quantiles()
    levels = torch.sigmoid(bottleneck.logits_cumulative(bottleneck.quantiles.double()))[:, 0]
    torch.testing.assert_close(levels[:, 1], torch.full((4,), 0.5, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(levels[:, 0], torch.full((4,), 5e-10, dtype=torch.float64), rtol=1e-2, atol=0)
    torch.testing.assert_close(
        1 - levels[:, 2], torch.full((4,), 5e-10, dtype=torch.float64), rtol=1e-2, atol=0
    )


def test_medians_follow_training_but_not_loading() -> None:
    bottleneck = stirred()
    loaded = bottleneck.quantiles.clone()
    bottleneck.eval()
    assert torch.equal(bottleneck.quantiles, loaded), "weights that were only loaded keep their quantiles"
    bottleneck.train()
    bottleneck.noisy(torch.randn(1, 4, 2, 2))
    bottleneck.eval()
    at_median = bottleneck.logits_cumulative(bottleneck.quantiles[:, :, 1:2])
    assert at_median.abs().max() < 1e-4


def test_training_noise_is_uniform_and_seeded() -> None:
    bottleneck = stirred().train()
    x = torch.zeros(1, 4, 100, 100)
    torch.manual_seed(7)
    first, _ = bottleneck.noisy(x)
    torch.manual_seed(7)
    second, _ = bottleneck.noisy(x)
    assert torch.equal(first, second)
    assert first.abs().max() <= 0.5
    assert abs(first.var().item() - 1 / 12) < 0.003
