"""Latents refined for one picture: what falls, what files hold, and what stays as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from taskpress.coding import picture_coding
from taskpress.coding.allocation import AllocatorSettings
from taskpress.coding.codec import Codec
from taskpress.coding.refinement import Distortion, Refinement
from taskpress.errors import CodecError, ConfigError

from .conftest import decisive

RATE = 2e-3


def squared_error(picture: Tensor) -> Distortion:
    """255² x mean squared error: what the shipped codecs of mean squared error were trained by."""
    return lambda decoded: 255**2 * F.mse_loss(decoded, picture)


def measured(codec: Codec, array: np.ndarray, data: bytes, rate: float) -> float:
    """λ D + R of a file: its bytes counted, its picture decoded."""
    decoded = codec.decode(data, "tensor").double().permute(1, 2, 0).numpy()
    error = float(np.square(255 * decoded - array.astype(float)).mean())
    return rate * error + 8 * len(data) / (array.shape[0] * array.shape[1])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_trained_codec_gains(picture, precision: str) -> None:
    codec = Codec.load("mse-n32", precision)
    array = picture(100, 150)
    plain = measured(codec, array, codec.encode(array), RATE)
    lower = measured(codec, array, codec.encode(array, None, Refinement(squared_error, RATE, 20)), RATE)
    assert lower < 0.98 * plain


def test_less_weight_means_fewer_bits(picture) -> None:
    codec, array = Codec.load("mse-n32"), picture(64, 64)
    sizes = [len(codec.encode(array, None, Refinement(squared_error, rate, 15))) for rate in (1e-4, 1e-1)]
    assert sizes[0] < min(sizes[1], len(codec.encode(array)))


def test_what_is_judged_is_what_files_decode_to(codec: Codec, picture) -> None:
    seen: list[Tensor] = []

    def watched(image: Tensor) -> Distortion:
        def distortion(decoded: Tensor) -> Tensor:
            seen.append(decoded.detach().clone())
            return F.mse_loss(decoded, image)

        return distortion

    array = picture(70, 130)
    data = codec.encode(array, None, Refinement(watched, 1e6, 3))
    assert data != codec.encode(array)
    assert len(seen) == 3 + 2 and {tuple(one.shape) for one in seen} == {(1, 3, 70, 130)}
    torch.testing.assert_close(codec.decode(data, "tensor"), seen[-1][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["roi", "semantic"])
def test_with_an_allocator(lively, picture, kind: str) -> None:
    classes = 4 if kind == "semantic" else 0
    codec = decisive(lively("cheng2020-attention"), AllocatorSettings(kind, levels=5, classes=classes))
    array = picture(70, 130)
    data = codec.encode(array, None, Refinement(squared_error, 10.0, 4))
    assert measured(codec, array, data, 10.0) < measured(codec, array, codec.encode(array), 10.0)


def test_steps_that_lead_nowhere_are_not_taken(lively, picture) -> None:
    codec, array = lively("cheng2020-anchor"), picture(64, 64)
    wild = Refinement(squared_error, RATE, 2, learning_rate=1e4)
    assert codec.encode(array, None, wild) == codec.encode(array)


def test_the_same_file_whatever_chance_and_nothing_else_changes(lively, picture) -> None:
    codec, array = lively("cheng2020-attention"), picture(64, 64)
    before, name = {key: value.clone() for key, value in codec.state_dict().items()}, codec.fingerprint

    def by_chance(image: Tensor) -> Distortion:
        return lambda decoded: (torch.rand_like(decoded) * (decoded - image) ** 2).sum()

    refinement, files = Refinement(by_chance, 1.0, 4), []
    for seed, context in enumerate((torch.no_grad, torch.inference_mode, torch.enable_grad)):
        torch.manual_seed(seed)
        expected = torch.rand(3)
        torch.manual_seed(seed)
        with context():
            files.append(codec.encode(array, None, refinement))
        assert torch.equal(torch.rand(3), expected), "torch's global random state was moved"
    assert len(set(files)) == 1
    assert codec.fingerprint == name and not codec.training
    assert all(torch.equal(value, before[key]) for key, value in codec.state_dict().items())
    assert all(parameter.grad is None for parameter in codec.parameters())


def test_a_picture_in_tiles_is_refused(lively, picture) -> None:
    with pytest.raises(ConfigError, match=r"in 4 tiles is not refined.*--tile 0"):
        lively("cheng2020-anchor").encode(picture(128, 128), 64, Refinement(squared_error, RATE))


def test_a_picture_that_would_fill_the_memory_is_refused(lively, picture, monkeypatch) -> None:
    codec, refinement = lively("cheng2020-anchor"), Refinement(squared_error, RATE, 1)
    monkeypatch.setattr(picture_coding, "REFINED_VALUES", 16 * 64 * 64)
    assert codec.encode(picture(64, 64), None, refinement)
    with pytest.raises(ConfigError, match=r"4160 pixels is not refined with N = 16: more than 4096"):
        codec.encode(picture(64, 65), None, refinement)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("call", "told"),
    [(1, "by a distortion the loss is .* in step 1"), (2, "in step 2, or"), (4, "learning_rate")],
)
def test_a_loss_that_is_no_number_is_told(lively, picture, value: float, call: int, told: str) -> None:
    calls = []

    def broken(image: Tensor) -> Distortion:
        def distortion(decoded: Tensor) -> Tensor:
            calls.append(0)
            return (decoded - image).square().sum() * (value if len(calls) == call else 1)

        return distortion

    with pytest.raises(CodecError, match=told):
        lively("cheng2020-anchor").encode(picture(64, 64), None, Refinement(broken, RATE, 2))


@pytest.mark.parametrize(
    "changes", [{"steps": 0}, {"lmbda": -1.0}, {"lmbda": math.nan}, {"learning_rate": 0.0}]
)
def test_a_refinement_that_is_none_is_refused(lively, picture, changes: dict[str, float]) -> None:
    refinement = Refinement(squared_error, RATE)._replace(**changes)
    with pytest.raises(ConfigError, match="all are above 0"):
        lively("cheng2020-anchor").encode(picture(64, 64), None, refinement)
