"""COCO's average precision of boxes and of masks, for detections held as tensors.

The numbers are pycocotools' (Lin et al., "Microsoft COCO", ECCV 2014; 101 recall points, ten IoU
thresholds, at most 100 detections per image and class), computed by faster-coco-eval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from taskpress.datasets.run_lengths import RunLengths
from taskpress.detections import Category, Detections
from taskpress.errors import DataError
from taskpress.evaluation.same_categories import canonical

METRICS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def coco_metrics(
    ground_truth: Mapping[str, Any],
    predictions: Sequence[Detections],
    image_ids: Sequence[int],
    categories: Sequence[Category],
    masks: Sequence[Sequence[RunLengths]] | None = None,
) -> dict[str, float]:
    """COCO AP of detections, by the overlap of boxes or of masks.

    ground_truth: COCO's {"images", "annotations", "categories"}; annotations with iscrowd = 1 swallow
        detections without penalty; others count once each
    predictions: one `Detections` per image id, boxes in pixels of the annotated picture
    image_ids: the images that are scored; annotations of others are left out
    categories: what the predictions' labels index. Scored are the categories that the ground truth
        lists and the recognizer knows.
    masks: per image the masks of its predictions, at the size of the annotated picture; then masks overlap,
        not boxes, and every annotation needs a `segmentation`

    Returns ap, ap50, ap75, ap_small, ap_medium, ap_large in 0 ... 100; NaN where nothing is annotated
    (no object at all, or none of that size).

    Raises DataError where an id is not in the ground truth, ids and names of the categories disagree,
    or an annotation has no mask and masks are scored.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    if len(predictions) != len(image_ids):
        raise DataError(f"{len(predictions)} predictions for {len(image_ids)} images: give one each")
    category_ids = shared_category_ids(ground_truth, categories)
    wanted = set(image_ids)
    unknown = wanted - {image["id"] for image in ground_truth["images"]}
    if unknown:
        raise DataError(f"image id {min(unknown)} is not in the annotations: they belong to other pictures")
    annotations = [
        _complete(annotation, number, masks is not None)
        for number, annotation in enumerate(ground_truth["annotations"], start=1)
        if annotation["image_id"] in wanted
    ]
    if not any(not a["iscrowd"] and a["category_id"] in category_ids for a in annotations):
        return dict.fromkeys(METRICS, math.nan)

    truth = COCO(
        {
            "images": [image for image in ground_truth["images"] if image["id"] in wanted],
            "annotations": annotations,
            "categories": list(ground_truth["categories"]),
        }
    )
    results = coco_results(predictions, image_ids, categories)
    if masks is not None:
        for result, mask in zip(results, chain.from_iterable(masks), strict=True):
            # Beside a box, the area that decides small, medium or large would be the box's.
            del result["bbox"]
            result["segmentation"] = mask
    found = truth.loadRes(results)
    overlap = "bbox" if masks is None else "segm"
    evaluation = COCOeval_faster(truth, found, iouType=overlap, print_function=_silent)
    evaluation.params.imgIds = sorted(wanted)
    evaluation.params.catIds = category_ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    scores = [float(value) for value in evaluation.stats[:6]]
    return {name: 100 * s if s >= 0 else math.nan for name, s in zip(METRICS, scores, strict=True)}


def coco_results(
    predictions: Sequence[Detections], image_ids: Sequence[int], categories: Sequence[Category]
) -> list[dict[str, Any]]:
    """Detections as COCO's list of results: {"image_id", "category_id", "bbox": [x, y, w, h], "score"}."""
    return [
        {"image_id": image_id, "category_id": categories[label].id, "bbox": _xywh(box), "score": score}
        for image_id, found in zip(image_ids, predictions, strict=True)
        for box, label, score in zip(
            found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        )
    ]


def teacher_ground_truth(
    labels: Sequence[Detections],
    image_ids: Sequence[int],
    categories: Sequence[Category],
    sizes: Sequence[tuple[int, int]],
) -> dict[str, Any]:
    """COCO ground truth made of a teacher's pseudo-labels, to score what coding alone costs.

    labels: per picture, boxes in its pixels; sizes: (height, width) of each picture.
    """
    images = [
        {"id": image_id, "height": height, "width": width}
        for image_id, (height, width) in zip(image_ids, sizes, strict=True)
    ]
    annotations: list[dict[str, Any]] = []
    for result in coco_results(labels, image_ids, categories):
        box = result["bbox"]
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": result["image_id"],
                "category_id": result["category_id"],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
        )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": category.id, "name": category.name} for category in categories],
    }


def shared_category_ids(ground_truth: Mapping[str, Any], categories: Sequence[Category]) -> list[int]:
    """Ids of the categories that are both annotated and known to the recognizer, ascending.

    Raises DataError where there is none, where one id has two names, or one name two ids.
    """
    known = {category.id: category.name for category in categories}
    annotated = {category["id"]: str(category.get("name", "")) for category in ground_truth["categories"]}
    shared = sorted(known.keys() & annotated.keys())
    if not shared:
        raise DataError(
            f"annotations have categories {_some(annotated)}, the recognizer knows {_some(known)}: "
            "no id in common; choose a recognizer trained for these categories"
        )
    remedy = "renumber the annotations' categories, or name the recognizer's with --categories"
    ids = {canonical(name): category_id for category_id, name in known.items() if name}
    for category_id, name in annotated.items():
        ours, theirs = canonical(known.get(category_id, "")), canonical(name)
        if not theirs or ours == theirs:
            continue
        if ours:
            raise DataError(
                f"category {category_id} is {theirs!r} in the annotations, {ours!r} to the recognizer: "
                f"{remedy}"
            )
        if theirs in ids:
            raise DataError(
                f"category {theirs!r} has id {category_id} in the annotations, {ids[theirs]} to the "
                f"recognizer, so it would not be scored: {remedy}"
            )
    return shared


def _some(names: Mapping[int, str]) -> str:
    listed = [f"{category_id}={name}" for category_id, name in sorted(names.items())[:3]]
    return "{" + ", ".join(listed) + (", …" if len(names) > 3 else "") + "}"


def _complete(annotation: Mapping[str, Any], number: int, masked: bool) -> dict[str, Any]:
    # The matcher takes 0 for "no match", so ids must start at 1 whatever the file says.
    x, y, width, height = (float(value) for value in annotation["bbox"])
    complete = {
        "id": number,
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "bbox": [x, y, width, height],
        "area": float(annotation.get("area", width * height)),
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }
    if masked:
        complete["segmentation"] = annotation["segmentation"]
    return complete


def _xywh(box: Sequence[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]


def _silent(*_: object) -> None:
    return None
