"""A training of a few steps, and what ends one early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskpress.training import run
from taskpress.training.config import Preset

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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run.train_experiment(preset(), folder)
    return folder


class PowerCutError(Exception):
    """Stands for the power cut."""
