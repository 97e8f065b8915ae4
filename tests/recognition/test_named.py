from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from taskpress.coding.errors import RecognizerError
from taskpress.recognition.named import load_recognizer
from taskpress.recognition.protocol import Recognizer


def test_onnx_file_by_name(tiny_yolox) -> None:  # type: ignore[no-untyped-def]
    path: Path = tiny_yolox()
    recognizer = load_recognizer(f"onnx:{path}")
    assert isinstance(recognizer, Recognizer)
    assert recognizer.name == "onnx:tiny.onnx"


@pytest.mark.parametrize(
    ("spec", "suggestion"),
    [
        ("onxx:model.onnx", "onnx:FILE"),
        ("onnx", "onnx:FILE"),
        ("onnx:", "onnx:FILE"),
        ("scene", "scenes"),
        ("scenes:10", "scenes"),
        ("fasterrcnn-r50", "fasterrcnn-r50-fpn"),
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


def test_naming_imports_nothing_heavy() -> None:
    code = (
        "import sys, taskpress.recognition.named; "
        "print(*(m for m in ('torchvision', 'onnx', 'onnx2torch') if m in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
