from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.ops import box_iou

from taskpress.detections import Category, Detections
from taskpress.errors import RecognizerError
from taskpress.recognition.coco_categories import COCO_CATEGORIES
from taskpress.recognition.onnx_detector import OnnxDetector
from taskpress.recognition.protocol import Recognizer, SoftHeadedRecognizer, SoftRecognizer, Task

TinyYolox = Callable[..., Path]


def reference(path: Path, canvas: np.ndarray) -> np.ndarray:
    return ReferenceEvaluator(str(path)).run(None, {"images": canvas})[0]


def rows(maps: list[Tensor]) -> Tensor:
    return torch.cat([level.flatten(2) for level in maps], 2).transpose(1, 2)


@pytest.mark.parametrize(
    "options", [{}, {"structured": False}, {"baked_cells": True}, {"classes": 80, "size": 96}]
)
def test_network_computes_what_onnx_says(tiny_yolox: TinyYolox, options: dict[str, object]) -> None:
    path = tiny_yolox(**options)
    detector = OnnxDetector(path)
    canvases = (
        np.random.default_rng(1).uniform(0, 255, (2, 3, detector.size, detector.size)).astype(np.float32)
    )
    got = rows(detector.network(torch.from_numpy(canvases)))
    for index in range(2):
        expected = reference(path, canvases[index : index + 1])[0]
        np.testing.assert_allclose(got[index].numpy(), expected, atol=2e-5, rtol=1e-4)


def naive_detections(raw: np.ndarray, size: int) -> list[tuple[int, float, list[float]]]:
    """Decoding and suppression written out from the layout's description, cell by cell."""
    candidates = []
    index = 0
    for stride in (8, 16, 32):
        for row in range(size // stride):
            for column in range(size // stride):
                x, y, w, h, objectness, *classes = raw[index].astype(float)
                index += 1
                cx, cy = (column + x) * stride, (row + y) * stride
                w, h = np.exp(w) * stride, np.exp(h) * stride
                box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
                candidates += [
                    (k, objectness * p, box) for k, p in enumerate(classes) if objectness * p >= 0.01
                ]
    kept: list[tuple[int, float, list[float]]] = []
    for candidate in sorted(candidates, key=lambda c: -c[1]):
        rivals = [k[2] for k in kept if k[0] == candidate[0]]
        if not rivals or box_iou(torch.tensor(rivals), torch.tensor([candidate[2]])).max() <= 0.65:
            kept.append(candidate)
    return [(k, s, list(np.clip(b, 0, size))) for k, s, b in kept[:100]]


def test_predictions_are_those_of_the_written_layout(tiny_yolox: TinyYolox) -> None:
    path = tiny_yolox()
    pixels = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    bgr = np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1))[None].astype(np.float32)
    expected = naive_detections(reference(path, bgr)[0], 64)
    assert 5 < len(expected) <= 100
    (found,) = OnnxDetector(path).predict([image])
    np.testing.assert_allclose(found.scores.numpy(), [s for _, s, _ in expected], atol=1e-4)
    assert found.labels.tolist() == [k for k, _, _ in expected]
    np.testing.assert_allclose(found.boxes.numpy(), [b for _, _, b in expected], atol=5e-3)


def test_pictures_of_any_size_are_seen_together_as_alone(tiny_yolox: TinyYolox) -> None:
    detector = OnnxDetector(tiny_yolox())
    torch.manual_seed(0)
    images = [
        torch.rand(3, h, w)
        for h, w in [(64, 64), (40, 90), (130, 31), (64, 64), (1, 1), (7, 64), (64, 7), (9, 9), (20, 30)]
    ]
    together = detector.predict(images)
    assert len(together) == len(images)
    for image, found in zip(images, together, strict=True):
        (alone,) = detector.predict([image])
        assert len(alone) == len(found)
        torch.testing.assert_close(alone.scores, found.scores, atol=1e-5, rtol=1e-4)
        height, width = image.shape[1:]
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, 0::2] <= width).all()
        assert (found.boxes[:, 1::2] <= height).all()
        assert (found.scores >= 0.01).all()
        assert (found.scores.diff() <= 0).all()
    assert detector.predict([]) == []


def test_pseudo_labels_are_the_confident_predictions(tiny_yolox: TinyYolox) -> None:
    detector = OnnxDetector(tiny_yolox())
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    (predicted,), (labels,) = detector.predict([image]), detector.pseudo_labels([image])
    assert 0 < len(labels) < len(predicted)
    assert torch.equal(labels.scores, predicted.scores[predicted.scores >= 0.3])
    assert labels.labels.dtype == torch.int64


