"""Tables of probability against scipy's normal distribution and torch's cumulative; escapes come back."""

import constriction
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpress.coding import tables
from taskpress.coding.entropy_models import EntropyBottleneck
from taskpress.coding.tables import TOTAL, gaussian_tables, level_scale, z_tables
from taskpress.errors import BitstreamError


def test_gaussian_tables_are_gaussians() -> None:
    for level, table in enumerate(gaussian_tables()):
        normal = scipy.stats.norm(scale=level_scale(level))
        x = table.low + np.arange(table.escape)
        expected = normal.cdf(x + 0.5) - normal.cdf(x - 0.5)
        assert table.weights.sum() == TOTAL and table.weights.min() >= 1
        assert np.array_equal(table.weights[:-1], table.weights[-2::-1]), "symmetric"
        # To the rounding, but for the most likely, which takes what rounding leaves over.
        off = np.abs(table.weights[:-1] - expected * TOTAL)
        off[expected.argmax()] = 0
        assert off.max() <= 1.01
        assert normal.sf(x[-1] + 0.5) < tables.TAIL


def stirred(channels: int = 6) -> EntropyBottleneck:
    torch.manual_seed(3)
    bottleneck = EntropyBottleneck(channels).eval()
    with torch.no_grad():
        for parameter in bottleneck.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    bottleneck.fit_quantiles()
    return bottleneck


def test_z_tables_are_the_cumulative() -> None:
    bottleneck = stirred()
    medians = bottleneck.quantiles[:, 0, 1].double()
    for channel, table in enumerate(z_tables(bottleneck)):
        assert table.weights.sum() == TOTAL and table.weights.min() >= 1
        assert table.low <= 0 <= table.low + table.escape - 1
        x = torch.arange(table.low, table.low + table.escape).double() + medians[channel]
        grid = x.expand(6, 1, -1)
        with torch.no_grad():
            mass = torch.sigmoid(bottleneck.logits_cumulative(grid + 0.5))
            mass -= torch.sigmoid(bottleneck.logits_cumulative(grid - 0.5))
        off = np.abs(table.weights[:-1] - mass[channel, 0].numpy() * TOTAL)
        off[mass[channel, 0].argmax()] = 0
        assert off.max() <= 1.01


def test_a_channel_that_spreads_far_beyond_its_table() -> None:
    """Where hardly anything falls into a table, its symbols have nothing to give for the others' rounding."""
    bottleneck = stirred()
    with torch.no_grad():
        for matrix in bottleneck.matrices:
            matrix.sub_(6)
    for table in z_tables(bottleneck):
        assert table.weights.sum() == TOTAL and table.weights.min() >= 1
        assert table.weights[-1] > 0.99 * TOTAL


def test_the_coder_takes_the_weights_as_they_are() -> None:
    """What constriction spends is what the weights say: n symbols of weight w cost n·(24 - log2 w) bits."""
    table = gaussian_tables()[30]
    for place in range(0, len(table.weights), 3):
        coder = constriction.stream.queue.RangeEncoder()
        coder.encode(np.full(3000, place, np.int32), table.model)
        expected = 3000 * (24 - np.log2(table.weights[place]))
        assert expected - 1 <= coder.num_bits() <= expected + 64


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-50, 0), st.integers(0, 50), st.booleans(), st.integers(1, 30000)), min_size=1
    )
)
def test_escaped_values_come_back(cases: list[tuple[int, int, bool, int]]) -> None:
    low, high, negative, excess = (np.array(column) for column in zip(*cases, strict=True))
    values = np.where(negative, low - excess, high + excess)
    coder = constriction.stream.queue.RangeEncoder()
    tables.encode_escaped(coder, values, low, high)
    decoder = constriction.stream.queue.RangeDecoder(coder.get_compressed())
    assert np.array_equal(tables.decode_escaped(decoder, low, high), values)


def test_an_escaped_value_out_of_range_is_refused() -> None:
    low, high = np.array([-2]), np.array([2])
    coder = constriction.stream.queue.RangeEncoder()
    tables.encode_escaped(coder, np.array([40000]), low, high)
    decoder = constriction.stream.queue.RangeDecoder(coder.get_compressed())
    with pytest.raises(BitstreamError, match="out of range"):
        tables.decode_escaped(decoder, low, high)


def test_no_value_is_limited_to_its_table(lively) -> None:
    """Latents far from what the Gaussians expect are coded as they are."""
    codec = lively("cheng2020-anchor")
    coder = codec._freeze().coder
    generator = torch.Generator().manual_seed(1)
    y = 2000 * torch.randn(codec.latent_channels, 4, 8, generator=generator)
    z = 3000 * torch.randn(codec.model.N, 1, 2, generator=generator)
    latents = coder.quantize(y, z)
    assert (latents.y_hat - y).abs().max() <= 0.51
    assert (latents.z_hat - z).abs().max() <= 0.51
    assert torch.equal(coder.decode(coder.encode(latents), 4, 8), latents.y_hat)
