"""The experiment of the paper, rehearsed: preset `paper` as it is, two steps a training, real pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taskpress.cli.app import app
from taskpress.training.presets import load_preset

RECOGNIZER = "fasterrcnn-x101-fpn:random?crop_scale=1.667,threshold=0.5"


def small_coco(source: Path, target: Path, split: str, count: int) -> None:
    """The `count` smallest pictures of a split, with their annotations, as a folder in COCO's layout."""
    listed = json.loads((source / "annotations" / f"instances_{split}.json").read_text())
    images = sorted(listed["images"], key=lambda image: image["width"] * image["height"])[:count]
    kept = {image["id"] for image in images}
    (target / split).mkdir(parents=True)
    (target / "annotations").mkdir(exist_ok=True)
    for image in images:
        shutil.copy(source / split / image["file_name"], target / split)
    listed["images"] = images
    listed["annotations"] = [one for one in listed["annotations"] if one["image_id"] in kept]
    (target / "annotations" / f"instances_{split}.json").write_text(json.dumps(listed))


def run(*words: object) -> None:
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    assert outcome.exit_code == 0, outcome.output


@pytest.mark.slow
def test_train_evaluate_compare(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_coco(shared_data / "coco", tmp_path / "coco", "train2017", 3)
    small_coco(shared_data / "coco", tmp_path / "coco", "val2017", 1)
    monkeypatch.setenv("TASKPRESS_DATA", str(tmp_path))
    monkeypatch.setenv("TASKPRESS_MODELS", str(tmp_path))
    monkeypatch.setenv("TASKPRESS_CACHE", str(tmp_path / "cache"))
    here = [f"recognizer={RECOGNIZER}", "data.batch=1", "data.workers=0", "trainer.accelerator=cpu"]
    run("train", "paper", *here, "--limit-steps", 2, "-o", tmp_path / "run")
    runs = load_preset("paper").runs()
    codecs = [tmp_path / "run" / "codecs" / f"{config.name}.safetensors" for config in runs]
    assert all(codec.is_file() for codec in codecs)
    run(
        *("evaluate", *codecs[1:], "--images", tmp_path / "coco" / "val2017"),
        *("--annotations", tmp_path / "coco" / "annotations" / "instances_val2017.json"),
        *("--recognizer", RECOGNIZER, "-o", tmp_path / "results"),
    )
    run("compare", tmp_path / "results", "--anchor", "task", "-o", tmp_path / "comparison")
    comparison = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert {row["curve"] for row in comparison["rows"]} == {config.arm for config in runs[1:]} - {"task"}
    assert (tmp_path / "comparison" / "rd.png").stat().st_size > 0
    costs = {}
    for config in runs[1:]:
        result = json.loads((tmp_path / "results" / f"{config.name}.json").read_text())
        costs[config.arm] = result["encoder"]["parameters"]
    assert costs["task"] == costs["task+aux"] == costs["mse"] < min(costs["roi"], costs["semantic"])
