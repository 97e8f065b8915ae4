"""Weights on disk: they come back as they were, and what is no codec is refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import taskpress
from taskpress.coding import checkpoints
from taskpress.coding.allocation import AllocatorSettings
from taskpress.coding.codec import Codec
from taskpress.coding.images import to_tensor
from taskpress.errors import CodecError


def test_save_and_load(codec: Codec, tmp_path: Path, picture) -> None:
    path = tmp_path / "codec.safetensors"
    codec.save(path, card={"data": "nothing", "λ": 0.1})
    loaded = taskpress.load(path)
    assert (loaded.architecture, loaded.latent_channels) == (codec.architecture, codec.latent_channels)
    assert loaded.card == {"data": "nothing", "λ": 0.1}
    assert loaded.fingerprint == codec.fingerprint
    assert not loaded.training
    array = picture(48, 80)
    data = codec.encode(array)
    assert loaded.encode(array) == data
    assert loaded.decode(data).tobytes() == codec.decode(data).tobytes()
    assert [file.name for file in tmp_path.iterdir()] == ["codec.safetensors"]


def test_loading_leaves_the_generator_alone(lively, tmp_path: Path) -> None:
    lively("cheng2020-anchor").save(tmp_path / "c.safetensors")
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    taskpress.load(tmp_path / "c.safetensors")
    assert torch.rand(1) == expected


def test_half_is_half_and_stable(lively, tmp_path: Path, picture) -> None:
    codec = lively("cheng2020-anchor")
    whole, half, again = (tmp_path / f"{name}.safetensors" for name in ("whole", "half", "again"))
    codec.save(whole)
    codec.save(half, half=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    loaded = taskpress.load(half)
    assert all(tensor.dtype == torch.float32 for tensor in loaded.state_dict().values())
    loaded.save(again, half=True)
    assert taskpress.load(again).fingerprint == loaded.fingerprint
    assert again.read_bytes() == half.read_bytes()
    array = picture(64, 64)
    assert taskpress.load(again).decode(loaded.encode(array)).size == (64, 64)


def test_a_trained_codec_saves_its_own_medians(tmp_path: Path) -> None:
    codec = Codec.create("mean-scale-hyperprior", 8).train()
    codec.estimate(torch.rand(1, 3, 64, 64))
    with torch.no_grad():
        for bias in codec.model.entropy_bottleneck.biases:
            bias.add_(0.5)
    codec.save(tmp_path / "codec.safetensors")
    bottleneck = taskpress.load(tmp_path / "codec.safetensors").model.entropy_bottleneck
    assert bottleneck.logits_cumulative(bottleneck.quantiles[:, :, 1:2]).abs().max() < 1e-4


def test_an_older_checkpoint_of_compressai(lively, tmp_path: Path) -> None:
    """Published weights name the bottleneck's parameters _matrix0, _bias0, _factor0."""
    codec = lively("mean-scale-hyperprior")
    state = {}
    for key, tensor in codec.model.state_dict().items():
        for new, old in (("matrices.", "_matrix"), ("biases.", "_bias"), ("factors.", "_factor")):
            key = key.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{old}")
        state[key] = tensor
    state["entropy_bottleneck._quantized_cdf"] = torch.zeros(16, 20, dtype=torch.int32)
    path = tmp_path / "old.pth.tar"
    torch.save(state, path)
    assert "entropy_bottleneck._matrix0" in state
    assert taskpress.load(path).fingerprint == codec.fingerprint


def rewrite(
    path: Path, out: Path, metadata: dict[str, str] | None = None, drop: str = "", **more: object
) -> Path:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys() if key != drop}  # noqa: SIM118
        found = {**file.metadata(), **(metadata or {})}
    save_file({**tensors, **more}, out, found)
    return out


