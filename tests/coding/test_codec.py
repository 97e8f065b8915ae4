"""Round trips through bytes: what decodes is what was estimated, in any size, mode and thread count."""

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpress.coding import bitstream
from taskpress.coding.allocation import AllocatorSettings
from taskpress.coding.codec import Codec
from taskpress.coding.images import to_tensor
from taskpress.datasets.scenes import Scenes
from taskpress.errors import BitstreamError, CodecError


def test_round_trip_of_every_architecture(codec: Codec, picture) -> None:
    array = picture(70, 130)
    data = codec.encode(array)
    with torch.no_grad():
        estimate = codec.estimate(to_tensor(array)[None])
    decoded = codec.decode(data, "tensor")
    assert decoded.shape == (3, 70, 130)
    torch.testing.assert_close(decoded, estimate.x_hat[0].clamp(0, 1), rtol=0, atol=1e-5)
    assert estimate.latent.abs().max() > 2, "a latent of zeros would prove little"
    assert np.array_equal(codec.decode(data, "numpy"), np.asarray(codec.decode(data)))


def test_any_size_comes_back(lively) -> None:
    codec = lively("cheng2020-anchor")

    @settings(max_examples=20, deadline=None)
    @given(height=st.integers(1, 140), width=st.integers(1, 140), seed=st.integers(0, 2**31))
    def check(height: int, width: int, seed: int) -> None:
        array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        data = codec.encode(array)
        header = bitstream.read_header(data)
        assert (header.width, header.height, header.size) == (width, height, len(data))
        with torch.no_grad():
            expected = codec.estimate(to_tensor(array)[None]).x_hat[0].clamp(0, 1)
        torch.testing.assert_close(codec.decode(data, "tensor"), expected, rtol=0, atol=1e-5)

    check()


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (64, 64), (65, 1)])
def test_edges_of_size(codec: Codec, picture, size: tuple[int, int]) -> None:
    assert codec.decode(codec.encode(picture(*size)), "numpy").shape == (*size, 3)


def test_real_size_is_the_estimated_rate(codec: Codec, picture) -> None:
    for seed, (height, width) in enumerate([(256, 256), (300, 410)]):
        array = picture(height, width, seed)
        estimated = codec.estimate(to_tensor(array)[None]).rate.item() * height * width / 8
        real = len(codec.encode(array))
        assert estimated > 300
        assert abs(real - estimated) <= 0.01 * estimated + 64


@pytest.mark.parametrize("architecture", ["cheng2020-attention", "mean-scale-hyperprior"])
def test_real_size_of_an_untrained_codec(architecture: str, picture) -> None:
    codec = Codec.create(architecture, 16).eval()
    array = picture(256, 256)
    estimated = codec.estimate(to_tensor(array)[None]).rate.item() * 65536 / 8
    assert abs(len(codec.encode(array)) - estimated) <= 0.01 * estimated + 64


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_thread_counts_agree_and_are_given_back(lively, picture, threads: None) -> None:
    codec = lively("cheng2020-attention")
    array = picture(96, 160)
    torch.set_num_threads(1)
    data = codec.encode(array)
    alone = codec.decode(data, "numpy")
    torch.set_num_threads(3)
    # A fresh copy freezes its probability model anew, on three threads.
    other = copy.deepcopy(codec)
    together = other.decode(data, "numpy")
    assert torch.get_num_threads() == 3
    # The latent agrees exactly; the synthesis runs in float32 on three threads and may differ by rounding.
    assert np.abs(alone.astype(int) - together).max() <= 1


def test_mode_does_not_matter_to_files(lively, picture) -> None:
    codec = copy.deepcopy(lively("joint-autoregressive"))
    array = picture(50, 50)
    evaluated = codec.encode(array)
    assert codec.train().encode(array) == evaluated
    assert codec.training


def test_state_dicts_of_a_training_have_its_medians(codec: Codec) -> None:
    """Whoever loads one has the codec that the training's own turns into."""
    codec = copy.deepcopy(codec).train()
    optimizer = torch.optim.SGD(codec.parameters(), 0.1)
    other = copy.deepcopy(codec)
    for _ in range(2):
        codec.estimate(torch.rand(1, 3, 64, 64)).rate.sum().backward()
        # Also where a step follows without another batch.
        other.load_state_dict(codec.state_dict())
        optimizer.step()
    assert (
        codec.state_dict()["model.entropy_bottleneck.quantiles"]
        .ne(other.state_dict()["model.entropy_bottleneck.quantiles"])
        .any()
    ), "the step moved them"
    other.load_state_dict(codec.state_dict())
    assert other.eval().fingerprint == codec.eval().fingerprint


