"""Codecs with an allocator: round trips, files, what they change and what they leave alone."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import taskpress
from taskpress.coding import bitstream
from taskpress.coding.allocation import Allocator, AllocatorSettings
from taskpress.coding.gain import GainTable
from taskpress.coding.images import to_tensor
from taskpress.coding.level_map import split_section, write_levels
from taskpress.coding.semantic_allocator import describe, draw
from taskpress.errors import BitstreamError, CodecError

from .conftest import decisive, with_allocator

KINDS = [AllocatorSettings("roi", 5, 16), AllocatorSettings("semantic", 5, 16, 3)]


@pytest.fixture(params=KINDS, ids=lambda settings: settings.kind)
def settings(request: pytest.FixtureRequest) -> AllocatorSettings:
    return request.param


@pytest.mark.parametrize("architecture", ["cheng2020-attention", "mean-scale-hyperprior"])
def test_what_decodes_is_what_was_estimated(lively, picture, architecture, settings) -> None:
    codec = decisive(lively(architecture), settings)
    for seed, (height, width) in enumerate([(70, 130), (256, 200), (1, 1)]):
        array = picture(height, width, seed)
        data = codec.encode(array)
        with torch.no_grad():
            estimate = codec.estimate(to_tensor(array)[None])
        found = codec.decode(data, "tensor")
        torch.testing.assert_close(found, estimate.x_hat[0].clamp(0, 1), rtol=0, atol=1e-5)
        assert np.array_equal(codec.level_map(array), estimate.decision.levels[0].numpy())
        estimated = estimate.rate.item() * height * width / 8
        assert abs(len(data) - estimated) <= 0.01 * estimated + 64
        torch.testing.assert_close(estimate.rate_map.sum((1, 2)) / (height * width), estimate.rate)
    assert len(np.unique(codec.level_map(picture(256, 200, 1)))) > 1


def test_every_tile_has_its_own_map(lively, picture, settings) -> None:
    codec = decisive(lively("mean-scale-hyperprior"), settings)
    array = picture(100, 200)
    data = codec.encode(array, tile=128)
    levels = codec.level_map(array, tile=128)
    for number, (rows, columns) in enumerate(
        [(slice(0, 128), slice(0, 128)), (slice(0, 128), slice(128, 200))]
    ):
        own = codec.level_map(array[rows, columns])
        cells = slice(columns.start // 16, -(-columns.stop // 64) * 4)
        assert np.array_equal(levels[:, cells], own)
        payload = bitstream.unpack(bitstream.extract_tile(data, number))[1]
        assert split_section(payload)[0] == write_levels(own, 5)
    whole = codec.decode(data, "tensor")
    assert (whole - to_tensor(array)).abs().mean() < 2 * (
        codec.decode(codec.encode(array), "tensor") - to_tensor(array)
    ).abs().mean()
    region = codec.decode(data, "tensor", region=(110, 20, 190, 90))
    torch.testing.assert_close(region, whole[:, 20:90, 110:190], rtol=0, atol=1e-5)


def test_a_fresh_allocator_leaves_the_picture_as_it_is(lively, picture, settings) -> None:
    plain = lively("cheng2020-attention")
    codec = with_allocator(plain, settings)
    array = picture(96, 160)
    assert np.array_equal(codec.level_map(array), np.full((8, 12), 2))
    data, own = (bitstream.unpack(one.encode(array))[1] for one in (plain, codec))
    assert split_section(own) == (write_levels(np.full((8, 12), 2), 5), data)
    assert np.array_equal(
        codec.decode(codec.encode(array), "numpy"), plain.decode(plain.encode(array), "numpy")
    )
    batch = torch.rand(2, 3, 70, 64)
    torch.manual_seed(0)
    first = copy.deepcopy(plain).train().estimate(batch)
    torch.manual_seed(0)
    second = codec.train().estimate(batch)
    assert torch.equal(first.x_hat, second.x_hat) and torch.equal(first.latent, second.latent)


def test_gains_of_one_make_any_map_the_plain_codec(lively, picture, settings) -> None:
    plain = lively("mean-scale-hyperprior")
    codec = decisive(plain, settings)
    with torch.no_grad():
        codec.allocator.gains.log_gain.zero_()
        if settings.kind == "roi":
            codec.allocator.attention.excite.weight.zero_()
    array = picture(128, 64)
    expected = plain.decode(plain.encode(array), "numpy")
    assert np.array_equal(codec.decode(codec.encode(array), "numpy"), expected)


def test_finer_levels_cost_bits_and_spare_errors(lively, picture, settings) -> None:
    codec = with_allocator(lively("mean-scale-hyperprior"), settings)
    batch = to_tensor(picture(128, 128))[None]
    latent = codec.model.g_a(batch)
    rates, errors = [], []
    for level in range(5):
        levels = torch.full((1, 8, 8), level)
        gain = codec.allocator.gains(levels)
        with torch.no_grad():
            out = codec._rounded(codec._freeze(), latent * gain, gain)
        rates.append(-out["likelihoods"]["y"].log2().sum().item())
        errors.append((out["y_hat"] - latent).square().mean().item())
    assert rates == sorted(rates) and errors == sorted(errors, reverse=True)


def test_files_hold_the_allocator_and_name_it(lively, picture, tmp_path: Path, settings) -> None:
    codec = decisive(lively("cheng2020-anchor"), settings)
    path = tmp_path / "codec.safetensors"
    codec.save(path, card={"a": 1})
    loaded = taskpress.load(path)
    assert loaded.allocator.settings == settings
    assert loaded.fingerprint == codec.fingerprint != lively("cheng2020-anchor").fingerprint
    array = picture(64, 100)
    data = codec.encode(array)
    assert loaded.encode(array) == data
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        assert json.loads(file.metadata()["allocator"])["kind"] == settings.kind
    assert {name.partition(".")[0] for name in names} > {"allocator", "g_a", "g_s"}
    codec.save(tmp_path / "half.safetensors", half=True)
    half = taskpress.load(tmp_path / "half.safetensors")
    half.save(tmp_path / "again.safetensors", half=True)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "half.safetensors").read_bytes()
    assert half.decode(half.encode(array)).size == (100, 64)


def test_codecs_without_one_have_no_trace(lively, tmp_path: Path) -> None:
    codec = lively("cheng2020-anchor")
    codec.save(tmp_path / "codec.safetensors")
    with safe_open(tmp_path / "codec.safetensors", framework="pt") as file:
        assert "allocator" not in file.metadata()
        assert not any("allocator" in name for name in file.keys())  # noqa: SIM118
    loaded = taskpress.load(tmp_path / "codec.safetensors")
    assert loaded.allocator is None and loaded.allocator_cost() is None
    assert loaded.level_map(np.zeros((8, 8, 3), np.uint8)) is None
    assert loaded.estimate(torch.rand(1, 3, 64, 64)).decision is None


def test_what_is_no_allocator_is_refused(lively, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    codec = decisive(lively("mean-scale-hyperprior"), KINDS[1])
    codec.save(good)
    with safe_open(good, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()

    def refused(message: str, drop: str = "", allocator: str | None = metadata["allocator"], **more) -> None:
        kept = {key: value for key, value in {**tensors, **more}.items() if key != drop}
        meta = {key: value for key, value in metadata.items() if key != "allocator"}
        save_file(kept, bad, {**meta, **({"allocator": allocator} if allocator is not None else {})})
        with pytest.raises(CodecError, match=message) as caught:
            taskpress.load(bad)
        assert "\n" not in str(caught.value) and str(bad) in str(caught.value)

    refused("unknown weight 'allocator", allocator=None)
    refused("lacks weight 'gains.log_gain'", drop="allocator.gains.log_gain")
    refused("unknown weight 'extra'", **{"allocator.extra": torch.zeros(1)})
    refused("not finite", **{"allocator.gains.log_gain": torch.full((5, 16), math.nan)})
    refused("shape", **{"allocator.gains.log_gain": torch.zeros(7, 16)})
    for text, message in (
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"kind": "roi", "colour": 1}', "damaged"),
        ('{"kind": "roi", "levels": "5"}', "damaged"),
        ('{"kind": "magic"}', "unknown allocator 'magic'"),
        ('{"kind": "roi", "levels": 4}', "odd number"),
        ('{"kind": "roi", "width": 100000000}', "width"),
        ('{"kind": "semantic", "classes": 0}', "classes"),
        ('{"kind": "roi", "width": 16}', "lacks weight 'attention"),
    ):
        refused(message, allocator=text)
    with pytest.raises(CodecError, match="has an allocator"):
        codec.attach_allocator(KINDS[0])


def test_a_file_of_the_plain_codec_or_a_damaged_map_is_refused(lively, picture, settings) -> None:
    plain = lively("mean-scale-hyperprior")
    codec = decisive(plain, settings)
    array = picture(128, 128)
    with pytest.raises(BitstreamError, match="was written by codec"):
        codec.decode(plain.encode(array))
    header, payload = bitstream.unpack(codec.encode(array))
    section, rest = split_section(payload)

    def packed(payload: bytes) -> bytes:
        return bitstream.pack(header.fingerprint, header.width, header.height, payload)

    longer = bytes([section[0] + 1]) + section[1:] + b"\0\0\0\0"
    for damaged in (b"", b"\0\0\0\0" + rest, b"\xff" * 8, longer + rest):
        with pytest.raises(BitstreamError):
            codec.decode(packed(damaged))


def test_cost_is_that_of_the_layers_counted_by_hand(lively, settings) -> None:
    plain = lively("cheng2020-anchor")
    codec = with_allocator(plain, settings)
    W, M, L = 16, 16, 5
    H = W // 2
    network = 3 * H * 9 + 2 * H + (H * 9 + H * W + 2 * W) + 4 * (W * 9 + W * W + 2 * W)
    macs = 3 * H * 9 / 4 + (H * 9 + H * W) / 16 + (W * 9 + W * W) * (1 / 64 + 3 / 256)
    gains = L * M
    if settings.kind == "roi":
        squeezed = max(4, M // 4)
        head = W + 1 + squeezed * (2 * M + 1) + M
        macs += W / 256 + 2 * M * squeezed / 256**2
    else:
        regions, seen = settings.classes + 1, 16 + 6 + W
        head = regions * (W + 1) + regions * 16 + seen * 64 + 64 + 64 * L + L
        macs += W * regions / 256 + regions * (5 + W) / 256 + regions * (seen * 64 + 64 * L) / 256**2
    cost = codec.allocator_cost()
    assert cost.parameters == network + gains + head
    assert cost.macs_per_pixel == pytest.approx(macs)
    whole, rest = codec.encoder_cost(), plain.encoder_cost()
    assert whole.parameters - rest.parameters == cost.parameters
    assert whole.macs_per_pixel - rest.macs_per_pixel == pytest.approx(cost.macs_per_pixel)


def test_a_position_between_levels_has_the_gain_of_the_nearest_and_the_slope_between() -> None:
    table = GainTable(5, 3)
    position = torch.tensor([[[0.0, 1.3, 2.0, 3.8, 4.0]]], requires_grad=True)
    levels, gain = table.at(position)
    assert levels.tolist() == [[[0, 1, 2, 4, 4]]]
    assert torch.equal(gain, table(levels))
    assert gain.is_contiguous()
    (slope,) = torch.autograd.grad(gain[:, 0].sum(), position, retain_graph=True)
    expected = gain[:, 0].detach() * math.log(math.sqrt(2))
    torch.testing.assert_close(slope, expected)
    gain.sum().backward()
    assert (table.log_gain.grad[[0, 1, 2, 4]] > 0).all() and (table.log_gain.grad[3] == 0).all()


def test_regions_are_described_by_what_they_are() -> None:
    logits = torch.full((1, 3, 4, 8), -9.0)
    logits[:, 0, :, :4] = 9
    logits[:, 2, :, 4:] = 9
    features = torch.arange(32.0).view(1, 1, 4, 8)
    described, present = describe(features, logits, logits.argmax(1))
    assert present.tolist() == [[1, 0, 1]]
    extents = (5 / 4 / 16) ** 0.5, (5 / 4 / 64) ** 0.5
    left = [0.5, 0.5, 0.25, *extents, 1, features[..., :4].mean()]
    torch.testing.assert_close(described[0, 0], torch.tensor(left))
    torch.testing.assert_close(described[0, 1], torch.zeros(7))


def test_drawing_follows_the_policy_and_the_generator_alone() -> None:
    logits = torch.tensor([0.5, 0.25, 0.25]).log().expand(4000, 2, 3)
    assert draw(logits, None).unique().tolist() == [0]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second = (draw(logits, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), before)
    shares = first.flatten().bincount() / first.numel()
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.25, 0.25]), atol=0.03, rtol=0)


def test_everything_of_an_allocator_learns(lively, settings) -> None:
    codec = decisive(lively("mean-scale-hyperprior"), settings).train()
    estimate = codec.estimate(torch.rand(2, 3, 70, 100), torch.Generator().manual_seed(1))
    outputs = estimate.decision.outputs
    own = outputs["foreground"].sum() if settings.kind == "roi" else outputs["classes"].square().sum()
    loss = estimate.rate.mean() + estimate.x_hat.square().mean() + own
    if settings.kind == "semantic":
        loss = loss + outputs["log_prob"].sum()
        assert outputs["log_prob"].shape == (2,)
    loss.backward()
    assert isinstance(codec.allocator, Allocator)
    for name, parameter in codec.allocator.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