def test_what_is_no_codec_is_refused(lively, tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    lively("mean-scale-hyperprior").save(good)
    bad = tmp_path / "bad.safetensors"
    cases: list[tuple[Path, str]] = [(tmp_path / "absent.safetensors", "no such file"), (tmp_path, "folder")]
    cut, text, empty = (tmp_path / f"{name}.safetensors" for name in ("cut", "text", "empty"))
    cut.write_bytes(good.read_bytes()[:1000])
    text.write_text("not a codec")
    empty.touch()
    cases += [(cut, "no safetensors"), (text, "no safetensors"), (empty, "is empty")]
    for path, message in cases:
        with pytest.raises(CodecError, match=message) as caught:
            taskpress.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    for changes, message in (
        ({"metadata": {"format": "other"}}, "no TaskPress codec"),
        ({"metadata": {"format_version": "9"}}, "format 9"),
        ({"metadata": {"architecture": "mean-scale-hyperpriors"}}, "did you mean mean-scale-hyperprior"),
        ({"metadata": {"channels": "many"}}, "metadata is damaged"),
        ({"metadata": {"channels": "100000000"}}, "not between"),
        ({"metadata": {"channels": "20"}}, "shape"),
        ({"metadata": {"channels": "4096", "latent_channels": "4096"}}, "shape"),
        ({"metadata": {"card": "[1]"}}, "card"),
        ({"drop": "g_a.0.weight"}, "lacks weight 'g_a.0.weight'"),
        ({"extra": torch.zeros(1)}, "unknown weight 'extra'"),
        ({"g_a.0.bias": torch.full((16,), float("nan"))}, "not finite"),
    ):
        with pytest.raises(CodecError, match=message):
            taskpress.load(rewrite(good, bad, **changes))


def test_torch_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for content, message in (
        ({"weight": torch.zeros(3)}, "none of the known architectures"),
        ({"state_dict": {"epoch": 3}}, "no state dict"),
        ([1, 2], "no state dict"),
        (Path("/"), "no checkpoint of weights alone"),
    ):
        torch.save(content, path)
        with pytest.raises(CodecError, match=message) as caught:
            taskpress.load(path)
        assert "\n" not in str(caught.value)
    scalars = {name: torch.tensor(1.0) for name in ("g_a.0.weight", "g_a.6.weight", "h_s.4.weight")}
    torch.save(scalars, path)
    with pytest.raises(CodecError, match="none of the known"):
        taskpress.load(path)
    for content in (b"garbage", b"hello", b"\x80\x02.", b"version https://git-lfs", bytes(9)):
        path.write_bytes(content)
        with pytest.raises(CodecError, match=r"x\.pth: is no checkpoint") as caught:
            taskpress.load(path)
        assert "weights_only" not in str(caught.value)


def test_a_codec_is_not_saved_as_what_it_is_not(lively, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=r"name it mine\.safetensors"):
        lively("cheng2020-anchor").save(tmp_path / "mine.pt")
    assert not list(tmp_path.iterdir())


def test_shipped_names(lively, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path)
    for name in ("scenes-aux-q1", "scenes-aux-q2", "photos"):
        lively("mean-scale-hyperprior").save(tmp_path / f"{name}.safetensors")
    save_file({"weight": torch.zeros(1)}, tmp_path / "detector.safetensors")
    assert checkpoints.shipped_names() == ["photos", "scenes-aux-q1", "scenes-aux-q2"]
    assert taskpress.load("photos").architecture == "mean-scale-hyperprior"
    with pytest.raises(CodecError, match=r"scenes-aux-q1, scenes-aux-q2|scenes-aux-q2, scenes-aux-q1"):
        taskpress.load("scenes-aux-q3")


@pytest.mark.parametrize("name", checkpoints.shipped_names())
def test_shipped_codecs_code(name: str, picture) -> None:
    codec = taskpress.load(name)
    array = picture(256, 256)
    data = codec.encode(array)
    with torch.no_grad():
        estimate = codec.estimate(to_tensor(array)[None])
    assert torch.equal(codec.decode(data, "tensor"), estimate.x_hat[0].clamp(0, 1))
    estimated = estimate.rate.item() * 65536 / 8
    assert abs(len(data) - estimated) <= 0.01 * estimated + 64


def test_saving_where_nothing_can_be_written(lively, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="cannot be written"):
        lively("mean-scale-hyperprior").save(tmp_path / "absent" / "codec.safetensors")


def test_the_card_is_json(lively, tmp_path: Path) -> None:
    lively("mean-scale-hyperprior").save(tmp_path / "c.safetensors", card={"seed": 3})
    with safe_open(tmp_path / "c.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["card"]) == {"seed": 3}


@pytest.mark.parametrize("card", [{"ap": np.float32(1)}, {1: 2, "a": 3}, {"ap": float("nan")}])
def test_a_card_that_is_not_json_is_refused_and_forgotten(tmp_path: Path, card: dict) -> None:
    codec = Codec.create("mean-scale-hyperprior", 8)
    with pytest.raises(CodecError, match=r"a\.safetensors: the card is no JSON object .*; not saved"):
        codec.save(tmp_path / "a.safetensors", card=card)
    assert not list(tmp_path.iterdir())
    codec.save(tmp_path / "b.safetensors")
    assert Codec.load(tmp_path / "b.safetensors").card == {}


def test_a_codecs_own_state_dict_loads_as_the_models_does(tmp_path: Path) -> None:
    codec = Codec.create("mean-scale-hyperprior", 8)
    torch.save(codec.state_dict(), tmp_path / "codec.pth")
    torch.save(codec.model.state_dict(), tmp_path / "model.pth")
    fingerprints = {Codec.load(tmp_path / f"{name}.pth").fingerprint for name in ("codec", "model")}
    assert fingerprints == {codec.fingerprint}
    codec.attach_allocator(AllocatorSettings("roi"))
    torch.save(codec.state_dict(), tmp_path / "allocator.pth")
    with pytest.raises(CodecError, match=r"allocator\.pth: holds an allocator's weights .* codec\.save\(\)"):
        Codec.load(tmp_path / "allocator.pth")
