"""`taskpress train`: bad settings are one line, and a training leaves what it promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from taskpress.coding.codec import Codec
from taskpress.training.trainer import step_of


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["scenez"], "scenes"),
        (["quick", "objectiv.alpha=1"], "objective"),
        (["quick", "recognizer=onyx:x.onnx"], "onnx"),
        (["quick", "recognizer=onnx:missing.onnx"], "missing.onnx"),
        (["quick", "codec.init=missing.safetensors", "start=null"], "missing.safetensors"),
        (["quick", "data.sources=[nowhere]"], "nowhere"),
        (["quick", "objective.auxiliary=detecton"], "detection"),
        (["quick", "arms.task.lambdas=5"], "arms.task"),
        (["quick", "data.sources=[scenes:64"], "YAML"),
        (["quick", "trainer.accelerator=abacus"], "abacus"),
        (["scenes", "codec.channels=48"], "N = 32"),
        (["quick", "--only", "aux-q7"], "aux-q1"),
        (["quick", "trainer.precision=64-true"], "bf16-mixed"),
        (["quick", "recognizer=classify-resnet18:random", "objective.allocation=roi"], "boxes"),
    ],
)
def test_a_wrong_setting_is_one_line_and_leaves_nothing(
    taskpress: Callable, tmp_path: Path, arguments: list[str], word: str
) -> None:
    outcome = taskpress("train", *arguments, "-o", tmp_path / "run", "--limit-steps", 1)
    assert outcome.code in (1, 2)
    lines = [line for line in outcome.err.splitlines() if line.startswith("taskpress: ")]
    assert len(lines) == 1 and word in lines[0], outcome.err
    assert not (tmp_path / "run").exists()


def test_a_training_leaves_codecs_settings_and_logs(taskpress: Callable, tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcome = taskpress(
        "train",
        "quick",
        "codec.channels=8",
        "data.patch=64",
        "trainer.log_every=1",
        "-o",
        run,
        "--limit-steps",
        2,
    )
    assert outcome.code == 0, outcome.err
    names = ["quick-start", "quick-task-q1", "quick-aux-q1"]
    assert [Path(line).stem for line in outcome.out.split() if line.endswith(".safetensors")] == names
    for name, arm in zip(names, ("start", "task", "task+aux"), strict=True):
        card = Codec.load(run / "codecs" / f"{name}.safetensors").card
        assert (card["arm"], card["steps"]) == (arm, 2)
        folder = run / name.removeprefix("quick-")
        assert yaml.safe_load((folder / "config.yaml").read_text()).items() >= card["config"].items()
        header, *rows = (folder / "logs" / "from-step-000000" / "metrics.csv").read_text().splitlines()
        assert len(rows) == 2 and {"rate", "loss", "step"} <= set(header.split(","))
        assert ("aux" in header.split(",")) == (arm == "task+aux")
        assert list((folder / "logs").rglob("events.out.tfevents.*"))


def test_a_training_that_diverges_ends_there_and_says_so(taskpress: Callable, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = ["codec.channels=8", "data.patch=64", "start.optimizer.learning_rate=1e30"]
    settings += ["start.optimizer.warmup=0", "trainer.checkpoint_every=1"]
    outcome = taskpress("train", "quick", *settings, "--only", "start", "-o", run, "--limit-steps", 5)
    assert outcome.code == 1 and "quick-start: the loss is nan in step" in outcome.err
    assert not (run / "codecs").exists()


def test_a_finished_training_keeps_its_last_step(taskpress: Callable, tmp_path: Path) -> None:
    settings = ["codec.channels=8", "data.patch=64", "--only", "start", "-o", tmp_path, "--limit-steps", 2]
    assert taskpress("train", "quick", *settings).code == 0
    assert step_of(tmp_path / "start" / "checkpoints" / "last.ckpt") == 2
