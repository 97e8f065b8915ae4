"""The layers against Python's integers."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpress.coding.codec import Codec
from taskpress.coding.fixed_point import (
    ACTIVATION,
    EXACT,
    LATENT,
    HyperSynthesis,
    leaky_relu,
    quantize_layer,
    settle,
    to_fixed,
)
from taskpress.errors import CodecError

SIDES = st.integers(1, 6)


@settings(max_examples=100, deadline=None)
@given(
    inputs=SIDES,
    outputs=SIDES,
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1e-6, 0.01, 1.0, 300.0]),
    source=st.sampled_from([ACTIVATION, LATENT]),
)
def test_a_layer_is_integer_arithmetic(inputs: int, outputs: int, seed: int, size: float, source) -> None:
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(rng.normal(0, size, (outputs, inputs))).float()
    bias = torch.from_numpy(rng.normal(0, size, outputs)).float()
    layer = quantize_layer(weight, bias, source, "layer")
    whole = [[int(w) for w in row] for row in (layer.weight * 2.0**layer.shift).tolist()]
    offset = [int(b) for b in ((layer.bias - 0.5) * 2.0**layer.shift).tolist()]
    assert (
        np.abs(layer.weight - weight.double().numpy() * 2.0 ** (14 - source.fraction)).max()
        <= 2.0**-layer.shift
    )
    # Corners too: everything at its limit, with the signs that add up.
    x = rng.integers(-source.limit, source.limit + 1, (inputs, 3))
    x[:, 1], x[:, 2] = np.sign(weight[0].numpy()) * source.limit, rng.choice([-1, 1], inputs) * source.limit
    found = leaky_relu(
        settle(layer.weight @ x.astype(np.float64) + layer.bias[:, None]), np.empty((outputs, 3))
    )
    for column in range(3):
        for row in range(outputs):
            total = (
                sum(w * int(value) for w, value in zip(whole[row], x[:, column], strict=True)) + offset[row]
            )
            assert abs(total) + 2 ** (layer.shift - 1) < EXACT
            value = max(min((total + 2 ** (layer.shift - 1)) >> layer.shift, 2**28), -(2**28))
            assert found[row, column] == (value if value > 0 else (value * 655 + 2**15) >> 16)


def test_whole_numbers_come_close_to_real_ones(codec: Codec) -> None:
    """h_s within a thousandth of float64's, and of all four architectures."""
    model = copy.deepcopy(codec.model).double()
    z = 4 * torch.randn(codec.model.N, 3, 4, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        expected = model.h_s(z[None])[0].numpy()
    found = HyperSynthesis(codec.model.h_s)(to_fixed(z.numpy(), ACTIVATION)) / 2**14
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("value", "message"), [(float("nan"), "not finite"), (float("inf"), "not finite"), (1e30, "too large")]
)
@pytest.mark.parametrize("part", ["h_s", "context_prediction", "entropy_parameters"])
def test_weights_that_cannot_be_held_are_refused(lively, part: str, value: float, message: str) -> None:
    codec = copy.deepcopy(lively("joint-autoregressive"))
    with torch.no_grad():
        next(getattr(codec.model, part).parameters()).flatten()[0] = value
    with pytest.raises(CodecError, match=f"{part}.*{message}"):
        codec.encode(np.zeros((64, 64, 3), np.uint8))


def test_a_bottleneck_or_an_analysis_that_is_not_finite_is_refused(lively) -> None:
    codec = copy.deepcopy(lively("joint-autoregressive"))
    with torch.no_grad():
        codec.model.entropy_bottleneck.biases[0][0] = float("nan")
    with pytest.raises(CodecError, match=r"bottleneck.*not finite"):
        codec.encode(np.zeros((64, 64, 3), np.uint8))
    codec = copy.deepcopy(lively("joint-autoregressive"))
    with torch.no_grad():
        next(codec.model.g_a.parameters()).fill_(float("nan"))
    with pytest.raises(CodecError, match=r"analysis.*not finite"):
        codec.encode(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("inputs", [32767, 40000, 65536])
def test_sums_that_overflow_64_bits_are_refused_too(inputs: int) -> None:
    weight = torch.full((1, inputs), 2.0**24 - 1)
    with pytest.raises(CodecError, match="too large for exact sums"):
        quantize_layer(weight, None, ACTIVATION, "layer")
