"""Recognizers by the names used on the command line and in presets."""

from __future__ import annotations

import difflib
from pathlib import Path

from taskpress.errors import RecognizerError
from taskpress.own_code import is_own
from taskpress.recognition.protocol import Recognizer

KINDS = (
    "onnx:FILE",
    "fasterrcnn-x101-fpn:WEIGHTS",
    "fasterrcnn-r50-fpn[:WEIGHTS]",
    "retinanet-r50-fpn[:WEIGHTS]",
    "maskrcnn-r50-fpn[:WEIGHTS]",
    "instance-maskrcnn-r50-fpn[:WEIGHTS]",
    "lraspp-mobilenet-v3[:WEIGHTS]",
    "deeplabv3-r50[:WEIGHTS]",
    "classify-NAME[:WEIGHTS]",
    "timm-NAME[:WEIGHTS]",
    "python:FILE.py:CLASS",
    "scenes[:FILE]",
)
DETECTRON2 = "fasterrcnn-x101-fpn"
FAMILIES = ("fasterrcnn-", "retinanet-", "maskrcnn-", "instance-", "torchvision-")


def load_recognizer(spec: str) -> Recognizer:
    """The frozen recognizer that `spec` names.

    onnx:FILE[?threshold=0.5]              a detector of YOLOX's output layout
    fasterrcnn-x101-fpn:WEIGHTS            Detectron2's Faster R-CNN X101-FPN: its checkpoint
                                           (model_final_68b088.pkl), a .pth or .safetensors of that layout, or
                                           "random" for a rehearsal
    fasterrcnn-BACKBONE-fpn[-v2][:WEIGHTS] torchvision's Faster R-CNN; BACKBONE: r50, mobilenet-v3-large,
                                           mobilenet-v3-large-320; from a file alone r18, r34, r101, r152, x50
    torchvision-fasterrcnn-x101-fpn:FILE   torchvision's Faster R-CNN of the X101 backbone
    retinanet-r50-fpn[-v2][:WEIGHTS]       torchvision's RetinaNet
    maskrcnn-r50-fpn[-v2][:WEIGHTS]        torchvision's Mask R-CNN, its boxes alone
    instance-maskrcnn-r50-fpn[-v2][:WEIGHTS]
                                           the same with its masks: instance segmentation
    lraspp-mobilenet-v3[:WEIGHTS], deeplabv3-r50, deeplabv3-r101, deeplabv3-mobilenet-v3
                                           torchvision's semantic segmentation
    classify-NAME[:WEIGHTS]                any classifier of torchvision's, e.g. classify-resnet50
    timm-NAME[:WEIGHTS]                    any classifier of timm's, where timm is installed
    python:FILE.py:CLASS[:ARGUMENT]        your own class, e.g. docs/examples/ssdlite.py; the file is run
    scenes[:FILE]                          the shipped detector of the embedded default, or another training
                                           of it, by `taskpress train-recognizer`

    WEIGHTS of torchvision's: a file (.pth, .safetensors), or their name there, e.g. COCO_V1, which is
    downloaded once; without, torchvision's default. After the weights of these detectors may stand
    settings, e.g. "fasterrcnn-x101-fpn:x101.pkl?crop_scale=1.67,threshold=0.3"; see `DetectorSettings`.
    Segmentation and classification take "random" too, for a rehearsal.

    Raises RecognizerError for an unknown kind (naming the nearest) or a file that does not fit.
    """
    kind, _, argument = spec.partition(":")
    if kind == "onnx" and argument:
        from taskpress.recognition.detector_settings import DetectorSettings, parse_settings
        from taskpress.recognition.onnx_detector import PSEUDO_LABEL_THRESHOLD, OnnxDetector

        name, settings = parse_settings(spec)
        if settings != DetectorSettings(threshold=settings.threshold):
            raise RecognizerError(f"{spec}: of the settings onnx: has `threshold` alone")
        threshold = PSEUDO_LABEL_THRESHOLD if settings.threshold is None else settings.threshold
        return OnnxDetector(name.removeprefix("onnx:"), pseudo_label_threshold=threshold)
    if kind.startswith(FAMILIES):
        from taskpress.recognition.detector_settings import parse_settings

        name, settings = parse_settings(spec)
        kind, _, argument = name.partition(":")
        if kind == DETECTRON2:
            from taskpress.recognition.detectron2_detector import load_detectron2

            return load_detectron2(kind, argument or None, settings)
        from taskpress.recognition.torchvision_models import from_torchvision

        return from_torchvision(kind, argument or None, settings)
    if kind.startswith(("lraspp-", "deeplabv3-")):
        from taskpress.recognition.segmentation import load_segmenter

        return load_segmenter(kind, argument or None)
    if kind.startswith("classify-"):
        from taskpress.recognition.classification import load_classifier

        return load_classifier(kind, argument or None)
    if kind.startswith("timm-"):
        from taskpress.recognition.classification import load_timm

        return load_timm(kind, argument or None)
    if is_own(spec):
        from taskpress.recognition.own import load_own

        return load_own(spec)
    if kind == "scenes" and (argument or spec == kind):
        from taskpress.recognition.faster_rcnn import load_scenes_recognizer

        if argument and not Path(argument).is_file():
            raise RecognizerError(
                f"'{spec}': no such file; did you mean scenes, or a file of `taskpress train-recognizer`?"
            )
        return load_scenes_recognizer(Path(argument) if argument else None)
    raise RecognizerError(f"no recognizer is named '{spec}'; {_suggestion(kind)}")


def _suggestion(kind: str) -> str:
    by_kind = {name.partition(":")[0].partition("[")[0]: name for name in KINDS}
    nearest = difflib.get_close_matches(kind.lower(), by_kind, n=1, cutoff=0.4)
    known = ", ".join(KINDS)
    return f"did you mean {by_kind[nearest[0]]}? (known: {known})" if nearest else f"known: {known}"
