"""bfloat16 transforms: the same files and latents wherever they are decoded, pixels within a bound."""

import copy

import numpy as np
import pytest
import torch

from taskpress.coding import bitstream, transforms
from taskpress.coding.codec import Codec
from taskpress.coding.grid import Box
from taskpress.coding.images import to_tensor
from taskpress.errors import ConfigError


def in_bfloat16(codec: Codec) -> Codec:
    other = copy.deepcopy(codec)
    other.precision = "bfloat16"
    return other


def latent(codec: Codec, data: bytes) -> torch.Tensor:
    """What the synthesis is given when `data` is decoded."""
    header, payload = bitstream.unpack(data)
    whole = Box(0, 0, header.width, header.height).outward(64)
    return codec._freeze()._latent(header, payload, whole)


def test_a_file_of_either_precision_decodes_in_either(codec: Codec, picture) -> None:
    fast, array = in_bfloat16(codec), picture(70, 130)
    assert fast.fingerprint == codec.fingerprint
    for writer in (codec, fast):
        data = writer.encode(array)
        assert torch.equal(latent(codec, data), latent(fast, data))
        exact, near = (reader.decode(data, "tensor") for reader in (codec, fast))
        assert near.dtype == torch.float32 and near.is_contiguous()
        assert not torch.equal(exact, near), "the copies are not in bfloat16"
        # Eight significant bits a layer, some twenty layers.
        assert (exact - near).abs().max() < 0.05
        assert (exact - near).abs().mean() < 0.005


def test_analysis_is_that_of_the_weights_rounded_to_eight_bits(codec: Codec, picture) -> None:
    model, x = codec.model, to_tensor(picture(64, 128))[None]
    with torch.inference_mode():
        exact, near = model.g_a(x), in_bfloat16(codec)._freeze().transforms.analysis(x)
    error = (exact - near).norm() / exact.norm()
    assert 2**-12 < error < 2**-5


def test_estimate_has_the_latent_that_is_coded(lively, picture) -> None:
    fast, array = in_bfloat16(lively("cheng2020-attention")), picture(64, 64)
    estimate = fast.estimate(to_tensor(array)[None])
    assert torch.equal(estimate.latent, latent(fast, fast.encode(array)))


def test_changed_weights_are_honoured(lively, picture) -> None:
    fast, array = in_bfloat16(lively("cheng2020-attention")), picture(64, 64)
    before = fast.decode(fast.encode(array), "tensor")
    with torch.no_grad():
        fast.model.g_s[-1][0].bias.add_(0.25)
    after = fast.decode(fast.encode(array), "tensor")
    inside = (before < 0.7) & (before > 0)
    assert inside.any()
    assert torch.allclose(after[inside], before[inside] + 0.25, atol=0.02)


def test_precision_may_be_changed_back(lively, picture) -> None:
    codec, array = copy.deepcopy(lively("cheng2020-anchor")), picture(64, 64)
    data, exact = codec.encode(array), codec.decode(codec.encode(array), "numpy")
    codec.precision = "bfloat16"
    assert codec.encode(array) != data
    codec.precision = "float32"
    assert codec.encode(array) == data
    assert np.array_equal(codec.decode(data, "numpy"), exact)


@pytest.mark.parametrize("has", [True, False])
def test_auto_is_bfloat16_where_the_processor_has_it(has: bool, lively, picture, monkeypatch) -> None:
    monkeypatch.setattr(transforms, "has_bfloat16", lambda device: has)
    codec, array = copy.deepcopy(lively("cheng2020-anchor")), picture(64, 64)
    exact = codec.encode(array)
    codec.precision = "auto"
    assert (codec.encode(array) == exact) is not has


def test_unknown_precisions_are_refused(lively) -> None:
    with pytest.raises(ConfigError, match=r"'half'.*float32, bfloat16, auto"):
        Codec.load("scenes-aux-q1", precision="half")
    codec = copy.deepcopy(lively("cheng2020-anchor"))
    with pytest.raises(ConfigError, match="'half'"):
        codec.precision = "half"
    assert codec.precision == "float32"
