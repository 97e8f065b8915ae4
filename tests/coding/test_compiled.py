"""Compiled layers, and other devices: the same files and the same latents as eager ones on the CPU."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from taskpress.coding import context, fixed_point
from taskpress.coding.codec import Codec
from taskpress.coding.entropy_coding import EntropyCoder

from .conftest import draw

BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(autouse=True)
def _forget_what_was_compiled():
    yield
    torch.compiler.reset()


def check_same_files(ours: Codec, other: Codec) -> None:
    """Both write files that both decode to one latent, and to one picture up to float32's rounding."""
    picture = draw(70, 100)
    data = ours.encode(picture)
    assert ours.fingerprint == other.fingerprint
    # g_a rounds otherwise, so a value next to a half may fall to its other side; the files stay readable.
    written = other.encode(picture)
    assert abs(len(written) - len(data)) <= 0.01 * len(data) + 8
    for file in (data, written):
        expected, found = (codec.decode(file, "tensor").cpu() for codec in (ours, other))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_transforms(lively: Callable[..., Codec], backend: str) -> None:
    codec = lively("cheng2020-anchor")
    compiled = copy.deepcopy(codec)
    model = compiled.model
    for part in (model.g_a, model.h_a, model.g_s):
        part.compile(backend=backend)
    compiled_before = counters["stats"]["unique_graphs"]
    check_same_files(codec, compiled)
    assert counters["stats"]["unique_graphs"] >= compiled_before + 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ["cheng2020-anchor", "joint-autoregressive"])
def test_compiled_probabilities(
    lively: Callable[..., Codec], architecture: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even the whole numbers themselves may be computed by compiled code: every sum is exact."""
    codec = lively(architecture)
    generator = torch.Generator().manual_seed(11)
    y = 3 * torch.randn(codec.latent_channels, 12, 16, generator=generator)
    z = 4 * torch.randn(codec.model.N, 3, 4, generator=generator)
    latents = EntropyCoder(codec.model).quantize(y, z)
    payload = EntropyCoder(codec.model).encode(latents)

    calls = []
    multiply = torch.compile(torch.matmul, backend=backend, dynamic=True)
    convolve = torch.compile(fixed_point.convolve, backend=backend)

    def product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
        calls.append("product")
        out[...] = multiply(torch.from_numpy(a), torch.from_numpy(b)).numpy()
        return out

    def convolution(*layer_and_input: Tensor) -> Tensor:
        calls.append("convolve")
        return convolve(*layer_and_input)

    monkeypatch.setattr(context, "product", product)
    monkeypatch.setattr(fixed_point, "convolve", convolution)
    coder = EntropyCoder(codec.model)
    assert coder.encode(coder.quantize(y, z)) == payload
    assert torch.equal(coder.decode(payload, 12, 16), latents.y_hat)
    assert set(calls) == {"product", "convolve"}


@needs_cuda
@pytest.mark.parametrize("architecture", ["cheng2020-attention", "mean-scale-hyperprior"])
def test_on_a_gpu(lively: Callable[..., Codec], architecture: str) -> None:
    codec = lively(architecture)
    check_same_files(codec, copy.deepcopy(codec).cuda())


def test_on_another_device() -> None:
    """As on a GPU, as far as that can be had without one; in a process of its own, for it changes torch."""
    file = Path(__file__).with_name("on_another_device.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-1000:]
