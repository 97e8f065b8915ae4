"""A user's own architecture, by file: the documented one codes as the built-in ones do, no file runs code by
itself, and what cannot be coded exactly is refused when it is made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from taskpress.coding import own_architecture
from taskpress.coding.codec import Codec
from taskpress.coding.files import codec_name
from taskpress.coding.own_architecture import name_architecture, named_architectures
from taskpress.errors import CodecError

from .conftest import draw, enlivened


@pytest.fixture(autouse=True)
def example_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else: what other tests name is of the whole process."""
    monkeypatch.setattr(own_architecture, "_named", {})
    name_architecture(ELIC)


EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "elic.py"
ELIC = f"python:{EXAMPLE}:Elic"


@pytest.mark.parametrize("tile", [0, 64])
def test_the_example_codes_what_it_estimates(tile: int) -> None:
    codec, image = enlivened(ELIC), draw(90, 150)
    data = codec.encode(image, tile)
    decoded = codec.decode(data, "numpy")
    assert (decoded[10:80, 30:140] == codec.decode(data, "numpy", region=(30, 10, 140, 80))).mean() > 0.999
    if tile == 0:
        with torch.no_grad():
            estimate = codec.estimate(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
        expected = (estimate.x_hat[0].permute(1, 2, 0).clamp(0, 1) * 255).round().numpy().astype(np.uint8)
        assert (decoded == expected).mean() > 0.999
        assert 8 * len(data) == pytest.approx(90 * 150 * float(estimate.rate), rel=0.01, abs=300)
    codec.precision = "bfloat16"
    near = codec.decode(data, "numpy").astype(int)
    codec.precision = "float32"
    assert np.abs(near - decoded).mean() < 1


def test_layers_of_ones_own_see_the_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """In strips, as nobody knows how far they look, edges between strips would show."""
    codec, image = enlivened(ELIC), draw(200, 330)
    data = codec.encode(image)
    decoded = codec.decode(data, "numpy")
    monkeypatch.setattr("taskpress.coding.strips.BAND", 128)
    monkeypatch.setattr("taskpress.coding.strips.STRIP_VALUES", 64 * 64 * 16)
    assert codec.encode(image) == data
    assert (codec.decode(data, "numpy") == decoded).all()


def test_a_file_is_read_with_its_code_and_not_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, file = enlivened(ELIC), tmp_path / "elic-q1.safetensors"
    codec.save(file)
    name = f"{ELIC}:{file}"
    loaded = Codec.load(name)
    assert loaded.fingerprint == codec.fingerprint
    assert loaded.architecture == "python:Elic"
    assert codec_name(name) == "elic-q1"
    assert ELIC in named_architectures()
    # The code once named, files do without.
    assert Codec.load(file).fingerprint == codec.fingerprint

    monkeypatch.setattr(own_architecture, "_named", {})
    with pytest.raises(CodecError, match=rf"name the code too: python:FILE\.py:Elic:{file}"):
        Codec.load(file)
    other = tmp_path / "other.safetensors"
    Codec.create("mean-scale-hyperprior", 4).save(other)
    with pytest.raises(CodecError, match=r"other.*is mean-scale-hyperprior, not python:Elic"):
        Codec.load(f"{ELIC}:{other}")
    with pytest.raises(CodecError, match="names no codec; write"):
        Codec.load(ELIC)
    with pytest.raises(CodecError, match="no such file"):
        Codec.load(f"{ELIC}:{tmp_path}/absent.safetensors")


def test_no_file_runs_code_by_itself(tmp_path: Path) -> None:
    """However its architecture is called: a process that was not told the code does not run it."""
    ran, code = tmp_path / "ran", tmp_path / "evil.py"
    code.write_text(f"open({str(ran)!r}, 'w')\n" + EXAMPLE.read_text())
    file = tmp_path / "evil.safetensors"
    own_architecture._named.clear()
    codec = Codec.create(f"python:{code}:Elic", 4)
    ran.unlink()
    codec.architecture = f"python:{code}:Elic"
    codec.save(file)
    read = f"from taskpress import load\ntry: load({str(file)!r})\nexcept Exception as e: print(e)"
    told = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True)
    assert "its architecture is a class" in told.stdout
    assert not ran.exists()