def test_parts_that_torch_compile_replaced_are_refused(lively, picture) -> None:
    codec = copy.deepcopy(lively("mean-scale-hyperprior"))
    data = codec.encode(picture(64, 64))
    for name in ("g_s", ""):
        one = copy.deepcopy(codec)
        if name:
            one.model.g_s = torch.compile(one.model.g_s, backend="eager")
        else:
            one.model = torch.compile(one.model, backend="eager")
        with pytest.raises(
            CodecError, match=rf"codec\.model{'.' * bool(name)}{name} is torch\.compile's copy"
        ):
            one.decode(data)
    codec.model.g_s.compile(backend="eager")
    codec.compile(backend="eager")
    assert (
        copy.deepcopy(codec).fingerprint == codec.fingerprint == lively("mean-scale-hyperprior").fingerprint
    )


def test_estimate_trains(codec: Codec) -> None:
    codec = copy.deepcopy(codec).train()
    batch = torch.rand(2, 3, 70, 100)
    torch.manual_seed(4)
    first = codec.estimate(batch)
    torch.manual_seed(4)
    second = codec.estimate(batch)
    assert torch.equal(first.rate, second.rate), "noise comes from torch's generator"
    (first.rate.mean() + (first.x_hat - batch).square().mean()).backward()
    for name, parameter in codec.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_straight_through_shows_what_is_coded_and_keeps_rate_and_gradients(codec: Codec) -> None:
    codec = copy.deepcopy(codec).train()
    batch = torch.rand(1, 3, 64, 64)
    estimates = []
    for quantization in ("noise", "straight-through"):
        torch.manual_seed(4)
        estimates.append(codec.estimate(batch, quantization=quantization))
    noisy, rounded = estimates
    with torch.no_grad():
        coded = copy.deepcopy(codec).eval().estimate(batch).latent
    away = [(estimate.latent - coded).square().mean().sqrt() for estimate in estimates]
    assert away[1] < 0.5 * away[0], "rounded around the mean, as in files, but for means of a noisy context"
    assert torch.equal(rounded.rate, noisy.rate)
    torch.testing.assert_close(rounded.x_hat, codec.model.g_s(rounded.latent))
    (gradient,) = torch.autograd.grad(rounded.latent.sum(), next(codec.model.g_a.parameters()))
    assert gradient.abs().sum() > 0, "rounding ends the gradient"


@pytest.mark.parametrize(("name", "away"), [("scenes-task-q1", 0.01), ("scenes-task-q4", 0.07)])
def test_rounded_training_sees_the_rate_and_the_latent_of_files(name: str, away: float) -> None:
    """Where noise costs more than a file does. `away`: share of ŷ that the context takes elsewhere."""
    codec = Codec.load(name)
    batch = torch.stack([to_tensor(Scenes("test", 2)[i].image) for i in range(2)])
    coded = codec.estimate(batch)
    codec.train()
    torch.manual_seed(2)
    noisy, rounded = (codec.estimate(batch, quantization=way) for way in ("straight-through", "rounded"))
    rates = [one.rate.mean().item() / coded.rate.mean().item() for one in (noisy, rounded)]
    assert rates[0] > 1.1 and abs(rates[1] - 1) < 0.03
    moved = [(one.latent - coded.latent).abs().gt(0.5).float().mean() for one in (noisy, rounded)]
    assert moved[1] < min(away, moved[0])
    rounded.rate.mean().backward()
    for part, parameters in codec.model.named_parameters():
        reached = parameters.grad is not None and bool(parameters.grad.abs().sum() > 0)
        assert reached != part.startswith("g_s."), part


@pytest.mark.parametrize("quantization", ["noise", "straight-through", "rounded"])
def test_mixed_precision_leaves_the_rate_alone(lively, picture, quantization: Any) -> None:
    codec = copy.deepcopy(lively("cheng2020-attention")).train()
    batch = to_tensor(picture(64, 64))[None]
    estimates = []
    for mixed in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            estimates.append(codec.estimate(batch, quantization=quantization))
    full, half = estimates
    assert half.x_hat.dtype == half.latent.dtype == half.rate.dtype == torch.float32
    assert not torch.equal(half.latent, full.latent), "nothing ran in bfloat16"
    torch.testing.assert_close(half.rate, full.rate, rtol=5e-3, atol=0)


def test_estimate_has_its_shapes_and_sums(codec: Codec) -> None:
    estimate = codec.estimate(torch.rand(2, 3, 70, 130))
    channels = codec.latent_channels
    assert estimate.x_hat.shape == (2, 3, 70, 130)
    assert estimate.latent.shape == (2, channels, 8, 12)
    assert estimate.rate_map.shape == (2, 8, 12)
    torch.testing.assert_close(estimate.rate_map.sum((1, 2)) / (70 * 130), estimate.rate)
    alone = codec.estimate(torch.rand(1, 3, 64, 64))
    assert alone.x_hat.requires_grad, "evaluation mode lets gradients reach the synthesis"


