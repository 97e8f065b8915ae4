"""Recognizers by the names used on the command line and in presets."""

from __future__ import annotations

import difflib

from taskpress.coding.errors import RecognizerError
from taskpress.recognition.protocol import Recognizer

KINDS = (
    "onnx:FILE",
    "fasterrcnn-r50-fpn[:WEIGHTS]",
    "fasterrcnn-x101-fpn:WEIGHTS",
    "python:FILE.py:CLASS",
    "scenes",
)


def load_recognizer(spec: str) -> Recognizer:
    """The frozen recognizer that `spec` names.

    onnx:FILE                             a detector of YOLOX's output layout
    fasterrcnn-BACKBONE-fpn[:WEIGHTS]     torchvision's Faster R-CNN, weights from a file
    python:FILE.py:CLASS[:ARGUMENT]       your own class, e.g. docs/examples/ssdlite.py; the file is run
    scenes                                the shipped detector of the embedded default

    Raises RecognizerError for an unknown kind (naming the nearest) or a file that does not fit.
    """
    kind, _, argument = spec.partition(":")
    if kind == "onnx" and argument:
        from taskpress.recognition.onnx_detector import OnnxDetector

        return OnnxDetector(argument)
    if kind.startswith("fasterrcnn-") and kind.endswith("-fpn"):
        from taskpress.recognition.faster_rcnn import from_torchvision

        return from_torchvision(kind, argument or None)
    if kind == "python":
        from taskpress.recognition.own import load_own

        return load_own(argument)
    if spec == "scenes":
        from taskpress.recognition.faster_rcnn import load_scenes_recognizer

        return load_scenes_recognizer()
    raise RecognizerError(f"no recognizer is named '{spec}'; {_suggestion(kind)}")


def _suggestion(kind: str) -> str:
    by_kind = {name.partition(":")[0].partition("[")[0]: name for name in KINDS}
    nearest = difflib.get_close_matches(kind.lower(), by_kind, n=1, cutoff=0.4)
    known = ", ".join(KINDS)
    return f"did you mean {by_kind[nearest[0]]}? (known: {known})" if nearest else f"known: {known}"