def test_it_is_a_frozen_recognizer(tiny_yolox: TinyYolox) -> None:
    detector = OnnxDetector(tiny_yolox())
    assert isinstance(detector, Recognizer)
    assert detector.task is Task.DETECTION
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    assert any("running_mean" in name for name in before)
    detector.train()
    assert not any(module.training for module in detector.modules())
    assert not any(parameter.requires_grad for parameter in detector.parameters())
    image = torch.rand(2, 3, 64, 64, requires_grad=True)
    optimizer = torch.optim.SGD([image, *detector.parameters()], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        labels = detector.pseudo_labels(list(image.detach()))
        loss = sum(detector.loss(image, labels).values()) + sum(f.mean() for f in detector.features(image))
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
    after = detector.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("structured", [True, False])
@pytest.mark.parametrize("shape", [(64, 64), (40, 33), (100, 70)])
def test_gradient_reaches_every_picture(
    tiny_yolox: TinyYolox, structured: bool, shape: tuple[int, int]
) -> None:
    detector = OnnxDetector(tiny_yolox(structured=structured))
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = Detections(torch.tensor([[5.0, 6.0, 30.0, 28.0]]), torch.tensor([1]), torch.ones(1))
    terms = detector.loss(images, [target, Detections.empty()])
    assert set(terms) == {"box", "objectness", "classes"}
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert (images.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_loss_takes_crops_at_their_own_scale(tiny_yolox: TinyYolox) -> None:
    """A crop keeps its scale: its loss is that of the same crop on a canvas that needs no scaling."""
    structured, other = OnnxDetector(tiny_yolox(size=128)), OnnxDetector(tiny_yolox("big.onnx", size=64))
    crop = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    target = [Detections(torch.tensor([[5.0, 6.0, 30.0, 28.0]]), torch.tensor([1]), torch.ones(1))]
    small, large = other.loss(crop, target), structured.loss(crop, target)
    for name, value in small.items():
        torch.testing.assert_close(large[name], value)
    # So are its labels; those of a picture are of the canvas that it is scaled up to.
    (wanted,), (labels,) = other.pseudo_labels(list(crop)), structured.crop_labels(crop)
    assert len(wanted) > 0 and torch.equal(labels.labels, wanted.labels)
    torch.testing.assert_close(labels.boxes, wanted.boxes)
    (whole,) = structured.pseudo_labels(list(crop))
    assert len(whole) != len(wanted) or not torch.allclose(whole.boxes, wanted.boxes)


def test_batch_loss_is_the_pictures_losses_weighted_by_positives(tiny_yolox: TinyYolox) -> None:
    detector = OnnxDetector(tiny_yolox())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    empty = [Detections.empty(), Detections.empty()]
    together = detector.loss(images, empty)["objectness"]
    alone = sum(detector.loss(one[None], empty[:1])["objectness"] for one in images)
    torch.testing.assert_close(together, alone)


def test_divergence_grows_from_nothing_with_the_damage(tiny_yolox: TinyYolox) -> None:
    detector = OnnxDetector(tiny_yolox())
    assert isinstance(detector, SoftRecognizer)
    plain = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    noise = torch.randn(plain.shape, generator=torch.Generator().manual_seed(5))
    totals = []
    for strength in (0.0, 0.02, 0.2):
        images = (plain + strength * noise).requires_grad_()
        total = torch.stack(list(detector.divergence(images, plain).values())).sum()
        total.backward()
        assert images.grad is not None and images.grad.isfinite().all()
        totals.append(float(total.detach()))
    assert totals[0] == pytest.approx(0, abs=1e-4)
    assert totals[0] < totals[1] < totals[2]


def test_half_precision_around_it_changes_nothing(tiny_yolox: TinyYolox) -> None:
    detector = OnnxDetector(tiny_yolox())
    image = torch.rand(1, 3, 64, 64)
    target = [Detections(torch.tensor([[5.0, 6.0, 30.0, 28.0]]), torch.tensor([1]), torch.ones(1))]
    plain = detector.loss(image, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = detector.loss(image, target)
    assert {k: v.item() for k, v in plain.items()} == {k: v.item() for k, v in inside.items()}


def test_features_are_what_both_towers_start_from(tiny_yolox: TinyYolox) -> None:
    path = tiny_yolox()
    model = onnx.load(str(path))
    names = ["stem8", "stem16", "stem32"]
    model.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
    canvas = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64)).astype(np.float32)
    expected = ReferenceEvaluator(model).run(names, {"images": canvas})
    image = torch.from_numpy(canvas[:, ::-1].copy()) / 255
    for got, wanted in zip(OnnxDetector(path).features(image), expected, strict=True):
        np.testing.assert_allclose(got.numpy(), wanted, atol=1e-4, rtol=1e-4)


def test_towers_on_its_own_stems_give_its_loss(tiny_yolox: TinyYolox) -> None:
    detector = OnnxDetector(tiny_yolox())
    assert isinstance(detector, SoftHeadedRecognizer)
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[8.0, 4.0, 50.0, 44.0]])
    targets = [Detections(boxes, torch.tensor([1]), torch.ones(1)), Detections.empty()]
    stems = [stem.detach().requires_grad_() for stem in detector.features(images)]
    found, expected = detector.loss_of_features(images, stems, targets), detector.loss(images, targets)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    wanted = detector.features(images.flip(3))
    apart = detector.divergence_of_features(images, stems, wanted)
    for name, value in detector.divergence(images, images.flip(3)).items():
        torch.testing.assert_close(apart[name], value)
    gradients = torch.autograd.grad(sum((found | apart).values()), stems)  # type: ignore[arg-type]
    assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)