def test_training_changes_what_is_written(lively, picture) -> None:
    """The frozen probability model and the fingerprint follow the weights."""
    codec = copy.deepcopy(lively("cheng2020-anchor")).train()
    array = picture(64, 64)
    before = codec.fingerprint
    optimizer = torch.optim.Adam(codec.parameters(), 1e-3)
    codec.estimate(to_tensor(array)[None]).rate.sum().backward()
    optimizer.step()
    data = codec.encode(array)
    assert codec.fingerprint != before
    with torch.no_grad():
        estimate = codec.eval().estimate(to_tensor(array)[None])
    found = codec.decode(data, "tensor")
    torch.testing.assert_close(found, estimate.x_hat[0].clamp(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("inference", [False, True])
def test_weights_changed_past_autograd_are_seen(lively, picture, inference: bool) -> None:
    array = picture(64, 64)
    with torch.inference_mode(inference):
        codec = copy.deepcopy(lively("cheng2020-anchor"))
        for parameter in codec.parameters():
            parameter.data = parameter.clone()
        before = codec.encode(array)
        for parameter in codec.parameters():
            parameter.data.mul_(1.01)
        other = Codec("cheng2020-anchor", copy.deepcopy(codec.model))
        after = codec.encode(array)
        assert codec.fingerprint == other.fingerprint
        assert np.array_equal(codec.decode(after, "numpy"), other.decode(after, "numpy"))
        with pytest.raises(BitstreamError, match="was written by codec"):
            codec.decode(before)


def test_one_weight_changed_past_autograd_is_seen(lively, picture) -> None:
    codec, array = copy.deepcopy(lively("cheng2020-anchor")), picture(64, 64)
    codec.encode(array)
    codec.model.g_s[0].conv1.weight.data[1, 2, 0, 1] += 1
    other = Codec("cheng2020-anchor", copy.deepcopy(codec.model))
    assert codec.fingerprint == other.fingerprint
    other.decode(codec.encode(array))


def test_weights_of_another_type_are_refused(lively, picture) -> None:
    with pytest.raises(CodecError, match=r"float16.*\.float\(\)"):
        copy.deepcopy(lively("cheng2020-anchor")).half().encode(picture(64, 64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_changes_nothing(lively, picture, tmp_path: Path, dtype: torch.dtype) -> None:
    array, path = picture(70, 90), tmp_path / "codec.safetensors"
    lively("cheng2020-attention").save(path)
    codec = Codec.load(path)
    data = codec.encode(array)
    expected = codec.decode(data, "tensor")
    try:
        torch.set_default_dtype(dtype)
        for one in (codec, loaded := Codec.load(path)):
            assert one.encode(array) == data
            torch.testing.assert_close(one.decode(data, "tensor"), expected, rtol=0, atol=1e-6)
        assert loaded.fingerprint == codec.fingerprint
        fresh = Codec.create("cheng2020-anchor", 8)
        fresh.attach_allocator(AllocatorSettings("roi", 5, 8))
        fresh.decode(fresh.encode(array))
    finally:
        torch.set_default_dtype(torch.float32)


def test_threads_leave_the_matrix_products_as_they_were(lively, picture) -> None:
    codec = lively("cheng2020-anchor")
    data = codec.encode(picture(64, 192))

    def blas() -> list[int]:
        return [one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(2, "blas"):
        before = blas()
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(codec.decode, [data] * 24))
        assert blas() == before


def test_create_is_seeded_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = Codec.create("cheng2020-anchor", 8, seed=5)
    assert torch.rand(1) == expected
    assert first.fingerprint == Codec.create("cheng2020-anchor", 8, seed=5).fingerprint
    assert first.fingerprint != Codec.create("cheng2020-anchor", 8, seed=6).fingerprint


def test_create_refuses_what_does_not_exist() -> None:
    with pytest.raises(CodecError, match="cheng2020-attention"):
        Codec.create("cheng2020-atention", 8)
    with pytest.raises(CodecError, match="latent channels"):
        Codec.create("cheng2020-anchor", 8, 12)


def test_encoder_cost_counts_multiply_adds() -> None:
    """Against the sum written out by hand for the mean-scale hyperprior."""
    N, M = 8, 12
    codec = Codec.create("mean-scale-hyperprior", N, M)
    parameters, macs = codec.encoder_cost()
    expected = (3 * 25 * N + N * N) / 4 + (N * 25 * N + N * N) / 16 + (N * 25 * N + N * N) / 64
    expected += N * 25 * M / 256 + M * 9 * N / 256 + N * 25 * N / 1024 + N * 25 * N / 4096
    # A transposed convolution multiplies once for each input position and tap.
    expected += N * 25 * M / 4096 + M * 25 * (M * 3 // 2) / 1024 + (M * 3 // 2) * 9 * 2 * M / 256
    assert macs == pytest.approx(expected, rel=1e-6)
    model = codec.model
    counted = (model.g_a, model.h_a, model.h_s, model.entropy_bottleneck)
    assert parameters == sum(p.numel() for part in counted for p in part.parameters())
