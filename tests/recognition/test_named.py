from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from taskpress.detections import Detections
from taskpress.errors import RecognizerError
from taskpress.recognition.detector_settings import DetectorSettings, parse_settings
from taskpress.recognition.frozen_detector import FrozenDetector
from taskpress.recognition.named import load_recognizer
from taskpress.recognition.protocol import Recognizer


def test_onnx_file_by_name(tiny_yolox) -> None:  # type: ignore[no-untyped-def]
    path: Path = tiny_yolox()
    recognizer = load_recognizer(f"onnx:{path}")
    assert isinstance(recognizer, Recognizer)
    assert recognizer.name == "onnx:tiny.onnx"
    same, other = (load_recognizer(f"onnx:{path}?threshold={threshold}") for threshold in (0.3, 0.6))
    assert same.fingerprint == recognizer.fingerprint != other.fingerprint
    (found,), (labels,) = other.predict(image := [torch.rand(3, 64, 64)]), other.pseudo_labels(image)
    assert len(labels) == (found.scores >= 0.6).sum()
    for spec, message in (("threshold=1.5", "is no score"), ("crop_scale=2", "`threshold` alone")):
        with pytest.raises(RecognizerError, match=message):
            load_recognizer(f"onnx:{path}?{spec}")


@pytest.mark.parametrize(
    ("spec", "suggestion"),
    [
        ("onxx:model.onnx", "onnx:FILE"),
        ("onnx", "onnx:FILE"),
        ("onnx:", "onnx:FILE"),
        ("scene", "scenes"),
        ("scenes:10", "scenes"),
        ("fasterrcnn-r50", "fasterrcnn-r50-fpn"),
        ("maskrcnn-r50", "maskrcnn-r50-fpn"),
        ("retinanet", "retinanet-r50-fpn"),
    ],
)
def test_unknown_name_gets_the_nearest(spec: str, suggestion: str) -> None:
    with pytest.raises(RecognizerError) as raised:
        load_recognizer(spec)
    message = str(raised.value)
    assert f"'{spec}'" in message
    assert f"did you mean {suggestion}" in message
    assert "\n" not in message


def test_name_like_nothing_known_lists_all() -> None:
    with pytest.raises(RecognizerError, match="known: onnx:FILE, "):
        load_recognizer("zzz")


def test_x101_is_detectron2s_and_needs_weights() -> None:
    with pytest.raises(RecognizerError, match=r"Detectron2's checkpoint .* fasterrcnn-x101-fpn:random"):
        load_recognizer("fasterrcnn-x101-fpn")
    with pytest.raises(RecognizerError, match=r"absent.pkl.* name a file that exists"):
        load_recognizer("fasterrcnn-x101-fpn:absent.pkl?crop_scale=1.67")


def test_settings_follow_the_weights() -> None:
    name, settings = parse_settings("fasterrcnn-x101-fpn:dir/x.pkl?crop_scale=1.67,shortest_edge=640")
    assert name == "fasterrcnn-x101-fpn:dir/x.pkl"
    assert settings == DetectorSettings(crop_scale=1.67, shortest_edge=640)
    assert parse_settings(f"a{settings.suffix}")[1] == settings
    assert parse_settings("retinanet-r50-fpn?threshold=0.3")[0] == "retinanet-r50-fpn"
    # Without a pair of name and value it is a path's own question mark.
    assert parse_settings("fasterrcnn-r50-fpn:what?/x.pth") == (
        "fasterrcnn-r50-fpn:what?/x.pth",
        DetectorSettings(),
    )
    assert DetectorSettings().suffix == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("crop=2", "did you mean crop_scale"),
        ("crop_scale=two", "give a number"),
        ("crop_scale=-1", "crop scale of -1"),
        ("crop_scale=nan", "crop scale of nan"),
        ("threshold=1.5", "give 0 to 1"),
        ("shortest_edge=0", "whole number of pixels"),
        ("longest_edge=13.5", "whole number of pixels"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: str, message: str) -> None:
    with pytest.raises(RecognizerError, match=message):
        name, parsed = parse_settings(f"fasterrcnn-r50-fpn?{settings}")
        Blind(name, [], parsed.threshold or 0.5, parsed.crop_scale)


class Blind(FrozenDetector):
    """Its settings are checked before there is a network."""

    def pads(self, side: int) -> bool:
        return False

    def _detect(self, images):
        return [Detections.empty() for _ in images]

    def _losses(self, images, targets, levels):
        return {}

    def _divergence(self, images, levels, reference):
        return {}

    def _levels(self, images):
        return []


def test_naming_imports_nothing_heavy() -> None:
    code = (
        "import sys, taskpress.recognition.named; "
        "print(*(m for m in ('torchvision', 'onnx', 'onnx2torch') if m in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
