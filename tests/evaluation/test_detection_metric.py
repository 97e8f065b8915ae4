import math

import pytest
import torch

from taskpress.detections import Category, Detections
from taskpress.errors import DataError
from taskpress.evaluation.detection_metric import METRICS, coco_metrics, teacher_ground_truth

CATEGORIES = (Category(3, "cat"), Category(7, "dog"))


def detections(*objects: tuple[list[float], int, float]) -> Detections:
    if not objects:
        return Detections.empty()
    boxes, labels, scores = zip(*objects, strict=True)
    return Detections(torch.tensor(boxes), torch.tensor(labels), torch.tensor(scores))


def truth(*annotations: dict, ids: tuple[int, ...] = (1,)) -> dict:
    return {
        "images": [{"id": i, "height": 200, "width": 200} for i in ids],
        "annotations": [{"image_id": 1, "id": n, **a} for n, a in enumerate(annotations)],
        "categories": [{"id": c.id, "name": c.name} for c in CATEGORIES],
    }


CAT = {"category_id": 3, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0}
DOG = {"category_id": 7, "bbox": [100, 100, 50, 20], "area": 1000, "iscrowd": 0}
CAT_FOUND = ([10.0, 10.0, 50.0, 50.0], 0, 0.9)
DOG_FOUND = ([100.0, 100.0, 150.0, 120.0], 1, 0.4)


def test_perfect_predictions_score_100() -> None:
    metrics = coco_metrics(truth(CAT, DOG), [detections(CAT_FOUND, DOG_FOUND)], [1], CATEGORIES)
    assert metrics["ap"] == metrics["ap50"] == metrics["ap75"] == pytest.approx(100)
    assert metrics["ap_medium"] == pytest.approx(100)
    assert metrics["ap_small"] == pytest.approx(100)
    assert math.isnan(metrics["ap_large"])


def test_no_predictions_score_0() -> None:
    metrics = coco_metrics(truth(CAT, DOG), [detections()], [1], CATEGORIES)
    assert metrics["ap"] == metrics["ap50"] == 0


def test_nothing_annotated_is_nan() -> None:
    metrics = coco_metrics(truth(), [detections(CAT_FOUND)], [1], CATEGORIES)
    assert set(metrics) == set(METRICS)
    assert all(math.isnan(value) for value in metrics.values())


def test_one_of_two_classes_found_is_half() -> None:
    assert coco_metrics(truth(CAT, DOG), [detections(CAT_FOUND)], [1], CATEGORIES)["ap"] == pytest.approx(50)


def test_false_positive_ahead_halves_precision() -> None:
    wrong = ([150.0, 150.0, 190.0, 190.0], 0, 0.95)
    metrics = coco_metrics(truth(CAT), [detections(wrong, CAT_FOUND)], [1], CATEGORIES)
    assert metrics["ap"] == pytest.approx(50)


def test_one_of_two_objects_found_fills_51_of_101_recall_points() -> None:
    second = {**CAT, "bbox": [120, 120, 40, 40]}
    metrics = coco_metrics(truth(CAT, second), [detections(CAT_FOUND)], [1], CATEGORIES)
    assert metrics["ap"] == pytest.approx(100 * 51 / 101)


def test_box_of_iou_0_72_counts_at_five_of_ten_thresholds() -> None:
    # 36 of 50 columns: IoU 0.72 passes 0.50, 0.55, 0.60, 0.65, 0.70.
    annotated = {**CAT, "bbox": [0, 0, 50, 10], "area": 500}
    metrics = coco_metrics(truth(annotated), [detections(([0.0, 0.0, 36.0, 10.0], 0, 0.9))], [1], CATEGORIES)
    assert metrics["ap"] == pytest.approx(50)
    assert metrics["ap50"] == pytest.approx(100)
    assert metrics["ap75"] == 0


def test_crowd_swallows_detections_without_penalty() -> None:
    crowd = {**CAT, "bbox": [100, 100, 80, 80], "area": 6400, "iscrowd": 1}
    inside = ([110.0, 110.0, 130.0, 130.0], 0, 0.99)
    assert coco_metrics(truth(CAT, crowd), [detections(inside, CAT_FOUND)], [1], CATEGORIES)["ap"] == 100
    assert coco_metrics(truth(CAT), [detections(inside, CAT_FOUND)], [1], CATEGORIES)["ap"] == 50


