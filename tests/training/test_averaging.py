"""Weights that are averaged along a training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch

from taskpress.coding.codec import Codec
from taskpress.training.averaging import WeightAverage
from taskpress.training.config import Preset
from taskpress.training.restore import restore
from taskpress.training.run import train_experiment


def preset(average: float | None, **changes: Any) -> Preset:
    return Preset.model_validate(
        {
            "name": "tiny",
            "codec": {"channels": 8},
            "data": {"sources": ["scenes:8"], "patch": 64},
            "objective": {"task": "none", "mse": 1.0},
            "optimizer": {"steps": 6, "learning_rate": 1e-3, "average": average},
            "lambdas": [0.05],
            "arms": {"mse": {}},
            "trainer": {"accelerator": "cpu", "checkpoint_every": 2, "log_every": 1},
            **changes,
        }
    )


def train(folder: Path, average: float | None, **options: Any) -> dict[str, torch.Tensor]:
    train_experiment(preset(average), folder, **options)
    model = Codec.load(folder / "codecs" / "tiny-mse-q1.safetensors").model
    return {name: weight.detach() for name, weight in model.named_parameters()}


def test_the_average_of_a_walk_is_its_closed_form() -> None:
    module = lightning.LightningModule()
    module.weight = torch.nn.Parameter(torch.tensor(4.0))
    average = WeightAverage(0.5)
    average.on_train_start(None, module)  # type: ignore[arg-type]
    expected, walk = 0.0, [1.0, -2.0, 8.0, 3.0, 5.0, 7.0, 6.0, 9.0, 0.0, 2.0]
    for n, value in enumerate(walk):
        torch.nn.init.constant_(module.weight, value)
        average.on_train_batch_end(SimpleNamespace(global_step=n + 1), module)  # type: ignore[arg-type]
        stays = 0.5 if n else 0.0
        expected = stays * expected + (1 - stays) * value
    average.give(module)
    assert module.weight.item() == pytest.approx(expected, rel=1e-6)


def test_the_window_is_what_the_decay_says_in_short_trainings_too() -> None:
    """Before it is full, the average is the plain mean of the steps that there were."""
    module = lightning.LightningModule()
    module.weight = torch.nn.Parameter(torch.tensor(100.0))
    found = {}
    for decay in (0.9, 0.99, 0.999):
        average = WeightAverage(decay)
        average.on_train_start(None, module)  # type: ignore[arg-type]
        for step in range(400):
            torch.nn.init.constant_(module.weight, float(step))
            average.on_train_batch_end(SimpleNamespace(global_step=step + 1), module)  # type: ignore[arg-type]
        found[decay] = 399 - average.weights[0].item()
    # Mean ages: decay / (1 - decay) where the window is long full, half of all steps where it is not.
    assert found == pytest.approx({0.9: 9.0, 0.99: 96.6, 0.999: 199.5}, abs=0.1)


def test_what_is_saved_is_the_average_and_the_training_is_the_same(tmp_path: Path) -> None:
    plain, last, mean = (train(tmp_path / str(average), average) for average in (None, 1e-9, 0.9))
    for name, weight in plain.items():
        torch.testing.assert_close(last[name], weight, rtol=0, atol=1e-6)
    assert any((mean[name] - weight).abs().max() > 1e-4 for name, weight in plain.items())
    checkpoints = [
        torch.load(tmp_path / name / "mse-q1" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("None", "0.9")
    ]
    assert all(torch.equal(checkpoints[1][name], weight) for name, weight in checkpoints[0].items())


def test_a_resumed_training_averages_on(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", 0.9)
    train(tmp_path / "halves", 0.9, limit_steps=3)
    resumed = train(tmp_path / "halves", 0.9)
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())


def test_batches_of_one_step_count_once(tmp_path: Path) -> None:
    optimizer = {"steps": 3, "learning_rate": 1e-3, "average": 0.9, "accumulate": 2}
    train_experiment(preset(0.9, optimizer=optimizer), tmp_path)
    content = torch.load(tmp_path / "mse-q1" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 3
    assert content["callbacks"][WeightAverage(0.9).state_key]["steps"] == 3


def test_a_restored_training_is_the_average_too(tmp_path: Path) -> None:
    arms = {"task+aux": {"alpha": 0.1}}
    train_experiment(preset(0.9, arms=arms, recognizer="scenes"), tmp_path)
    saved = Codec.load(tmp_path / "codecs" / "tiny-aux-q1.safetensors").model
    found = restore(tmp_path / "aux-q1").codec.model
    for ours, theirs in zip(found.parameters(), saved.parameters(), strict=True):
        assert torch.equal(ours, theirs)
