"""A tiny world that can be worked out by hand: coloured squares, a detector of colours, a lossless coder."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from taskpress.cli.app import app
from taskpress.datasets.dataset import Sample
from taskpress.detections import Category, Detections
from taskpress.evaluation.result import Result
from taskpress.recognition.protocol import Task

CATEGORIES = (Category(1, "red"), Category(2, "green"), Category(5, "blue"))
SQUARES = (
    ((10, 20, 40, 50), 0),
    ((30, 8, 70, 40), 1),
    ((16, 12, 56, 52), 2),
    ((40, 10, 72, 42), 0),
)


class Squares:
    """Four grey pictures of 64 × 80 with one coloured square each; blue is annotated where it is not."""

    name = "squares"
    categories = CATEGORIES

    def __init__(self, labelled: bool = True) -> None:
        self.labelled = labelled

    def __len__(self) -> int:
        return len(SQUARES)

    def __getitem__(self, index: int) -> Sample:
        (x0, y0, x1, y1), label = SQUARES[index]
        image = np.full((64, 80, 3), 60, np.uint8)
        image[y0:y1, x0:x1] = 0
        image[y0:y1, x0:x1, label] = 255
        boxes = torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32)
        return Sample(
            100 + index, f"{index}.png", image, Detections(boxes, torch.tensor([label]), torch.ones(1))
        )

    def coco_ground_truth(self) -> dict[str, Any] | None:
        if not self.labelled:
            return None
        annotations = []
        for index, ((x0, y0, x1, y1), label) in enumerate(SQUARES):
            shift = 60 if label == 2 else 0
            annotations.append(
                {
                    "id": index + 1,
                    "image_id": 100 + index,
                    "category_id": CATEGORIES[label].id,
                    "bbox": [x0 - shift, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
        return {
            "images": [{"id": 100 + i, "height": 64, "width": 80} for i in range(len(SQUARES))],
            "annotations": annotations,
            "categories": [{"id": c.id, "name": c.name} for c in CATEGORIES],
        }


class ColourDetector:
    """Finds the largest extent of pixels in which one channel is bright and the others dark."""

    name = "colours"
    task = Task.DETECTION
    categories = CATEGORIES
    fingerprint = "c0105"

    def __init__(self) -> None:
        self.seen = 0

    def predict(self, images: Sequence[Tensor]) -> list[Detections]:
        self.seen += len(images)
        return [self._find(image) for image in images]

    def pseudo_labels(self, images: Sequence[Tensor]) -> list[Detections]:
        return [self._find(image) for image in images]

    def loss(self, images: Sequence[Tensor], targets: Sequence[Detections]) -> dict[str, Tensor]:
        raise AssertionError("evaluation trains nothing")

    def features(self, images: Sequence[Tensor]) -> list[Tensor]:
        raise AssertionError("evaluation trains nothing")

    @staticmethod
    def _find(image: Tensor) -> Detections:
        boxes, labels = [], []
        for label in range(3):
            others = image[[c for c in range(3) if c != label]].amax(0)
            rows, columns = torch.nonzero((image[label] > 0.6) & (others < 0.4), as_tuple=True)
            if len(rows):
                boxes.append(
                    [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]
                )
                labels.append(label)
        if not boxes:
            return Detections.empty()
        return Detections(
            torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels), torch.full((len(labels),), 0.9)
        )


class PngCoder:
    """Lossless, so accuracy is that of the uncompressed picture; `spoil` changes what comes back."""

    curve, name = "png", "png-q1"

    def __init__(self, spoil: Callable[[np.ndarray], np.ndarray] = lambda image: image) -> None:
        self.spoil = spoil
        self.files: list[bytes] = []

    def encode(self, image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        self.files.append(buffer.getvalue())
        return self.files[-1]

    def decode(self, data: bytes) -> np.ndarray:
        return self.spoil(np.array(Image.open(io.BytesIO(data))))


@pytest.fixture
def make_result() -> Callable[..., Result]:
    def make(curve: str, quality: int, bpp: float, ap: float | None, **fields: Any) -> Result:
        values: dict[str, Any] = {
            "curve": curve,
            "codec": f"{curve}-q{quality}",
            "recognizer": "onnx:toy.onnx",
            "recognizer_fingerprint": "abc",
            "dataset": "val2017",
            "images": 2,
            "resize": 416,
            "bpp": bpp,
            "ap": ap,
            "ap50": None if ap is None else 1.5 * ap,
            "teacher_ap": None if ap is None else 2.6 * ap,
            "teacher_ap50": None if ap is None else 3.1 * ap,
            "uncompressed_ap": 28.0,
            "uncompressed_ap50": 44.0,
            "uncompressed_teacher_ap": 100.0,
            "encode_s_per_mp": 1.5,
            "decode_s_per_mp": 2.5,
            "encoder": None,
            "command": "taskpress evaluate",
            "versions": {"taskpress": "0"},
            "pictures": [{"id": 1, "bits": 800, "pixels": 4000}, {"id": 2, "bits": 640, "pixels": 4000}],
        }
        return Result.model_validate({**values, **fields})

    return make


def call(*words: object) -> Outcome:
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return outcome


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pictures and annotations; every recognizer is the detector of colours."""
    monkeypatch.setattr("taskpress.recognition.named.load_recognizer", lambda spec: ColourDetector())
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    data = Squares()
    truth = data.coco_ground_truth()
    assert truth is not None
    for index, entry in enumerate(truth["images"]):
        Image.fromarray(data[index].image).save(pictures / f"{index}.png")
        entry["file_name"] = f"{index}.png"
    (tmp_path / "annotations.json").write_text(json.dumps(truth))
    return tmp_path


def data_options(world: Path) -> list[object]:
    return [
        "--images", world / "pictures", "--annotations", world / "annotations.json", "--recognizer", "toy",
    ]  # fmt: skip
