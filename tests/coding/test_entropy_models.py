"""Likelihoods against torch.distributions and sums to one; quantiles that are quantiles; seeded noise."""

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
    bottleneck(torch.randn(1, 4, 2, 2))
    bottleneck.eval()
    at_median = bottleneck.logits_cumulative(bottleneck.quantiles[:, :, 1:2])
    assert at_median.abs().max() < 1e-4


def test_training_noise_is_uniform_and_seeded() -> None:
    bottleneck = stirred().train()
    x = torch.zeros(1, 4, 100, 100)
    torch.manual_seed(7)
    first, _ = bottleneck(x)
    torch.manual_seed(7)
    second, _ = bottleneck(x)
    assert torch.equal(first, second)
    assert first.abs().max() <= 0.5
    assert abs(first.var().item() - 1 / 12) < 0.003
