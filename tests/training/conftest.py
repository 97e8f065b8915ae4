"""A training of a few steps, and what ends one early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

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
            "lambdas": [0.5],
            "arms": {"task": {"alpha": 0.0}, "task+aux": {"alpha": 0.1}},
            "trainer": {"accelerator": "cpu", "checkpoint_every": 2, "log_every": 1},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run.train_experiment(preset(), folder)
    return folder


class PowerCutError(Exception):
    """Stands for the power cut."""


@contextmanager
def power_cut(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[None]:
    """Inside, a training dies before its step `at`, counted from 0."""
    step = CodecTraining.training_step

    def dies(self: CodecTraining, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_step == at:
            raise PowerCutError
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        patch.setattr(CodecTraining, "training_step", dies)
        yield
