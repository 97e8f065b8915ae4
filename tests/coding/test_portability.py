"""The same bytes and the same latent whatever computes them, and proof that these tests could fail.

Children run with other thread counts and other code paths of torch, oneDNN, MKL, OpenBLAS and numpy. They get
latents, not pictures: the analysis runs in float32, and what it finds may differ, but not what becomes of it.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import taskpress
from taskpress.coding import context, fixed_point
from taskpress.coding.codec import Codec
from taskpress.coding.entropy_coding import EntropyCoder
from taskpress.errors import BitstreamError

ARCHITECTURES = ("cheng2020-anchor", "joint-autoregressive", "mean-scale-hyperprior")
CHANNELS = 24

CHILD = """
import hashlib, sys
import numpy as np, torch, taskpress
folder, names = sys.argv[1], sys.argv[2:]
for name in names:
    codec = taskpress.load(f"{folder}/{name}.safetensors")
    coder = codec._freeze().coder
    given = np.load(f"{folder}/{name}.npz")
    latents = coder.quantize(torch.from_numpy(given["y"]), torch.from_numpy(given["z"]))
    decoded = coder.decode(given["payload"].tobytes(), *given["y"].shape[1:])
    for part in (coder.encode(latents), latents.y_hat.numpy().tobytes(), decoded.numpy().tobytes()):
        print(hashlib.sha256(part).hexdigest())
    print(codec.fingerprint)
"""

# numpy's own names for the instruction sets it picks among when it starts.
NUMPY_FEATURES = " ".join(np._core._multiarray_umath.__cpu_dispatch__)
PLAIN = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "PRESCOTT",
    "NPY_DISABLE_CPU_FEATURES": NUMPY_FEATURES,
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
MIXED = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "HASWELL",
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "2",
}
MANY_THREADS = {"OMP_NUM_THREADS": "16", "OPENBLAS_NUM_THREADS": "16", "ATEN_CPU_CAPABILITY": "avx512"}


def some_latents(codec: Codec) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    y = 3 * torch.randn(codec.latent_channels, 12, 16, generator=generator)
    return y, 4 * torch.randn(codec.model.N, 3, 4, generator=generator)


def digests(coder: EntropyCoder, y: Tensor, z: Tensor, payload: bytes) -> list[str]:
    latents = coder.quantize(y, z)
    decoded = coder.decode(payload, *y.shape[1:])
    parts = (coder.encode(latents), latents.y_hat.numpy().tobytes(), decoded.numpy().tobytes())
    return [hashlib.sha256(part).hexdigest() for part in parts]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder of codecs, latents and payloads, and what this process finds for them."""
    folder = tmp_path_factory.mktemp("portability")
    expected = []
    for name in ARCHITECTURES:
        Codec.create(name, CHANNELS, seed=2).save(folder / f"{name}.safetensors")
        codec = taskpress.load(folder / f"{name}.safetensors")
        coder, (y, z) = codec._freeze().coder, some_latents(codec)
        payload = coder.encode(coder.quantize(y, z))
        np.savez(folder / f"{name}.npz", y=y.numpy(), z=z.numpy(), payload=np.frombuffer(payload, np.uint8))
        expected += [*digests(coder, y, z, payload), codec.fingerprint]
    return folder, expected


def check_child(written: tuple[Path, list[str]], environment: dict[str, str]) -> None:
    folder, expected = written
    source = str(Path(taskpress.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), *ARCHITECTURES],
        env={**os.environ, "PYTHONPATH": source, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == expected


@pytest.mark.parametrize("environment", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_other_code_paths(written: tuple[Path, list[str]], environment: dict[str, str]) -> None:
    check_child(written, environment)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [MANY_THREADS, *({key: value} for key, value in PLAIN.items())])
def test_each_code_path_alone(written: tuple[Path, list[str]], environment: dict[str, str]) -> None:
    check_child(written, environment)


def shuffle_sums(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Adds up in another order: inputs of every product and convolution are permuted, weights with them."""
    rng = np.random.default_rng(seed)
    product, convolve = fixed_point.product, fixed_point.convolve

    def shuffled_product(a, b, out):
        order = rng.permutation(a.shape[1])
        return product(np.ascontiguousarray(a[:, order]), np.ascontiguousarray(b[order]), out=out)

    def shuffled_convolve(layer, x, weight, bias):
        order = torch.from_numpy(rng.permutation(x.shape[1]))
        transposed = isinstance(layer, torch.nn.ConvTranspose2d)
        weight = weight[order] if transposed else weight[:, order]
        return convolve(layer, x[:, order].contiguous(), weight.contiguous(), bias)

    monkeypatch.setattr(context, "product", shuffled_product)
    monkeypatch.setattr(fixed_point, "convolve", shuffled_convolve)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_order_of_summation(lively, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = lively(architecture, CHANNELS)
    y, z = some_latents(codec)
    coder = EntropyCoder(codec.model)
    payload = coder.encode(coder.quantize(y, z))
    expected = digests(coder, y, z, payload)
    for seed in range(3):
        with monkeypatch.context() as patch:
            shuffle_sums(patch, seed)
            assert digests(EntropyCoder(codec.model), y, z, payload) == expected


def in_float32(coder: EntropyCoder, monkeypatch: pytest.MonkeyPatch) -> EntropyCoder:
    """The very same path with sums in float32, as a codec without exact arithmetic has them."""

    def narrow(layer):
        return layer and layer._replace(
            weight=layer.weight.astype(np.float32), bias=layer.bias.astype(np.float32)
        )

    h_s, gaussians = coder.h_s, context.gaussians
    h_s.steps = [(module, narrow(layer)) for module, layer in h_s.steps]
    coder.context.layers = [narrow(layer) for layer in coder.context.layers]
    monkeypatch.setattr(coder, "h_s", lambda z: h_s(z.astype(np.float32)))
    monkeypatch.setattr(context, "gaussians", lambda x: gaussians(x.astype(np.float64)))
    return coder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float_sums_do_depend_on_their_order(
    lively, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above look for happens at once where sums are rounded."""
    codec = lively(architecture, CHANNELS)
    y, z = some_latents(codec)
    with monkeypatch.context() as patch:
        coder = in_float32(EntropyCoder(codec.model), patch)
        latents = coder.quantize(y, z)
        payload = coder.encode(latents)
        assert torch.equal(coder.decode(payload, *y.shape[1:]), latents.y_hat), "alike where it was written"
        shuffle_sums(patch, 0)
        with contextlib.suppress(BitstreamError):
            assert not torch.equal(coder.decode(payload, *y.shape[1:]), latents.y_hat)
