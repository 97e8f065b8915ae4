"""Refining by what a codec's card says it was trained for: what is gained, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from taskpress.cli.app import app
from taskpress.cli.refining import refinements
from taskpress.coding.codec import Codec
from taskpress.coding.images import to_tensor
from taskpress.datasets.scenes import Scenes
from taskpress.errors import ConfigError
from taskpress.evaluation.result import Result
from taskpress.recognition import named
from taskpress.recognition.named import load_recognizer
from taskpress.recognition.protocol import Recognizer
from taskpress.training.config import RunConfig
from taskpress.training.refining import refinement_for


def small_scene() -> np.ndarray:
    """uint8 [128, 128, 3]"""
    return Scenes("test", 2)[1].image[64:192, 64:192]


def lost(codec: Codec, image: np.ndarray, data: bytes) -> float:
    """The scenes' recognizer's own loss on what a file decodes to, labels being those of the scene itself."""
    recognizer = load_recognizer("scenes")
    labels = recognizer.pseudo_labels([to_tensor(image)])
    torch.manual_seed(0)
    terms = recognizer.loss([codec.decode(data, "tensor")], labels)
    return float(torch.stack(list(terms.values())).sum())


def test_the_recognizer_sees_more_in_fewer_bits() -> None:
    codec, image = Codec.load("scenes-task-q3"), small_scene()
    plain = codec.encode(image)
    refined = codec.encode(image, None, refinement_for(codec, "scenes-task-q3", 12, lmbda=0.3))
    assert len(refined) < 0.95 * len(plain)
    assert lost(codec, image, refined) < 0.7 * lost(codec, image, plain)


def test_weight_and_loss_are_those_of_the_card() -> None:
    codec = Codec.load("scenes-aux-q2")
    config = RunConfig.model_validate(codec.card["config"])
    refinement = refinement_for(codec, "scenes-aux-q2", 5)
    assert refinement.lmbda == config.lmbda / 10 and config.objective.alpha > 0
    images = torch.rand(2, 1, 3, 64, 64)
    torch.manual_seed(0)
    ours = refinement.distortion_of(images[0])(images[1])
    recognizer = load_recognizer("scenes")
    torch.manual_seed(0)
    theirs = recognizer.loss([images[1][0]], recognizer.pseudo_labels([images[0][0]]))
    assert ours.item() == pytest.approx(float(torch.stack(list(theirs.values())).sum()))


def test_a_codec_of_squared_error_needs_no_recognizer() -> None:
    codec = Codec.load("scenes-task-q1")
    codec.card["config"]["recognizer"] = "onnx:${NOWHERE}/detector.onnx"
    codec.card["config"]["objective"] |= {"task": "none", "mse": 1.0}
    images = torch.rand(2, 1, 3, 64, 64)
    refinement = refinement_for(codec, "mine", 5)
    assert refinement.judge == "squared error"
    distortion = refinement.distortion_of(images[0])(images[1])
    assert distortion.item() == pytest.approx(255**2 * float((images[0] - images[1]).square().mean()))


def test_by_default_there_are_fewer_bits_and_more_is_seen() -> None:
    codec, image = Codec.load("scenes-task-q2"), small_scene()
    plain, refined = (
        codec.encode(image, None, how) for how in (None, refinement_for(codec, "scenes-task-q2"))
    )
    assert len(refined) < len(plain) and lost(codec, image, refined) < lost(codec, image, plain)


def test_by_another_recognizer_of_another_task() -> None:
    codec, image = Codec.load("scenes-task-q2"), small_scene()[:64, :64]
    codec.card["config"]["objective"]["task"] = "outputs"
    refinement = refinement_for(codec, "mine", 2, 1.0, "lraspp-mobilenet-v3:random")
    assert refinement.judge == "lraspp-mobilenet-v3:random"
    codec.decode(codec.encode(image, None, refinement))


def test_what_says_nothing_of_pictures_is_refused() -> None:
    codec = Codec.create("cheng2020-anchor", 8)
    with pytest.raises(ConfigError, match=r"mine: its card holds no settings of a training"):
        refinement_for(codec, "mine", 5)
    codec = Codec.load("scenes-aux-q2")
    codec.card["config"]["objective"]["task"] = "none"
    with pytest.raises(ConfigError, match=r"mine: was trained by its auxiliary loss alone"):
        refinement_for(codec, "mine", 5)


def test_several_codecs_share_what_judges_them(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def counted(spec: str) -> Recognizer:
        opened.append(spec)
        return load_recognizer(spec)

    monkeypatch.setattr(named, "load_recognizer", counted)
    names = ["scenes-task-q1", "scenes-aux-q1"]
    first, second = refinements([Codec.load(name) for name in names], names, 2, None, None)
    assert first is not None and second is not None and opened == ["scenes"]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    folder = tmp_path / "scene"
    folder.mkdir()
    Image.fromarray(small_scene()).save(folder / "one.png")
    return folder


def run(*arguments: object) -> str:
    outcome = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_on_the_command_line(scene: Path, tmp_path: Path) -> None:
    common = ("--refine", 3, "--refine-lambda", 0.05)
    (row,) = json.loads(run("encode", "scenes-task-q1", scene, "-o", tmp_path / "coded", "--json", *common))
    run("decode", tmp_path / "coded", "-o", tmp_path / "decoded")
    assert (tmp_path / "decoded" / "one.png").exists()
    results = tmp_path / "results"
    run("evaluate", "scenes-task-q1", "--images", scene, "--recognizer", "scenes", "-o", results, *common)
    result = Result.read(results / "scenes-task-q1-refined-3-0.05.json")
    assert result.curve == "task, refined" and result.pictures[0].bits == 8 * row["bytes"]
    assert result.refined is not None and result.training is not None and result.encoder is not None
    assert result.encoder.besides == "3 times g_s and scenes, forward and backward"
    assert (result.refined.steps, result.refined.lmbda, result.training.lmbda) == (3, 0.05, 0.15)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--refine-lambda", 0.1), "--refine-lambda: says how to refine, so it goes with --refine STEPS"),
        (("--refine-recognizer", "scenes"), "--refine-recognizer: says how to refine"),
        (("--refine", 2, "--refine-lambda", -1), "λ is above 0"),
        (("--refine", 2, "--refine-lambda", "nan"), "λ is above 0"),
    ],
)
def test_options_that_make_no_sense(
    scene: Path, tmp_path: Path, options: tuple[object, ...], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        run("encode", "scenes-task-q1", scene, "-o", tmp_path / "coded", *options)
    assert not (tmp_path / "coded").exists()
