"""`evaluate` and `anchor` with recognizers of tasks other than detection, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from taskpress.cli.app import app
from taskpress.cli.measuring import open_dataset
from taskpress.datasets.scenes import Scenes
from taskpress.detections import Category
from taskpress.errors import ConfigError, DataError
from taskpress.evaluation.scoring import open_truth
from taskpress.recognition.classification import Classifier, View
from taskpress.recognition.named import load_recognizer
from taskpress.recognition.protocol import Recognizer
from taskpress.recognition.segmentation import SemanticSegmenter

NAMES = ("background", "red", "green")
UNIT = ([0.0] * 3, [1.0] * 3)


class Colours(nn.Module):
    """Says red and green where they are."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.contrast = nn.Conv2d(3, 3, 1)
        self.contrast.weight.data = torch.tensor([[0.0, 0, 0], [1, -1, -1], [-1, 1, -1]])[..., None, None]
        self.contrast.bias.data = torch.tensor([0.2, 0, 0])
        self.pooled = pooled

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        logits = self.contrast(images)
        return logits[..., :4].mean((2, 3)) if self.pooled else {"out": logits}


def recognizer(spec: str) -> Recognizer:
    categories = [Category(k, name) for k, name in enumerate(NAMES)]
    if spec == "segments":
        return SemanticSegmenter(Colours(False), spec, categories, *UNIT)
    return Classifier(Colours(True), spec, categories, *UNIT, View(16, 16))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures, half red, half grey and half green, half grey, with maps; the second is annotated red."""
    monkeypatch.setattr("taskpress.recognition.named.load_recognizer", recognizer)
    for folder in ("pictures", "maps"):
        (tmp_path / folder).mkdir()
    for index, name in enumerate(("a", "b")):
        image = np.full((32, 32, 3), 90, np.uint8)
        image[:, :16] = 0
        image[:, :16, index] = 255
        Image.fromarray(image).save(tmp_path / "pictures" / f"{name}.png")
        ids = np.full((32, 32), 9, np.uint8)
        ids[:, :16] = 7
        Image.fromarray(ids).save(tmp_path / "maps" / f"{name}.png")
    (tmp_path / "ids.json").write_text(json.dumps([{"id": 7, "name": "Red"}, {"id": 9, "name": "wall"}]))
    (tmp_path / "labels.csv").write_text("a.png,n1\nb.png,n1\n")
    (tmp_path / "names.json").write_text('{"n1": "red"}')
    return tmp_path


def call(*words: object) -> Result:
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return outcome


def webp(world: Path, spec: str, *words: object) -> Result:
    return call(
        "anchor", "webp", "--quality", "95,100", "--images", world / "pictures", "--recognizer", spec,
        "-o", world / "results", *words,
    )  # fmt: skip


def test_semantic_maps_are_scored_and_compared(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    outcome = webp(world, "segments", "--annotations", world / "maps", "--categories", world / "ids.json")
    assert "teacher mIoU" in outcome.stdout
    written = json.loads((world / "results" / "webp-q100.json").read_text())
    assert (written["task"], written["ap"]) == ("segmentation", None)
    # Background is right; red is right in one picture of two, and green is annotated nowhere.
    assert written["scores"]["miou"] == pytest.approx(75, abs=2)
    assert written["uncompressed_scores"] == {"miou": 75, "teacher_miou": 100}
    compared = call("compare", world / "results", "-o", world / "out")
    assert "mIoU" in compared.stdout and (world / "out" / "rd.png").exists()


def test_classes_are_scored(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    options = ["--annotations", world / "labels.csv", "--categories", world / "names.json"]
    assert "teacher top-1" in webp(world, "classes", *options).stdout
    written = json.loads((world / "results" / "webp-q95.json").read_text())
    assert written["scores"] == {"top1": 50, "teacher_top1": 100}
    for name, folder in (("a", "red"), ("b", "green")):
        (world / "pictures" / folder).mkdir()
        (world / "pictures" / f"{name}.png").rename(world / "pictures" / folder / f"{name}.png")
    webp(world, "classes", "--annotations", world / "pictures", "--force")
    assert json.loads((world / "results" / "webp-q95.json").read_text())["scores"]["top1"] == 100


def test_scenes_that_a_recognizer_does_not_know_are_mere_pictures(world: Path) -> None:
    call(
        "anchor", "webp", "--quality", "90", "--images", "scenes", "--limit", 1, "--recognizer", "segments",
        "-o", world / "results",
    )  # fmt: skip
    written = json.loads((world / "results" / "webp-q90.json").read_text())
    assert written["scores"]["miou"] is None and written["scores"]["teacher_miou"] > 0


def test_scenes_are_numbered_as_the_recognizer_numbers_shapes() -> None:
    detector = load_recognizer("scenes")
    ids = [3 * place + 40 for place in range(len(detector.categories))]
    detector.categories = tuple(Category(i, c.name) for i, c in zip(ids, detector.categories, strict=True))
    scenes = open_dataset("scenes", None, None, 2, detector)
    usual = Scenes("test", 2).coco_ground_truth()
    truth = scenes.coco_ground_truth()
    assert truth is not None and usual is not None
    assert [c["id"] for c in truth["categories"]] == ids
    assert [a["category_id"] for a in truth["annotations"]] == [
        3 * (a["category_id"] - 1) + 40 for a in usual["annotations"]
    ]
    assert open_truth(scenes, detector).judge().scores()["ap"] != 0  # ids and names agree
    # One shape's name is not knowing the shapes.
    detector.categories = (Category(7, "dog"), *detector.categories[1:])
    assert open_dataset("scenes", None, None, 2, detector).coco_ground_truth() is None


def test_a_detectors_own_classes_are_named(world: Path, tmp_path: Path) -> None:
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 16, "height": 16}],
        "annotations": [{"image_id": 1, "category_id": 5, "bbox": [1, 1, 8, 8]}],
        "categories": [{"id": 5, "name": "cat"}],
    }
    truth_file, ids = tmp_path / "truth.json", tmp_path / "ids.json"
    truth_file.write_text(json.dumps(truth))
    detector = load_recognizer("scenes")
    classes = [{"id": 5 + k, "name": name} for k, name in enumerate(("cat", *"bcdefghij"))]
    known = len(detector.categories)
    ids.write_text(json.dumps(classes[:known]))
    open_dataset(str(world / "pictures"), truth_file, str(ids), None, detector)
    assert [one.name for one in detector.categories][:2] == ["cat", "b"]
    ids.write_text(json.dumps(classes[: known - 1]))
    with pytest.raises(ConfigError, match=f"{known - 1} categories, scenes tells {known} apart"):
        open_dataset(str(world / "pictures"), truth_file, str(ids), None, detector)


def test_misuse_is_refused(world: Path) -> None:
    maps, labels, ids = world / "maps", world / "labels.csv", world / "ids.json"
    with pytest.raises(ConfigError, match="say what its ids mean with --categories: coco"):
        webp(world, "segments", "--annotations", maps)
    with pytest.raises(ConfigError, match="no folder; segmentation is annotated by label maps"):
        webp(world, "segments", "--annotations", labels, "--categories", ids)
    with pytest.raises(ConfigError, match="--categories"):
        webp(world, "segments", "--categories", ids)
    with pytest.raises(DataError, match=r"categories \{n1\}, .* no name in common"):
        webp(world, "classes", "--annotations", labels)
    with pytest.raises(ConfigError, match="folder for each class"):
        webp(world, "classes", "--annotations", maps)
    assert not (world / "results").exists()
