"""The loss of pictures that nothing is trained on, logged along the way."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from taskpress.coding.codec import Codec
from taskpress.coding.images import to_tensor
from taskpress.datasets.scenes import Scenes
from taskpress.errors import DataError
from taskpress.recognition.named import load_recognizer
from taskpress.training import run
from taskpress.training.config import Preset
from taskpress.training.logs import read_log
from taskpress.training.run import settings_digest

from .conftest import STEPS, power_cut, preset

SIDE, EVERY = 64, 2
CORNERS = (64, 96, 128)


def pictures() -> list[NDArray[np.uint8]]:
    """Parts of scenes, as large as a crop, so that a crop is the picture."""
    samples = zip(CORNERS, Scenes("validation", len(CORNERS)), strict=True)
    return [sample.image[at : at + SIDE, at : at + SIDE] for at, sample in samples]


@pytest.fixture(scope="module")
def held_out_pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pictures")
    for number, picture in enumerate(pictures()):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return str(folder)


def watched(held_out: str | None) -> Preset:
    sources = None if held_out is None else [held_out]
    return preset(
        data={"sources": ["scenes:8"], "patch": SIDE, "held_out": sources, "held_out_crops": len(CORNERS)},
        trainer={"accelerator": "cpu", "checkpoint_every": 2, "log_every": 1, "held_out_every": EVERY},
    )


def held_out(training: Path) -> dict[int, dict[str, float]]:
    """What was logged, by step, the newest attempt's where several logged it."""
    found = {}
    for path in sorted(training.glob("logs/from-step-*/metrics.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row.get("held_out/loss"):
                    named = {name: float(row[name]) for name in row if name.startswith("held_out/")}
                    found[int(row["step"])] = named
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, held_out_pictures: str) -> Path:
    folder = tmp_path_factory.mktemp("held-out")
    run.train_experiment(watched(held_out_pictures), folder)
    return folder


def test_looking_changes_nothing(folder: Path, tmp_path: Path, held_out_pictures: str) -> None:
    (codec,) = run.train_experiment(watched(None), tmp_path, only=["aux-q1"])
    assert Codec.load(codec).fingerprint == Codec.load(folder / "codecs" / codec.name).fingerprint
    digests = {settings_digest(one.runs()[1], STEPS) for one in (watched(held_out_pictures), watched(None))}
    assert len(digests) == 1


def test_what_is_logged_is_what_files_hold(folder: Path) -> None:
    logged = held_out(folder / "task-q1")
    assert sorted(logged) == list(range(EVERY - 1, STEPS, EVERY))
    last = logged[STEPS - 1]
    codec = Codec.load(folder / "codecs" / "tiny-task-q1.safetensors")
    recognizer = load_recognizer("scenes")
    scenes = pictures()
    files = [codec.encode(scene) for scene in scenes]
    header = 30
    rates = np.array([8 * len(file) / scene[..., 0].size for file, scene in zip(files, scenes, strict=True)])
    assert rates.mean() - 8 * header / SIDE**2 < last["held_out/rate"] < rates.mean() * 1.01
    decoded = [to_tensor(codec.decode(file)) for file in files]
    errors = [F.mse_loss(one, to_tensor(scene)).item() for one, scene in zip(decoded, scenes, strict=True)]
    # That of the picture before it is limited to 0…1, which can only bring it nearer.
    assert 0.99 * np.mean(errors) < last["held_out/mse"] < 2 * np.mean(errors)
    with torch.no_grad():
        layers = [recognizer.features([to_tensor(scene)]) for scene in scenes]
        seen = [recognizer.features([one]) for one in decoded]
    features = [
        np.mean([((a - b) ** 2).sum().item() / (b**2).sum().item() for a, b in zip(*pair, strict=True)])
        for pair in zip(seen, layers, strict=True)
    ]
    assert last["held_out/task/features"] == pytest.approx(np.mean(features), rel=0.05)
    parts = sum(value for name, value in last.items() if name.startswith("held_out/task/"))
    assert last["held_out/task"] == pytest.approx(parts, rel=1e-4)
    whole = 0.5 * last["held_out/task"] + last["held_out/rate"]
    assert last["held_out/loss"] == pytest.approx(whole, rel=1e-4)
    assert "held_out/aux" in held_out(folder / "aux-q1")[STEPS - 1]


@pytest.mark.parametrize("kill_at", [3, 4])
def test_a_killed_run_logs_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out_pictures: str, kill_at: int
) -> None:
    with power_cut(monkeypatch, at=kill_at):
        run.train_experiment(watched(held_out_pictures), tmp_path, only=["aux-q1"])
    (codec,) = run.train_experiment(watched(held_out_pictures), tmp_path, only=["aux-q1"])
    assert Codec.load(codec).fingerprint == Codec.load(folder / "codecs" / codec.name).fingerprint
    assert held_out(tmp_path / "aux-q1") == held_out(folder / "aux-q1")


def steps_of(training: Path) -> list[int]:
    return [int(row["step"]) for row in read_log(training) if "loss" in row]


def test_a_rehearsal_that_ends_with_a_look_goes_on_in_step(
    folder: Path, tmp_path: Path, held_out_pictures: str
) -> None:
    preset = watched(held_out_pictures)
    run.train_experiment(preset, tmp_path, only=["task-q1"], limit_steps=2 * EVERY)
    (codec,) = run.train_experiment(preset, tmp_path, only=["task-q1"])
    assert steps_of(tmp_path / "task-q1") == steps_of(folder / "task-q1") == list(range(STEPS))
    assert held_out(tmp_path / "task-q1") == held_out(folder / "task-q1")
    assert Codec.load(codec).fingerprint == Codec.load(folder / "codecs" / codec.name).fingerprint


def test_with_an_average_it_is_the_average_that_is_looked_at(tmp_path: Path, held_out_pictures: str) -> None:
    """Which is what is saved; the training goes on with its own weights."""

    def averaged(held_out: str | None) -> Preset:
        one = watched(held_out)
        optimizer = one.optimizer.model_copy(update={"average": 0.6})
        return one.model_copy(update={"optimizer": optimizer})

    (with_look,) = run.train_experiment(averaged(held_out_pictures), tmp_path / "1", only=["task-q1"])
    (without,) = run.train_experiment(averaged(None), tmp_path / "2", only=["task-q1"])
    codec = Codec.load(with_look)
    assert codec.fingerprint == Codec.load(without).fingerprint
    logged = held_out(tmp_path / "1" / "task-q1")[STEPS - 1]
    with torch.no_grad():
        batch = torch.stack([to_tensor(picture) for picture in pictures()])
        estimate = codec.estimate(batch)
    assert logged["held_out/rate"] == pytest.approx(estimate.rate.mean().item(), rel=1e-4)
    assert logged["held_out/mse"] == pytest.approx(F.mse_loss(estimate.x_hat, batch).item(), rel=1e-4)


def test_pictures_that_are_not_there_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        run.train_experiment(watched(str(tmp_path / "nowhere")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
