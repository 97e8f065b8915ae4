"""Gradients from logs: several attempts, several seeds, trainings that have just begun."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from taskpress.cli.app import app
from taskpress.errors import ConfigError, DataError
from taskpress.evaluation.gradients import Gradients, gradients_figure, windows
from taskpress.training.config import Preset
from taskpress.training.logs import gradients_of, read_log

HEAD = "gradient/aux,gradient/cosine,gradient/task,loss,step"


def experiment(folder: Path, seed: int = 1, start: dict[str, Any] | None = None) -> Path:
    """A folder as `train` leaves it, with settings and without logs."""
    preset = {
        "name": "tiny", "seed": seed, "recognizer": "scenes", "codec": {"channels": 8},
        "data": {"sources": ["scenes:8"], "patch": 64}, "optimizer": {"steps": 40}, "lambdas": [0.5, 2.0],
        "start": {**(start or {"lmbda": 0.01}), "optimizer": {"steps": 5}},
        "arms": {"task+aux": {"alpha": 0.1}, "task": {"alpha": 0.0}},
    }  # fmt: skip
    for config in Preset.model_validate(preset).runs():
        (folder / config.short_name).mkdir(parents=True)
        text = yaml.safe_dump({**config.model_dump(), "initial": None})
        (folder / config.short_name / "config.yaml").write_text(text)
    return folder


def log(training: Path, begin: int, *rows: str, head: str = HEAD) -> None:
    attempt = training / "logs" / f"from-step-{begin:06d}"
    attempt.mkdir(parents=True)
    (attempt / "metrics.csv").write_text("\n".join([head, *rows]) + "\n")


def test_a_window_is_told_by_its_quartiles() -> None:
    rows = [{"step": step, "gradient/task": float(step + 1), "loss": 3.0} for step in range(9, 50, 10)]
    early, late = windows(rows, 30)
    assert (early.first, early.last, early.batches) == (1, 30, 3)
    assert early.quartiles == {"task": (15, 20, 25)}
    assert (late.first, late.last, late.quartiles["task"][1]) == (31, 50, 45)


def test_a_resumed_training_is_one_training(tmp_path: Path) -> None:
    log(tmp_path, 0, "1,0,2,9,9", "1,0,4,9,19", "1,0,99,9,29")
    log(tmp_path, 20, "1,0,6,9,29", "1,0,8,9,39")
    assert [(row["step"], row["gradient/task"]) for row in read_log(tmp_path)] == [
        (9, 2),
        (19, 4),
        (29, 6),
        (39, 8),
    ]
    log(tmp_path, 1_000_000, "1,0,10,9,1000009")
    log(tmp_path, 999_800, "1,0,10,9,999809", "1,0,10,9,1000009")
    assert [row["step"] for row in read_log(tmp_path)][-2:] == [999809, 1000009]
    (tmp_path / "logs" / "from-step-000020" / "metrics.csv").write_text(f"{HEAD}\n1,0,six,9,29\n")
    with pytest.raises(DataError, match=r"from-step-000020.*no log"):
        read_log(tmp_path)


def test_seeds_go_together_and_rates_and_arms_apart(tmp_path: Path) -> None:
    one, two = experiment(tmp_path / "one"), experiment(tmp_path / "two", seed=2)
    log(one / "start", 0, "1,0,1,9,4")
    log(one / "aux-q1", 0, "1,0.5,10,9,9", "3,0.5,30,9,19")
    log(two / "aux-q1", 0, "5,-0.5,50,9,9")
    log(one / "task-q2", 0, "7,9,9", head="gradient/task,loss,step")
    found = gradients_of([one, two / "aux-q1"], window=20)
    assert (found.experiment, found.dimensions) == ("tiny", 8 * 4 * 4)
    assert [(p.arm, p.lmbda, p.alpha, p.seeds) for p in found.pulls] == [
        ("task", 2.0, 0.0, [1]),
        ("task+aux", 0.5, 0.1, [1, 2]),
    ]
    (window,) = found.pulls[1].windows
    assert (window.batches, window.quartiles["aux"][1], window.quartiles["task"][1]) == (3, 3, 30)
    assert "aux" not in found.pulls[0].windows[0].quartiles
    # Without a wish, four logged batches of a training make a window.
    assert gradients_of([one]).window == 40


def test_the_command_writes_figure_and_numbers(tmp_path: Path) -> None:
    run = experiment(tmp_path / "run")
    rows = [f"{step / 10},0.1,{step},9,{step}" for step in range(9, 100, 10)]
    log(run / "aux-q1", 0, *rows)
    output = tmp_path / "figures" / "gradients.png"
    outcome = CliRunner().invoke(app, ["gradients", str(run), "--window", "50", "-o", str(output)])
    assert outcome.exception is None
    assert "0.1" in outcome.stdout and "+0.100" in outcome.stdout
    written = Gradients.read(output.with_suffix(".json"))
    assert [window.quartiles["task"][1] for window in written.pulls[0].windows] == [29, 79]
    picture = np.array(Image.open(output).convert("RGB"))
    assert np.all(picture == (0xD5, 0x5E, 0x00), -1).sum() > 100
    assert np.array_equal(np.array(Image.open(io.BytesIO(gradients_figure(written))).convert("RGB")), picture)
    broken = output.with_suffix(".json")
    broken.write_text(json.dumps({"schema": 1}))
    with pytest.raises(DataError, match="experiment"):
        Gradients.read(broken)


def test_what_has_no_gradients_says_so(tmp_path: Path) -> None:
    run = experiment(tmp_path / "run")
    with pytest.raises(DataError, match="nothing logged yet"):
        gradients_of([run])
    with pytest.raises(DataError, match=r"logs: no training"):
        gradients_of([tmp_path / "logs"])
    outcome = CliRunner().invoke(app, ["gradients", str(run), "-o", str(tmp_path / "g.svg")])
    assert isinstance(outcome.exception, ConfigError)