def test_only_the_asked_images_count() -> None:
    annotated = truth(CAT, {**DOG, "image_id": 2}, ids=(1, 2))
    assert coco_metrics(annotated, [detections(CAT_FOUND)], [1], CATEGORIES)["ap"] == pytest.approx(100)


def test_teacher_labels_score_100_against_themselves() -> None:
    labels = [detections(CAT_FOUND), detections(), detections(DOG_FOUND)]
    annotated = teacher_ground_truth(labels, [4, 5, 6], CATEGORIES, [(200, 200)] * 3)
    assert coco_metrics(annotated, labels, [4, 5, 6], CATEGORIES)["ap"] == pytest.approx(100)
    low = [detections(CAT_FOUND, ([0.0, 0.0, 5.0, 5.0], 1, 0.1)), detections(), detections(DOG_FOUND)]
    assert coco_metrics(annotated, low, [4, 5, 6], CATEGORIES)["ap"] == pytest.approx(100)


def test_same_as_pycocotools_on_random_boxes() -> None:
    coco, cocoeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    generator = torch.Generator().manual_seed(3)
    ids = list(range(1, 9))
    annotations, predictions = [], []
    for image_id in ids:
        corner = torch.rand(12, 2, generator=generator) * 120
        extent = 5 + torch.rand(12, 2, generator=generator) * 70
        labels = torch.randint(0, 2, (12,), generator=generator)
        for box, label in zip(torch.cat([corner, extent], 1).tolist(), labels.tolist(), strict=True):
            crowd = int(len(annotations) % 11 == 0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": CATEGORIES[label].id,
                    "bbox": box,
                    "area": box[2] * box[3] * 0.8,
                    "iscrowd": crowd,
                }
            )
        noise = torch.randn(12, 4, generator=generator) * 4
        boxes = torch.cat([corner, corner + extent], 1) + noise
        predictions.append(Detections(boxes, labels, torch.rand(12, generator=generator)))
    annotated = {**truth(ids=tuple(ids)), "annotations": annotations, "info": {}}
    ours = coco_metrics(annotated, predictions, ids, CATEGORIES)

    from taskpress.evaluation.detection_metric import coco_results

    reference = coco.COCO()
    reference.dataset = annotated
    reference.createIndex()
    evaluation = cocoeval.COCOeval(
        reference, reference.loadRes(coco_results(predictions, ids, CATEGORIES)), "bbox"
    )
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    theirs = [100 * value if value >= 0 else math.nan for value in evaluation.stats[:6]]
    assert list(ours.values()) == pytest.approx(theirs, abs=1e-9, nan_ok=True)


def test_silent(capfd: pytest.CaptureFixture[str]) -> None:
    coco_metrics(truth(CAT), [detections(CAT_FOUND)], [1], CATEGORIES)
    assert capfd.readouterr() == ("", "")


def test_mismatches_are_named() -> None:
    with pytest.raises(DataError, match="image id 9"):
        coco_metrics(truth(CAT), [detections()], [9], CATEGORIES)
    with pytest.raises(DataError, match="2 predictions for 1 images"):
        coco_metrics(truth(CAT), [detections(), detections()], [1], CATEGORIES)
    with pytest.raises(DataError, match="no id in common"):
        coco_metrics(truth(CAT), [detections()], [1], (Category(50, "boat"),))
    with pytest.raises(DataError, match="category 3 is 'cat'"):
        coco_metrics(truth(CAT), [detections()], [1], (Category(3, "boat"),))
    # One category agrees; the other would be left out in silence.
    elsewhere = [Category(12, c.name) if c.name == "dog" else c for c in CATEGORIES]
    with pytest.raises(DataError, match=r"'dog' has id .* 12 to the recognizer"):
        coco_metrics(truth(CAT), [detections()], [1], elsewhere)
    unknown = [Category(12, "okapi") if c.name == "dog" else c for c in CATEGORIES]
    assert coco_metrics(truth(CAT), [detections(CAT_FOUND)], [1], unknown)["ap"] == pytest.approx(100)
