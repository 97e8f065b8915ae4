"""What a step is made of, and whose it is: several batches, several devices, several processes."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from taskpress.coding.codec import Codec
from taskpress.errors import ConfigError
from taskpress.training import run
from taskpress.training.module import CodecTraining

from .conftest import PowerCutError, preset


def test_a_training_goes_on_on_another_device_but_not_on_more(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    settings = folder / "aux-q1" / "config.yaml"
    there = yaml.safe_load(settings.read_text())
    there["trainer"]["devices"] = "3,"
    settings.write_text(yaml.safe_dump(there))
    run.train_experiment(preset(), folder, only=["aux-q1"])
    there["trainer"]["devices"] = "3,4"
    settings.write_text(yaml.safe_dump(there))
    with pytest.raises(ConfigError, match=r"another `trainer\.devices`"):
        run.train_experiment(preset(), folder, only=["aux-q1"])


def test_accumulated_batches_make_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of so many times the batch: the same crops in each, and a resumed run ends alike."""
    step, crops = CodecTraining.training_step, {}

    def seen(self: CodecTraining, batch: Any, batch_idx: int) -> torch.Tensor:
        crops.setdefault((batch_size, self.global_step), []).append(batch.images)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(CodecTraining, "training_step", seen)
    files = {}
    for batch_size, accumulate, limits in ((2, 1, (None,)), (1, 2, (None,)), (1, 2, (2, None))):
        one = preset(
            data={"sources": ["scenes:8"], "patch": 64, "batch": batch_size},
            optimizer={"steps": 3, "learning_rate": 1e-3, "accumulate": accumulate},
        )
        folder = tmp_path / f"{batch_size}-{len(limits)}"
        for limit in limits:
            (path,) = run.train_experiment(one, folder, only=["aux-q1"], limit_steps=limit)
        files[folder.name] = Codec.load(path).fingerprint
    assert len(crops) == 6
    for number in range(3):
        assert torch.equal(torch.cat(crops[1, number][:2]), torch.cat(crops[2, number]))
    assert files["1-1"] == files["1-2"] != files["2-1"], "of one crop each, by noise of its own"


def test_checkpoints_fall_between_steps_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed twice, the second time between two batches of the step that it resumed at."""
    step, calls = CodecTraining.training_step, 0

    def dies(self: CodecTraining, batch: Any, batch_idx: int) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls in (6, 9):
            raise PowerCutError
        return step(self, batch, batch_idx)

    one = preset(
        optimizer={"steps": 3, "learning_rate": 1e-3, "accumulate": 3},
        trainer={"accelerator": "cpu", "checkpoint_every": 1, "log_every": 1},
    )
    with monkeypatch.context() as patch:
        patch.setattr(CodecTraining, "training_step", dies)
        for _ in range(2):
            with pytest.raises(PowerCutError):
                run.train_experiment(one, tmp_path / "killed", only=["task-q1"])
    paths = [run.train_experiment(one, tmp_path / name, only=["task-q1"])[0] for name in ("killed", "whole")]
    assert Codec.load(paths[0]).fingerprint == Codec.load(paths[1]).fingerprint


def test_other_processes_wait_for_the_first(tmp_path: Path) -> None:
    config = preset().runs()[0]
    wanted = {**config.model_dump(), "begins_as": "a", "contents": {}}
    with pytest.raises(ConfigError, match="share the folder"):
        run._await(tmp_path / "config.yaml", "text", patience=0.2)
    run._claim(tmp_path / "own", {**wanted, "begins_as": "b", "rehearsal": True})
    (tmp_path / "own" / "checkpoints").mkdir()
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(run._claim, tmp_path / "own", wanted, False) for _ in range(3)]
        time.sleep(0.3)
        assert not any(one.done() for one in others)
        run._claim(tmp_path / "own", wanted, True)
        assert [one.result() for one in others] == [None] * 3
    assert yaml.safe_load((tmp_path / "own" / "config.yaml").read_text())["begins_as"] == "a"
    assert not (tmp_path / "own" / "checkpoints").exists()
