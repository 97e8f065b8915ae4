"""Scores of the tasks without boxes, and of masks, against independent implementations."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from taskpress.datasets.dataset import Sample
from taskpress.datasets.run_lengths import run_lengths
from taskpress.detections import Category, Detections, Instances
from taskpress.errors import DataError
from taskpress.evaluation.class_scores import ClassTruth
from taskpress.evaluation.comparison import compare
from taskpress.evaluation.matches import PixelMatches
from taskpress.evaluation.object_scores import InstanceTruth, ObjectTruth
from taskpress.evaluation.rd_figure import rd_figure
from taskpress.evaluation.result import Result
from taskpress.evaluation.same_categories import match_categories
from taskpress.evaluation.semantic_scores import SemanticTruth, confusion, pixel_matches
from taskpress.targets import UNCOUNTED, ClassScores, SemanticMap, Target

VOC = (Category(0, "__background__"), Category(1, "aeroplane"), Category(2, "bicycle"), Category(3, "sofa"))


def maps(seed: int, classes: int = 4, uncounted: float = 0.2) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, classes, (12, 9)).astype(np.uint8)
    drawn[rng.random(drawn.shape) < uncounted] = UNCOUNTED
    return torch.from_numpy(drawn)


def sample(annotations: Target | None, number: int = 0, size: tuple[int, int] = (12, 9)) -> Sample:
    return Sample(number, f"{number}.png", np.zeros((*size, 3), np.uint8), annotations)


def test_confusion_counts_pixel_by_pixel() -> None:
    truth, found = maps(0), maps(1, uncounted=0.05)
    expected = np.zeros((4, 5), int)
    for t, f in zip(truth.flatten().tolist(), found.flatten().tolist(), strict=True):
        if t != UNCOUNTED:
            expected[t, 4 if f == UNCOUNTED else f] += 1
    assert np.array_equal(confusion(truth, found, 4).numpy(), expected)


@pytest.mark.parametrize("classes", [2, 4])
def test_mean_iou_is_that_of_torchmetrics(classes: int) -> None:
    jaccard = pytest.importorskip("torchmetrics.functional.classification").multiclass_jaccard_index
    truths = torch.stack([maps(seed, classes) for seed in range(3)])
    truths[truths == classes - 1] = UNCOUNTED if classes > 2 else classes - 1  # one class is never there
    founds = torch.stack([maps(10 + seed, classes, uncounted=0) for seed in range(3)])
    each = [pixel_matches(t, f, classes) for t, f in zip(truths, founds, strict=True)]
    by_class = jaccard(founds.long(), truths.long(), classes, average="none", ignore_index=UNCOUNTED)
    there = [k for k in range(classes) if (truths == k).any()]
    assert PixelMatches.of_all(each).accuracy == pytest.approx(100 * by_class[there].mean().item())


def test_a_mix_of_maps_is_those_maps_put_together() -> None:
    truths, founds = [maps(seed) for seed in range(5)], [maps(10 + seed, uncounted=0.1) for seed in range(5)]
    truths[4][:] = UNCOUNTED
    matches = PixelMatches.of_all([pixel_matches(t, f, 4) for t, f in zip(truths, founds, strict=True)])
    weights = np.array([[1, 0, 2, 3, 1], [0, 4, 0, 0, 0], [0, 0, 0, 0, 7]])
    mixed = matches.accuracies(weights)
    for row, accuracy in zip(weights[:2], mixed, strict=False):
        taken = [index for index, count in enumerate(row) for _ in range(count)]
        together = pixel_matches(*(torch.cat([one[i] for i in taken]) for one in (truths, founds)), 4)
        assert accuracy == pytest.approx(together.accuracy)
    assert np.isnan(mixed[2]), "nothing counts"


def test_maps_are_scored_against_both_truths_in_the_recognizers_classes() -> None:
    annotated = (Category(7, "couch"), Category(9, "airplane"), Category(11, "giraffe"))
    truth = SemanticTruth(annotated, VOC)
    labels = SemanticMap(torch.tensor([[3, 3], [1, 0]], dtype=torch.uint8))
    found = SemanticMap(torch.tensor([[3, 1], [1, 0]], dtype=torch.uint8))
    # couch, couch / unknown, giraffe (background to the recognizer)
    own = SemanticMap(torch.tensor([[0, 0], [255, 2]], dtype=torch.uint8))
    judge = truth.judge()
    for number in range(2):
        truth.learn(sample(own, number), labels)
        judge.add(sample(own, number), found)
    scores = judge.scores()
    assert scores["miou"] == pytest.approx(100 * (1 / 2 + 1) / 2)
    assert scores["teacher_miou"] == pytest.approx(100 * (1 / 2 + 1 / 2 + 1) / 3)
    unlabelled = SemanticTruth((), VOC).judge()
    assert np.isnan(unlabelled.scores()["miou"])
    with pytest.raises(DataError, match=r"0\.png"):
        judge.truth.maps += [labels.labels]
        judge.add(sample(Detections.empty()), found)


def test_categories_meet_by_name() -> None:
    annotated = [Category(1, "Airplane"), Category(2, "couch"), Category(3, "sky-other-merged")]
    assert match_categories(annotated, VOC) == [1, 3, 0]
    assert match_categories(annotated, VOC[1:]) == [0, 2, None]
    dogs = (Category(0, "Cardigan"), Category(1, "cardigan"))
    assert match_categories(dogs[::-1], dogs) == [1, 0]
    with pytest.raises(DataError, match="no name in common"):
        match_categories([Category(3, "sky-other-merged")], VOC)


def test_top_1_counts_pictures() -> None:
    names = [Category(0, "cat"), Category(1, "dog"), Category(2, "gnu")]
    truth = ClassTruth([Category(5, "dog"), Category(6, "cat"), Category(7, "emu")], names)
    judge = truth.judge()
    # annotated, teacher, found
    for number, (own, taught, seen) in enumerate([(0, 1, 1), (1, 0, 1), (2, 2, 2), (0, 0, 0)]):
        picture = sample(ClassScores.of_class(own, 3), number)
        truth.learn(picture, ClassScores.of_class(taught, 3))
        judge.add(picture, ClassScores.of_class(seen, 3))
    assert judge.scores() == {"top1": pytest.approx(100 / 3), "teacher_top1": 75.0}
    matches = judge.matches()
    weights = np.array([[3, 1, 5, 0], [0, 0, 1, 0]])
    np.testing.assert_allclose(matches["teacher_top1"].accuracies(weights), [800 / 9, 100])
    np.testing.assert_allclose(matches["top1"].accuracies(weights), [75, np.nan])


def random_instances(rng: np.random.Generator, count: int) -> Instances:
    masks = np.zeros((count, 40, 50), bool)
    boxes = np.zeros((count, 4), np.float32)
    for mask, box in zip(masks, boxes, strict=True):
        y, x = rng.integers(0, 25), rng.integers(0, 35)
        h, w = rng.integers(5, 15, 2)
        mask[y : y + h, x : x + w] = np.tri(h, w, dtype=bool)
        box[:] = x, y, x + w, y + h
    labels = torch.from_numpy(rng.integers(0, 2, count))
    scores = torch.from_numpy(rng.random(count).astype(np.float32))
    return Instances(torch.from_numpy(boxes), labels, scores, torch.from_numpy(masks))


def test_mask_ap_is_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluating = pytest.importorskip("pycocotools.cocoeval")
    coder = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(5)
    categories = (Category(1, "a"), Category(4, "b"))
    wanted = [random_instances(rng, 6) for _ in range(4)]
    found = []
    for objects in wanted:
        moved = Instances(
            objects.boxes, objects.labels, torch.rand(6), objects.masks.roll(int(rng.integers(0, 4)), 2)
        )
        found.append(moved.where(torch.from_numpy(rng.random(6) < 0.8)))

    truth = InstanceTruth(None, categories)
    for number, objects in enumerate(wanted):
        truth.learn(sample(None, number, (40, 50)), objects)
    judge = truth.judge()
    for number, objects in enumerate(found):
        judge.add(sample(None, number, (40, 50)), objects)
    scores = judge.scores()
    assert np.isnan(scores["mask_ap"]) and scores["teacher_mask_ap"] < scores["teacher_mask_ap50"]
    assert judge.matches().keys() == {"teacher_ap", "teacher_mask_ap"}
    assert all(found.accuracy == pytest.approx(scores[key]) for key, found in judge.matches().items())

    def entries(pictures: list[Instances]) -> list[dict]:
        return [
            {
                "image_id": number,
                "category_id": categories[label].id,
                "segmentation": coder.encode(np.asfortranarray(mask.astype(np.uint8))),
                "score": score,
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
            for number, objects in enumerate(pictures)
            for mask, label, score in zip(
                objects.masks.numpy(), objects.labels.tolist(), objects.scores.tolist(), strict=True
            )
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = {
            "images": [{"id": n, "height": 40, "width": 50} for n in range(4)],
            "annotations": [{"id": k + 1, **entry} for k, entry in enumerate(entries(wanted))],
            "categories": [{"id": c.id, "name": c.name} for c in categories],
        }
        reference.createIndex()
        evaluation = evaluating.COCOeval(reference, reference.loadRes(entries(found)), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert scores["teacher_mask_ap"] == pytest.approx(100 * evaluation.stats[0])
    assert scores["teacher_mask_ap50"] == pytest.approx(100 * evaluation.stats[1])


def test_masks_against_annotations_need_masks_there() -> None:
    objects = random_instances(np.random.default_rng(1), 2)
    encoded = run_lengths(objects.masks.numpy())
    annotations = [
        {"image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 0, "segmentation": encoded[0]},
        {"image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 0},
    ]
    known = {
        "images": [{"id": 0, "height": 40, "width": 50}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": annotations,
    }
    categories = (Category(1, "a"), Category(2, "b"))
    for kept, scored in ((annotations[:1], True), (annotations[1:], False)):
        truth = InstanceTruth({**known, "annotations": kept}, categories)
        truth.learn(sample(None, 0, (40, 50)), objects)
        judge = truth.judge()
        judge.add(sample(None, 0, (40, 50)), objects)
        assert np.isnan(judge.scores()["mask_ap"]) != scored
    # Before a single picture is looked at.
    with pytest.raises(DataError, match="segmentation"):
        InstanceTruth(known, categories)
    with pytest.raises(DataError, match="no id in common"):
        InstanceTruth(known, (Category(7, "a"),))


def test_what_the_teacher_labels_without_extent_is_no_object() -> None:
    """Else it could not be found by the very detection that it is, and nothing would reach 100."""
    objects = random_instances(np.random.default_rng(2), 3)
    objects.boxes[0] = torch.tensor([9.0, 2.0, 9.0, 5.0])
    objects.masks[1] = False
    truth = InstanceTruth(None, (Category(1, "a"), Category(2, "b")))
    truth.learn(sample(None, 0, (40, 50)), objects)
    judge = truth.judge()
    judge.add(sample(None, 0, (40, 50)), objects)
    scores = judge.scores()
    assert scores["teacher_ap"] == scores["teacher_mask_ap"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("box", "score"),
    [((1, 2, 3, 4), float("nan")), ((1, 2, float("inf"), 4), 0.5), ((5, 2, 3, 4), 0.5), ((1, 2, 3, 1), 0.5)],
)
def test_boxes_that_no_metric_takes_are_named_with_their_picture(box: tuple[float], score: float) -> None:
    truth = ObjectTruth(None, (Category(1, "a"),))
    found = Detections(torch.tensor([box]).float(), torch.tensor([0]), torch.tensor([score]))
    truth.learn(sample(None, 7), Detections.empty())
    with pytest.raises(DataError, match=r"7\.png"):
        truth.judge().add(sample(None, 7), found)


@pytest.mark.parametrize(
    "mask",
    [
        "abc",
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, float("nan")]],
        {"counts": [2000]},
        {"size": [40, 50], "counts": [2001]},
        {"size": [40, 50], "counts": [2001, -1]},
        {"size": [50, 40], "counts": [2000]},
        {"size": [2**30, 2**30], "counts": "x"},
        {"size": [40, 50], "counts": "zzzz~~~~ÿ"},
        {"size": [40, 50], "counts": "11"},
        {"size": [40, 50], "counts": ""},
        {"size": [40, 50], "counts": "P" * 100},
        [[1e18, 1, 4, 1, 4, 4, 1, 4]],
    ],
)
def test_masks_that_are_none_are_refused(mask: object) -> None:
    known = {
        "images": [{"id": 0, "height": 40, "width": 50}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9], "segmentation": mask}],
    }
    with pytest.raises(DataError, match="image id 0 is neither polygons"):
        InstanceTruth(known, (Category(1, "a"),))


FIELDS = {
    "task": "segmentation", "recognizer": "r", "dataset": "d", "images": 1, "resize": None, "encoder": None,
    "encode_s_per_mp": 0.0, "decode_s_per_mp": 0.0, "command": "", "versions": {},
}  # fmt: skip


def test_any_task_compares_by_its_own_metrics() -> None:
    def result(curve: str, bpp: float, miou: float, **changes: object) -> Result:
        return Result.of_scores(
            scores={"miou": None, "teacher_miou": miou},
            uncompressed_scores={"miou": None, "teacher_miou": 100.0},
            **{**FIELDS, "curve": curve, "codec": f"{curve}-{bpp}", "bpp": bpp, **changes},
        )

    results = [result(c, f * b, 100 * b) for c, f in (("task", 1.0), ("aux", 0.8)) for b in (0.1, 0.2, 0.4)]
    assert results[0].ap is None
    comparison = compare(results)
    assert comparison.bd_rates["aux"]["teacher_miou"].value == pytest.approx(-20)
    assert comparison.bd_rates["aux"]["miou"].value is None
    assert rd_figure(comparison)[:4] == b"\x89PNG"
    with pytest.raises(DataError, match=r"task of.*'segmentation'.*'detection'"):
        compare([*results, result("task", 0.3, 20.0, task="detection")])


def test_files_of_before_there_were_tasks_are_detection() -> None:
    folder = Path(__file__).parents[2] / "docs" / "results"
    paths = sorted(folder.glob("*/*.json"))
    assert paths
    for path in paths:
        result = Result.read(path)
        assert result.task == "detection"
        assert (result.scores["ap"], result.scores["teacher_ap50"]) == (result.ap, result.teacher_ap50)
        assert result.uncompressed_scores["teacher_ap"] == result.uncompressed_teacher_ap
