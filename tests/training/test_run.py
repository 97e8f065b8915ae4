"""Whole trainings, of a few steps: resumable, fair between arms, no trace of the branch."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open

from taskpress.coding.codec import Codec
from taskpress.coding.errors import ConfigError
from taskpress.recognition.named import load_recognizer
from taskpress.training import run
from taskpress.training.config import Preset
from taskpress.training.module import CodecTraining

STEPS = 6


def preset(**changes: Any) -> Preset:
    return Preset.model_validate(
        {
            "name": "tiny",
            "recognizer": "scenes",
            "codec": {"channels": 8},
            "data": {"sources": ["scenes:8"], "patch": 64},
            "objective": {"task": "both"},
            "optimizer": {"steps": STEPS, "learning_rate": 1e-3, "warmup": 2, "schedule": "cosine"},
            "rates": [0.5],
            "arms": {"task": {"alpha": 0.0}, "task+aux": {"alpha": 0.1}},
            "trainer": {"accelerator": "cpu", "checkpoint_every": 2, "log_every": 1},
            **changes,
        }
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run.train_experiment(preset(), folder)
    return folder


class PowerCutError(Exception):
    """Stands for the power cut."""


@pytest.mark.parametrize("kill_at", [3, 4])
def test_a_killed_run_ends_like_one_never_killed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    step = CodecTraining.training_step

    def dies(self: CodecTraining, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_step == kill_at:
            raise PowerCutError
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        patch.setattr(CodecTraining, "training_step", dies)
        run.train_experiment(preset(), tmp_path, only=["aux-q1"])
    assert not (tmp_path / "codecs").exists()
    (codec,) = run.train_experiment(preset(), tmp_path, only=["aux-q1"])
    whole, resumed = weights(trained / "codecs" / "tiny-aux-q1.safetensors"), weights(codec)
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
    rows = (tmp_path / "aux-q1" / "logs" / "metrics.csv").read_text().splitlines()
    assert rows[-1].count(",") == rows[0].count(",")


def test_the_exported_codec_has_no_trace_of_the_branch(trained: Path) -> None:
    paths = {arm: trained / "codecs" / f"tiny-{arm}-q1.safetensors" for arm in ("task", "aux")}
    without, aux = (weights(path) for path in paths.values())
    assert {k: (v.shape, v.dtype) for k, v in without.items()} == {
        k: (v.shape, v.dtype) for k, v in aux.items()
    }
    assert any(not torch.equal(without[k], aux[k]) for k in without)
    cards = [json.dumps(Codec.load(path).card) for path in paths.values()]
    sizes = [path.stat().st_size - len(card) for path, card in zip(paths.values(), cards, strict=True)]
    assert abs(sizes[0] - sizes[1]) < 64
    pair = [Codec.load(path) for path in paths.values()]
    assert [name for name, _ in pair[0].named_modules()] == [name for name, _ in pair[1].named_modules()]
    assert pair[0].encoder_cost() == pair[1].encoder_cost()


def test_arms_see_the_same_batches_and_start_from_the_same_codec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[str]] = {}
    step = CodecTraining.training_step

    def watches(self: CodecTraining, batch: Any, batch_idx: int) -> torch.Tensor:
        digest = hashlib.sha256(batch.images.numpy().tobytes())
        if self.global_step == 0:
            digest.update(self.codec.fingerprint.encode())
        seen.setdefault(self.config.short_name, []).append(digest.hexdigest())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(CodecTraining, "training_step", watches)
    start = {"rate": 0.01, "optimizer": {"steps": 2, "learning_rate": 1e-3}}
    run.train_experiment(preset(start=start), tmp_path, limit_steps=3)
    assert seen["task-q1"] == seen["aux-q1"]
    assert len(seen["task-q1"]) == 3 and len(set(seen["task-q1"])) == 3


def test_the_recognizer_is_unchanged_to_the_bit_and_learns_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = load_recognizer("scenes")
    assert isinstance(recognizer, torch.nn.Module)
    before = {k: v.clone() for k, v in recognizer.state_dict().items()}
    monkeypatch.setattr(run, "load_recognizer", lambda spec: recognizer)
    run.train_experiment(preset(), tmp_path, only=["aux-q1"], limit_steps=3)
    after = recognizer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert all(p.grad is None and not p.requires_grad for p in recognizer.parameters())
    assert not any(m.training for m in recognizer.modules())
    checkpoint = torch.load(tmp_path / "aux-q1" / "checkpoints" / "last.ckpt", weights_only=True)
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"codec", "branch"}


def test_no_auxiliary_loss_builds_no_branch() -> None:
    config = preset().runs()[0]
    module = CodecTraining(config, STEPS, Codec.create("cheng2020-attention", 8), load_recognizer("scenes"))
    assert module.branch is None
    assert {name.split(".")[0] for name, _ in module.named_parameters()} == {"codec"}


def test_a_folder_keeps_its_settings(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    again = run.train_experiment(preset(trainer={"accelerator": "cpu", "log_every": 5}), folder)
    assert [path.name for path in again] == ["tiny-task-q1.safetensors", "tiny-aux-q1.safetensors"]
    with pytest.raises(ConfigError, match="another `seed`"):
        run.train_experiment(preset(seed=2), folder)
    assert yaml.safe_load((folder / "task-q1" / "config.yaml").read_text())["seed"] == 1
    with pytest.raises(ConfigError, match=r"task-q1, aux-q1"):
        run.train_experiment(preset(), folder, only=["aux-q9"])


def test_arms_wait_for_their_start(tmp_path: Path) -> None:
    start = {"rate": 0.01, "optimizer": {"steps": 2}}
    with pytest.raises(ConfigError, match="--only start"):
        run.train_experiment(preset(start=start), tmp_path, only=["task"])


def test_epochs_are_passes_over_the_pictures() -> None:
    config = preset(optimizer={"epochs": 50}, data={"sources": ["scenes:8"], "patch": 64, "batch": 3}).runs()[
        0
    ]
    assert run.training_steps(config, 8) == 134
