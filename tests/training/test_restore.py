"""The branch of a finished training, from its checkpoint alone."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from taskpress.auxiliary.detection import DetectionBranch
from taskpress.cli.app import app
from taskpress.coding.codec import Codec
from taskpress.errors import ConfigError, DataError
from taskpress.training.config import Preset
from taskpress.training.expected_gradients import signals
from taskpress.training.restore import restore
from taskpress.training.run import train_experiment


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two trainings of two steps: aux-q1 with a branch, objectness-q1 with another."""
    folder = tmp_path_factory.mktemp("run")
    preset = {
        "name": "tiny",
        "seed": 3,
        "recognizer": "scenes",
        "codec": {"channels": 8, "latent_channels": 12, "architecture": "mean-scale-hyperprior"},
        "data": {"sources": ["scenes:2"], "patch": 64},
        "objective": {"task": "none", "mse": 1.0},
        "optimizer": {"steps": 2},
        "lambdas": [0.5],
        "arms": {"task+aux": {"alpha": 0.1}, "objectness": {"alpha": 1.0, "auxiliary": "objectness"}},
        "trainer": {"accelerator": "cpu", "checkpoint_every": 2},
    }
    train_experiment(Preset.model_validate(preset), folder)
    return folder


def test_codec_and_branch_are_those_of_the_training(trained: Path) -> None:
    found = restore(trained / "aux-q1")
    assert (found.step, found.config.arm, found.recognizer.name) == (2, "task+aux", "scenes")
    assert isinstance(found.branch, DetectionBranch)
    assert not found.codec.training and not found.branch.training
    shipped = Codec.load(trained / "codecs" / "tiny-aux-q1.safetensors")
    assert found.codec.fingerprint == shipped.fingerprint
    stored = torch.load(trained / "aux-q1" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for key, value in found.branch.state_dict().items():
        assert torch.equal(value, stored[f"branches.0.{key}"])


def test_a_checkpoint_of_before_is_read_as_ever(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "aux-q1"
    shutil.copytree(trained / "aux-q1", folder)
    last = folder / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["state_dict"] = {
        re.sub(r"^branches\.0\.", "branch.", key): value for key, value in content["state_dict"].items()
    }
    assert any(key.startswith("branch.") for key in content["state_dict"])
    torch.save(content, last)
    found, wanted = restore(folder).branch.state_dict(), restore(trained / "aux-q1").branch.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in found)


def test_the_command_scores_it_and_draws_it(trained: Path, tmp_path: Path) -> None:
    arguments = ["evaluate-branch", trained / "aux-q1", "--images", "scenes", "--limit", 2, "--show", 1]
    outcome = CliRunner().invoke(app, [str(word) for word in [*arguments, "-o", tmp_path / "out", "--json"]])
    assert outcome.exception is None
    (printed,) = json.loads(outcome.stdout)
    assert printed == json.loads((tmp_path / "out" / "tiny-aux-q1-branch.json").read_text())
    assert (printed["arm"], printed["alpha"], printed["step"]) == ("task+aux", 0.1, 2)
    assert printed["training"]["seed"] == 3 and printed["images"] == 2
    assert printed["scores"]["uncompressed"]["teacher_ap"] == 100
    assert printed["scores"]["latent"].keys() == printed["scores"]["decoded"].keys()
    assert Image.open(tmp_path / "out" / "tiny-aux-q1-branch.png").size[0] > 1000
    again = [str(word) for word in [*arguments, "-o", tmp_path / "out", "--skip", "--json"]]
    assert CliRunner().invoke(app, again).stdout == "[]\n"
    with pytest.raises(
        ConfigError, match=r"branch\.json: is of another measurement \(its resize is None, not 64"
    ):
        raise CliRunner().invoke(app, [*again, "--resize", "64"]).exception  # type: ignore[misc]
    with pytest.raises(ConfigError, match=r"objectness-q1.*finds no boxes"):
        words = ["evaluate-branch", trained / "objectness-q1", "--images", "scenes", "-o", tmp_path / "out"]
        raise CliRunner().invoke(app, [str(word) for word in words]).exception  # type: ignore[misc]


def test_what_has_no_branch_says_so(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"codecs.*a training's folder"):
        restore(trained / "codecs")
    folder = tmp_path / "aux-q1"
    (folder / "checkpoints").mkdir(parents=True)
    settings = (trained / "aux-q1" / "config.yaml").read_text()
    (folder / "config.yaml").write_text(settings.replace("alpha: 0.1", "alpha: 0.0"))
    with pytest.raises(ConfigError, match="without an auxiliary branch"):
        restore(folder)
    (folder / "config.yaml").write_text(settings)
    with pytest.raises(ConfigError, match=r"last\.ckpt: no such checkpoint"):
        restore(folder)
    whole = (trained / "aux-q1" / "checkpoints" / "last.ckpt").read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"not a checkpoint"):
        (folder / "checkpoints" / "last.ckpt").write_bytes(damaged)
        with pytest.raises(DataError, match=r"last\.ckpt: no checkpoint of tiny-aux-q1"):
            restore(folder)
    (folder / "config.yaml").write_text("[1, 2]")
    with pytest.raises(ConfigError, match="is damaged"):
        restore(folder)


def test_the_signal_of_every_term_is_stated(trained: Path, tmp_path: Path) -> None:
    picture = tmp_path / "signal.png"
    words = ["gradient-signal", trained / "aux-q1", trained / "objectness-q1", "-o", picture, "--batches", 3]
    outcome = CliRunner().invoke(app, [str(word) for word in [*words, "--json"]])
    assert outcome.exception is None
    printed = json.loads(outcome.stdout)
    assert printed == json.loads(picture.with_suffix(".json").read_text())
    assert [one["auxiliary"] for one in printed["trainings"]] == ["detection", "objectness"]
    for one in printed["trainings"]:
        assert one["terms"].keys() == {"rate", "task", "aux"} and (one["step"], one["batches"]) == (2, 3)
        assert all(term["noise"] > 0 for term in one["terms"].values())
    with pytest.raises(ConfigError, match=r"ends in \.png"):
        raise CliRunner().invoke(app, [*map(str, words[:2]), "-o", "x.json"]).exception  # type: ignore[misc]


def test_the_auxiliary_signal_is_proportional_to_alpha(trained: Path) -> None:
    found = restore(trained / "aux-q1")
    doubled = found.config.objective.model_copy(update={"alpha": 0.2})
    other = replace(found, config=found.config.model_copy(update={"objective": doubled}))
    once, twice = signals(found, 3), signals(other, 3)
    assert twice.terms["aux"].noise == pytest.approx(2 * once.terms["aux"].noise, rel=1e-4)
    assert twice.terms["aux"].signal == pytest.approx(2 * once.terms["aux"].signal, rel=1e-3)
    assert twice.terms["task"] == once.terms["task"] and not found.codec.training