OWN = """
import torch
from torch import nn
from taskpress.coding.entropy_models import EntropyBottleneck
from taskpress.coding.layers import MaskedConv2d, conv, deconv
from taskpress.coding.models import JointAutoregressive, MeanScaleHyperprior

class Own(JointAutoregressive):
    def __init__(self, N, M):
        super().__init__(N, M)
        {change}
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("self.h_s[1] = nn.GELU()", r"h_s\.1 is a GELU; it decides probabilities"),
        ("self.h_s[1] = nn.LeakyReLU(0.2)", r"h_s\.1 has the slope 0\.2"),
        ("self.h_s[4] = nn.Conv2d(M * 3 // 2, 2 * M, 3, padding=1, groups=2)", r"h_s\.4 has groups"),
        ("self.h_s[4] = nn.Conv2d(M * 3 // 2, 2 * M, 3, padding='same')", r"h_s\.4 has groups, a dilation"),
        ("self.h_s = nn.Conv2d(N, 2 * M, 1)", r"h_s is no nn\.Sequential"),
        ("self.h_s[4] = conv(M * 3 // 2, 2 * M)", r"h_s makes \[1, 16, 2, 2\] of .*, not \[1, 16, 4, 4\]"),
        ("self.g_a = nn.Sequential(conv(3, M))", r"g_a makes \[1, 8, 32, 32\] of \[1, 3, 64, 64\]"),
        ("self.g_s[0] = deconv(M + 1, N)", "g_s raises RuntimeError on"),
        ("del self.g_s", "has no g_s"),
        ("self.M = 9", "M = 9 where 8, 8 were asked for"),
        ("self.entropy_parameters.append(nn.LeakyReLU())", r"no three 1×1 convolutions"),
        ("self.entropy_parameters[0] = nn.Conv2d(4 * M, M * 10 // 3, 3, padding=1)", "no three"),
        ("self.entropy_parameters[1] = nn.ReLU()", r"entropy_parameters\.1 is a ReLU"),
        ("self.entropy_parameters = None", "they go together"),
        ("self.context_prediction = nn.Conv2d(M, 2 * M, 5, padding=2)", "context_prediction is no"),
        ("self.context_prediction = MaskedConv2d(M, M)", r"context_prediction makes \[1, 8, 4, 4\]"),
        ("self.entropy_bottleneck = nn.Identity()", "is no EntropyBottleneck of 8 channels"),
        ("self.entropy_bottleneck = EntropyBottleneck(N + 1)", "no EntropyBottleneck of 8 channels"),
        ("self.gaussian_conditional = nn.Identity()", "no GaussianConditional"),
        ("pass\n    def _noisy(self, y): ...", "has a _noisy of its own"),
        ("nn.utils.spectral_norm(self.h_s[0])", r"h_s\.0 has hooks"),
        ("self.h_s[1].forward = abs", r"h_s\.1 has hooks"),
        ("self.g_s.append(nn.AdaptiveAvgPool2d(64))", r"g_s makes \[1, 3, 64, 64\] of \[1, 8, 4, 8\]"),
        ("pass\n    def scales_and_means(self, params, y_hat): ...", "has a scales_and_means of its own"),
        ("raise ValueError('odd')", "ValueError: odd"),
    ],
)  # fmt: skip
def test_what_cannot_be_coded_says_why(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=message) as raised:
        Codec.create(own(tmp_path, change), 8)
    assert "own.py:Own" in str(raised.value)


def own(folder: Path, *changes: str) -> str:
    (folder / "own.py").write_text(OWN.replace("{change}", "\n        ".join(changes)))
    return f"python:{folder}/own.py:Own"


@pytest.mark.parametrize(
    "changes",
    [
        # One activation in several places: each time it is at work.
        ["act = self.h_s[1]", "self.h_s[3] = act", "self.entropy_parameters[3] = self.entropy_parameters[1]"],
        # What is in training otherwise, and counts in whole numbers.
        ["self.h_a.append(nn.BatchNorm2d(N))", "self.g_a.extend([nn.BatchNorm2d(M), nn.Dropout()])"],
        ["self.g_s[1] = self.g_s[3] = self.g_s[5] = nn.PReLU()"],
        ["self.g_a.steps = [value.item() for value in torch.linspace(0, 1, 3)]"],
        ["self.register_buffer('places', torch.arange(5000))"],
    ],
    ids=["shared activations", "batch norm", "shared weights", "no meta device", "whole numbers"],
)  # fmt: skip
@pytest.mark.parametrize("half", [False, True])
def test_what_classes_do_survives_its_file(changes: list[str], half: bool, tmp_path: Path) -> None:
    codec = enlivened(own(tmp_path, *changes)).train()
    codec.estimate(torch.rand(2, 3, 64, 64)).rate.sum().backward()
    codec.save(tmp_path / "own.safetensors", half=half)
    loaded = Codec.load(tmp_path / "own.safetensors")
    for key, value in codec.model.state_dict().items():
        tolerance = (
            {"rtol": 1e-3, "atol": 1e-4} if half and value.is_floating_point() else {"rtol": 0, "atol": 0}
        )
        torch.testing.assert_close(loaded.model.state_dict()[key], value, **tolerance)
    image = draw(70, 130)
    for one in (codec, loaded):
        data = one.encode(image)
        assert (one.decode(data, "numpy") == one.eval().decode(data, "numpy")).all()
    with torch.no_grad():
        estimate = loaded.estimate(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
    # Probabilities that training knows are those of files.
    assert 8 * len(data) == pytest.approx(70 * 130 * float(estimate.rate), rel=0.02, abs=300)


def test_two_classes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder, change in ((tmp_path / "a", "pass"), (tmp_path / "b", "self.g_s.append(nn.Sigmoid())")):
        folder.mkdir()
        own(folder, change)
    Codec.create(f"python:{tmp_path}/a/own.py:Own", 4)
    with pytest.raises(CodecError, match=r"b/own\.py:Own: .*a/own\.py:Own has a class of that name"):
        Codec.create(f"python:{tmp_path}/b/own.py:Own", 4)
    # Changed on the way, as in a notebook, it is the new one.
    assert len(Codec.create(own(tmp_path / "a", "self.g_s.append(nn.Sigmoid())"), 4).model.g_s) == 8


def test_code_is_named_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, file = enlivened(ELIC), tmp_path / "elic.safetensors"
    codec.save(file)
    monkeypatch.setattr(own_architecture, "_named", {})
    monkeypatch.setenv("TASKPRESS_ARCHITECTURE", f"{own(tmp_path, 'pass')};{ELIC}")
    assert Codec.load(file).fingerprint == codec.fingerprint


def test_what_is_no_architecture_says_why(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("class Own: pass")
    with pytest.raises(CodecError, match="no class derived from taskpress"):
        name_architecture(f"python:{tmp_path}/own.py:Own")
    with pytest.raises(CodecError, match="takes no argument"):
        name_architecture(f"{ELIC}:three")
    with pytest.raises(CodecError, match="there is no file"):
        Codec.create(f"python:{tmp_path}/absent.py:Own", 8)
