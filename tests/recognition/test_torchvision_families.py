"""torchvision's RetinaNet and Mask R-CNN as frozen recognizers, held against torchvision's own passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, kl_divergence
from torchvision.models.detection import (
    MaskRCNN_ResNet50_FPN_V2_Weights,
    RetinaNet_ResNet50_FPN_Weights,
    maskrcnn_resnet50_fpn,
    retinanet_resnet50_fpn,
)

from taskpress.detections import Category, Detections
from taskpress.errors import RecognizerError
from taskpress.recognition import torchvision_models
from taskpress.recognition.faster_rcnn import FasterRCNN
from taskpress.recognition.mask_rcnn import MaskRCNN
from taskpress.recognition.named import load_recognizer
from taskpress.recognition.protocol import Recognizer, SoftHeadedRecognizer
from taskpress.recognition.retinanet import RetinaNet
from taskpress.recognition.slim_rcnn import slim_rcnn
from taskpress.recognition.torchvision_detector import TorchvisionDetector

SIZE = "?shortest_edge=96,longest_edge=160"


def save(model: nn.Module, path: Path) -> Path:
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def mask_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.5)
    return save(model, tmp_path_factory.mktemp("mask") / "mask.pth")


@pytest.fixture(scope="module")
def retina_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    nn.init.zeros_(model.head.classification_head.cls_logits.bias)
    return save(model, tmp_path_factory.mktemp("retina") / "retina.pth")


@pytest.fixture(scope="module")
def mask_rcnn(mask_file: Path) -> MaskRCNN:
    recognizer = load_recognizer(f"maskrcnn-r50-fpn:{mask_file}{SIZE}")
    assert isinstance(recognizer, MaskRCNN)
    return recognizer


@pytest.fixture(scope="module")
def retinanet(retina_file: Path) -> RetinaNet:
    recognizer = load_recognizer(f"retinanet-r50-fpn:{retina_file}{SIZE}")
    assert isinstance(recognizer, RetinaNet)
    return recognizer


@pytest.fixture(params=["mask_rcnn", "retinanet"])
def recognizer(request: pytest.FixtureRequest) -> TorchvisionDetector:
    return request.getfixturevalue(request.param)


@pytest.fixture
def batch() -> Tensor:
    return torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(5))


def targets() -> list[Detections]:
    boxes = torch.tensor([[10.0, 12.0, 60.0, 70.0], [64.0, 34.0, 118.0, 90.0]])
    return [Detections(boxes, torch.tensor([0, 2]), torch.ones(2)), Detections.empty()]


def test_both_satisfy_the_protocol_and_count_classes_after_background(
    recognizer: TorchvisionDetector,
) -> None:
    assert isinstance(recognizer, Recognizer)
    assert recognizer.categories == tuple(Category(n, f"class {n}") for n in (1, 2, 3))
    assert recognizer.name.endswith(SIZE)
    assert recognizer.model.transform.min_size == (96,) and recognizer.model.transform.max_size == 160


def test_predictions_are_torchvisions_with_labels_counted_from_zero(
    recognizer: TorchvisionDetector, batch: Tensor
) -> None:
    with torch.no_grad():
        expected = recognizer.model([batch[0]])[0]
    found = recognizer.predict(batch[:1])[0]
    known = expected["labels"] > 0
    assert len(found) > 0
    assert torch.equal(found.boxes, expected["boxes"][known])
    assert torch.equal(found.labels, expected["labels"][known] - 1)
    assert torch.equal(found.scores, expected["scores"][known])


def test_masks_are_not_computed(mask_rcnn: MaskRCNN, batch: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the mask head was run")

    monkeypatch.setattr(mask_rcnn.model.roi_heads.mask_head, "forward", fail)
    mask_rcnn.predict(batch[:1])
    assert mask_rcnn.model.roi_heads.has_mask()
    assert any("mask_head" in key for key in mask_rcnn.state_dict())


def test_retinanets_loss_is_torchvisions_training_loss(retinanet: RetinaNet, batch: Tensor) -> None:
    with torch.no_grad():
        losses = retinanet.loss(batch, targets())
        model = retinanet.model
        model.training = model.transform.training = True
        given = [{"boxes": t.boxes, "labels": t.labels + 1} for t in targets()]
        expected = model(list(batch), given)
        retinanet.train()
    assert losses.keys() == expected.keys() == {"classification", "bbox_regression"}
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


def test_mask_rcnns_loss_is_that_of_its_boxes(mask_rcnn: MaskRCNN, batch: Tensor) -> None:
    for part in (mask_rcnn.model.rpn, mask_rcnn.model.roi_heads):
        part.fg_bg_sampler.batch_size_per_image = 1_000_000  # nothing is left to chance
    with torch.no_grad():
        losses = mask_rcnn.loss(batch, targets())
        model = mask_rcnn.model
        for part in (model, model.rpn, model.roi_heads):
            part.training = True
        given = [
            {"boxes": t.boxes, "labels": t.labels + 1, "masks": torch.zeros(len(t), 96, 128)}
            for t in targets()
        ]
        expected = model(list(batch), given)
        mask_rcnn.train()
    assert expected.pop("loss_mask") > 0
    assert losses.keys() == expected.keys() and len(losses) == 4
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


def test_gradients_reach_the_picture_and_nothing_else(recognizer: TorchvisionDetector, batch: Tensor) -> None:
    before = {key: value.clone() for key, value in recognizer.state_dict().items()}
    batch.requires_grad_()
    sum(recognizer.loss(batch, targets()).values()).backward()  # type: ignore[union-attr]
    assert batch.grad is not None and torch.isfinite(batch.grad).all()
    assert all(gradient.abs().sum() > 0 for gradient in batch.grad)
    assert all(parameter.grad is None for parameter in recognizer.parameters())
    assert all(torch.equal(value, before[key]) for key, value in recognizer.state_dict().items())
    assert not any(module.training for module in recognizer.modules())


def test_retinanets_divergence_is_of_every_anchor(retinanet: RetinaNet, batch: Tensor) -> None:
    assert isinstance(retinanet, SoftHeadedRecognizer)
    other = batch.flip(3)
    with torch.no_grad():
        assert all(float(value) == 0 for value in retinanet.divergence(batch, batch).values())
        terms = retinanet.divergence(other, batch)
        wanted, found = (retinanet.model.head(retinanet.features(x)) for x in (batch, other))
    sure, guess = (Bernoulli(logits=outputs["cls_logits"]) for outputs in (wanted, found))
    best = sure.probs.amax(2)
    assert terms.keys() == {"classes", "box"}
    torch.testing.assert_close(
        terms["classes"], kl_divergence(sure, guess).sum() / best.sum(), rtol=1e-3, atol=0
    )
    apart = nn.functional.smooth_l1_loss(
        found["bbox_regression"], wanted["bbox_regression"], reduction="none"
    )
    torch.testing.assert_close(terms["box"], (best * apart.sum(2)).sum() / best.sum())


def test_features_are_the_levels_that_are_computed(
    mask_rcnn: MaskRCNN, retinanet: RetinaNet, batch: Tensor
) -> None:
    with torch.no_grad():
        sides = [[tuple(level.shape[2:]) for level in r.features(batch)] for r in (mask_rcnn, retinanet)]
    assert sides[0] == [(24, 32), (12, 16), (6, 8), (3, 4)]
    assert sides[1] == [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]


def test_crops_keep_the_scale_of_their_picture(batch: Tensor) -> None:
    classes = [Category(number, "x") for number in range(1, 5)]

    def make(scale: float | None) -> FasterRCNN:
        torch.manual_seed(3)
        return FasterRCNN(slim_rcnn(4, image_size=192), "slim", classes, crop_scale=scale)

    whole, crops = make(None), make(2.0)  # 96×128 is scaled to 192×256
    assert crops.features(batch[:, :, :48, :64])[0].shape[2:] == (12, 16)
    for one, other in zip(whole.features(batch), crops.features(batch), strict=True):
        torch.testing.assert_close(one, other)
    losses = []
    for recognizer in (whole, crops):
        torch.manual_seed(0)
        losses.append(torch.stack(list(recognizer.loss(batch, targets()).values())))
    torch.testing.assert_close(*losses)
    # So do its labels of a crop: a detector that scales whole pictures of the crop's size by 2 has them.
    crop = batch[:, :, :48, :64]
    torch.manual_seed(3)
    doubling = FasterRCNN(slim_rcnn(4, image_size=96), "slim", classes)
    for one, other in zip(doubling.predict(crop), crops._find(crop, crops=True), strict=True):
        assert len(one) > 0
        torch.testing.assert_close(one.boxes, other.boxes)
    assert not torch.equal(crops.predict(crop)[0].boxes, crops._find(crop, crops=True)[0].boxes)
    assert all((found.scores >= 0.5).all() for found in crops.crop_labels(crop))
    assert crops.model.transform.min_size == (192,)
    assert crops.fingerprint != whole.fingerprint


def test_files_of_another_family_and_unknown_weights_are_refused(mask_file: Path, retina_file: Path) -> None:
    with pytest.raises(RecognizerError, match="no state dict of torchvision's RetinaNet"):
        load_recognizer(f"retinanet-r50-fpn:{mask_file}")
    with pytest.raises(RecognizerError, match="no state dict of torchvision's Mask R-CNN"):
        load_recognizer(f"maskrcnn-r50-fpn-v2:{retina_file}")
    with pytest.raises(RecognizerError, match="does not fit fasterrcnn-r50-fpn"):
        load_recognizer(f"fasterrcnn-r50-fpn:{mask_file}")
    with pytest.raises(RecognizerError, match=r"has no weights 'COCO_V9'.*torchvision's are COCO_V1"):
        load_recognizer("retinanet-r50-fpn:COCO_V9")


def test_files_that_torchvision_runs_without_epsilon_are_run_so(
    mask_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torchvision_models, "published_as", lambda path, known: known[0] if path == mask_file else None
    )
    recognizer = load_recognizer(f"maskrcnn-r50-fpn:{mask_file}")
    assert isinstance(recognizer, MaskRCNN)
    epsilons = [module.eps for name, module in recognizer.model.named_modules() if "bn" in name]
    assert len(epsilons) > 40 and not any(epsilons)


def test_labels_of_coco_weights_are_category_ids() -> None:
    for weights in (RetinaNet_ResNet50_FPN_Weights.COCO_V1, MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1):
        assert len(weights.meta["categories"]) == 91
        categories, labels = torchvision_models._categories(91)
        for label, category in zip(labels, categories, strict=True):
            assert weights.meta["categories"][label] == category.name and label == category.id
