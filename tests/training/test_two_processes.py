"""Several processes train one codec, as on several GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from taskpress.coding.codec import Codec


def train(*words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "taskpress.cli.app", "train", "quick", *words],
        check=True,
        capture_output=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_two_processes_share_every_step_and_end_alike(tmp_path: Path) -> None:
    settings = ["optimizer.steps=4", "start.optimizer.steps=3", "codec.channels=8", "data.patch=64"]
    settings += ["trainer.accelerator=cpu", "trainer.log_every=1"]
    settings += ["arms={task+aux: {alpha: 0.5, auxiliary_first: {steps: 3, batch: 2}}}"]
    found = {}
    for name, devices in (("one", 1), ("two", 2), ("again", 2)):
        words = [*settings, f"trainer.devices={devices}", "-o", str(tmp_path / name)]
        train(*words)
        codec = Codec.load(tmp_path / name / "codecs" / "quick-aux-q1.safetensors")
        assert codec.card["steps"] == 4
        found[name] = codec.fingerprint
        (learned,) = (tmp_path / name / "branches").iterdir()
        assert learned.stat().st_size > 0
    assert found["two"] == found["again"] != found["one"]


@pytest.mark.slow
def test_two_processes_begin_anew_what_was_rehearsed(tmp_path: Path) -> None:
    settings = ["optimizer.steps=2", "start.optimizer.steps=2", "codec.channels=8", "data.patch=64"]
    settings += ["trainer.accelerator=cpu", "trainer.devices=2"]
    for rehearsal in (["--limit-steps", "1"], []):
        words = [*settings, *rehearsal, "-o", str(tmp_path)]
        train(*words)
    codecs = list((tmp_path / "codecs").iterdir())
    assert len(codecs) > 2 and all(Codec.load(path).card["steps"] == 2 for path in codecs)
