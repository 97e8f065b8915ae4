"""Evaluation and training refuse what does not fit: one line, exit code 1 or 2, nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def annotated(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of two pictures and annotations that match them."""
    folder = tmp_path / "annotated"
    folder.mkdir()
    images = []
    for number, name in enumerate(("a.png", "b.png"), start=1):
        Image.new("RGB", (64, 64), "gray").save(folder / name)
        images.append({"id": number, "file_name": name, "width": 64, "height": 64})
    truth = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "ball"}]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    return folder, tmp_path / "truth.json"


def refused(outcome: tuple[int, str, str], word: str, output: Path) -> None:
    code, _, err = outcome
    lines = [line for line in err.splitlines() if line.startswith("taskpress: ")]
    assert code in (1, 2) and len(lines) == 1 and word in lines[0], err
    assert not output.exists()


def test_annotations_of_other_pictures(
    taskpress: Callable, codec_file: Path, annotated: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, truth = annotated
    (folder / "b.png").unlink()
    options = ["--images", folder, "--annotations", truth, "--recognizer", "scenes", "-o", tmp_path / "out"]
    refused(taskpress("evaluate", codec_file, *options), "b.png", tmp_path / "out")
    refused(taskpress("anchor", "jpeg", "--quality", "30", *options), "b.png", tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x12\x04onnx"])
def test_a_recognizer_file_of_another_kind(
    taskpress: Callable, codec_file: Path, annotated: tuple[Path, Path], tmp_path: Path, content: bytes
) -> None:
    folder, _ = annotated
    model = tmp_path / "model.onnx"
    model.write_bytes(content)
    out = tmp_path / "out"
    for spec in (f"onnx:{model}", f"fasterrcnn-r50-fpn:{model}"):
        outcome = taskpress("evaluate", codec_file, "--images", folder, "--recognizer", spec, "-o", out)
        refused(outcome, "model.onnx", out)
    refused(
        taskpress("evaluate", codec_file, "--images", folder, "--recognizer", "scene", "-o", out),
        "scenes",
        out,
    )
    refused(taskpress("train", "quick", f"recognizer=onnx:{model}", "-o", out), "model.onnx", out)


def test_a_codec_file_that_is_none(taskpress: Callable, annotated: tuple[Path, Path], tmp_path: Path) -> None:
    folder, truth = annotated
    out = tmp_path / "out.png"
    refused(taskpress("allocation", truth, folder / "a.png", "-o", out), "truth.json", out)
    out = tmp_path / "out"
    refused(taskpress("decode", folder, "--codec", truth, "-o", out), "truth.json", out)
    options = ["--images", folder, "--recognizer", "scenes", "-o", out]
    refused(taskpress("evaluate", "scenes-recognizer", *options), "scenes-recognizer", out)


def test_a_bad_picture_names_itself_wherever_it_turns_up(
    taskpress: Callable, codec_file: Path, annotated: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, truth = annotated
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:40])
    out = tmp_path / "out"
    options = ["--images", folder, "--annotations", truth, "--recognizer", "scenes", "-o", out]
    refused(taskpress("evaluate", codec_file, *options), "b.png", out)
    out = tmp_path / "bits.png"
    refused(taskpress("allocation", codec_file, folder / "b.png", "-o", out), "b.png", out)