def test_features_are_refused_only_when_asked_for(tiny_yolox: TinyYolox) -> None:
    detector = OnnxDetector(tiny_yolox(structured=False))
    assert detector.predict([torch.rand(3, 64, 64)])
    with pytest.raises(RecognizerError, match="no head stems"):
        detector.features(torch.rand(1, 3, 64, 64))


def test_fingerprint_follows_the_bytes_not_the_name(tiny_yolox: TinyYolox, tmp_path: Path) -> None:
    path = tiny_yolox()
    copy = Path(shutil.copy(path, tmp_path / "copy.onnx"))
    other = tiny_yolox("other.onnx", seed=1)
    prints = [OnnxDetector(p).fingerprint for p in (path, copy, other)]
    assert prints[0] == prints[1] != prints[2]


def test_categories(tiny_yolox: TinyYolox) -> None:
    assert OnnxDetector(tiny_yolox()).categories[2] == Category(3, "class 3")
    assert OnnxDetector(tiny_yolox(classes=80)).categories == COCO_CATEGORIES
    named = [Category(7, "a"), Category(8, "b")]
    assert OnnxDetector(tiny_yolox(classes=2), named).categories == tuple(named)
    with pytest.raises(RecognizerError, match="3 classes but 2 categories"):
        OnnxDetector(tiny_yolox(), named)


@pytest.fixture(scope="module")
def nano(shared_models: Path) -> OnnxDetector:
    return OnnxDetector(shared_models / "yolox_nano.onnx")


@pytest.fixture(scope="module")
def pictures(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "coco" / "val2017").glob("*.jpg"))[:8]


def load(path: Path, blur: float = 0.0) -> Tensor:
    with Image.open(path) as file:
        image = file.convert("RGB").filter(ImageFilter.GaussianBlur(blur))
    image.thumbnail((416, 416))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def test_real_detector_runs_as_onnx_says(nano: OnnxDetector, shared_models: Path) -> None:
    canvas = np.random.default_rng(0).uniform(0, 255, (1, 3, 416, 416)).astype(np.float32)
    expected = reference(shared_models / "yolox_nano.onnx", canvas)
    with torch.no_grad():
        got = rows(nano.network(torch.from_numpy(np.concatenate([canvas[..., ::-1].copy(), canvas]))))
    np.testing.assert_allclose(got[1].numpy(), expected[0], atol=2e-4)


def test_real_detector_sees_what_people_saw(
    nano: OnnxDetector, pictures: list[Path], shared_data: Path
) -> None:
    with (shared_data / "coco" / "annotations" / "instances_val2017.json").open() as file:
        truth = json.load(file)
    right = total = 0
    for path in pictures:
        image = load(path)
        (labels,) = nano.pseudo_labels([image])
        size = next(i for i in truth["images"] if i["file_name"] == path.name)
        scale = image.shape[2] / size["width"]
        objects = [a for a in truth["annotations"] if a["image_id"] == size["id"]]
        for box, label, score in zip(labels.boxes, labels.labels, labels.scores, strict=True):
            if score < 0.6:
                continue
            same = [a["bbox"] for a in objects if a["category_id"] == nano.categories[label].id]
            corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in same]).reshape(-1, 4) * scale
            total += 1
            right += bool(len(same)) and bool(box_iou(box[None], corners).max() > 0.5)
    assert total >= 8
    assert right / total > 0.8


def test_blur_costs_loss(nano: OnnxDetector, pictures: list[Path]) -> None:
    losses = {0.0: 0.0, 2.0: 0.0, 6.0: 0.0}
    for path in pictures[:4]:
        labels = nano.pseudo_labels([load(path)])
        for blur in losses:
            losses[blur] += float(sum(nano.loss(load(path, blur)[None], labels).values()))
    assert losses[0.0] < losses[2.0] < losses[6.0]


def test_following_the_gradient_mends_a_blurred_picture(nano: OnnxDetector, pictures: list[Path]) -> None:
    labels = nano.pseudo_labels([load(pictures[2])])
    image = load(pictures[2], 3.0)[None].requires_grad_()
    first = sum(nano.loss(image, labels).values())
    (gradient,) = torch.autograd.grad(first, image)  # type: ignore[arg-type]
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    with torch.no_grad():
        mended = image - 0.5 * gradient / gradient.norm()
        assert sum(nano.loss(mended, labels).values()) < 0.9 * first
    stems = nano.features(image)
    assert [tuple(f.shape[:2]) for f in stems] == [(1, 64)] * 3
