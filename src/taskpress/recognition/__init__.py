"""Frozen recognizers: what codecs are trained and judged by."""

from typing import TYPE_CHECKING

from taskpress.exports import exporting

if TYPE_CHECKING:
    from taskpress.recognition.named import load_recognizer
    from taskpress.recognition.protocol import Recognizer, SoftRecognizer

__all__ = [
    "Recognizer",
    "SoftRecognizer",
    "load_recognizer",
]

__getattr__ = exporting(
    __name__,
    Recognizer="protocol",
    SoftRecognizer="protocol",
    load_recognizer="named",
)
