"""The whole path on real pictures with a real detector."""

from pathlib import Path

import pytest

from taskpress.datasets.coco import CocoImages
from taskpress.evaluation.anchors import anchor
from taskpress.evaluation.rate_accuracy import evaluate, make_reference

COUNT = 16


@pytest.mark.slow
def test_more_bits_more_accuracy_up_to_that_of_the_uncompressed(
    shared_data: Path, shared_models: Path
) -> None:
    from taskpress.recognition.onnx_detector import OnnxDetector

    coco = shared_data / "coco"
    data = CocoImages(coco / "val2017", coco / "annotations" / "instances_val2017.json")
    detector = OnnxDetector(shared_models / "yolox_nano.onnx")
    reference = make_reference(data, detector, 416, COUNT)
    assert reference.scores["ap"] is not None
    assert reference.scores["ap"] > 20
    assert reference.scores["teacher_ap"] == pytest.approx(100, abs=0.5)
    results = [
        evaluate(anchor("webp", quality), data, detector, resize=416, limit=COUNT, reference=reference)
        for quality in (1, 40, 95)
    ]
    assert results[0].bpp < results[1].bpp < results[2].bpp
    scores = [result.teacher_ap for result in results]
    assert None not in scores
    assert scores == sorted(scores)  # type: ignore[type-var]
    assert all(max(picture.pixels for picture in result.pictures) <= 416**2 for result in results)
