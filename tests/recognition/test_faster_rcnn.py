"""Faster R-CNN as a frozen recognizer, held against torchvision's own forward passes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection import (
    FasterRCNN_ResNet50_FPN_Weights,
    fasterrcnn_mobilenet_v3_large_320_fpn,
)

from taskpress.datasets.scenes import CATEGORIES, Scenes
from taskpress.detections import Category, Detections
from taskpress.errors import RecognizerError
from taskpress.evaluation.detection_metric import coco_metrics
from taskpress.recognition.faster_rcnn import FasterRCNN, load_scenes_recognizer
from taskpress.recognition.protocol import Recognizer, SoftRecognizer
from taskpress.recognition.slim_rcnn import slim_rcnn
from taskpress.recognition.torchvision_models import from_torchvision

MOBILE = "fasterrcnn-mobilenet-v3-large-320-fpn"
CLASSES = tuple(Category(10 * number, f"kind {number}") for number in range(1, 5))


def make(**settings: float) -> FasterRCNN:
    torch.manual_seed(3)
    model = slim_rcnn(len(CLASSES), image_size=128)
    # Wider than torchvision's initial 0.01, so that scores differ from class to class.
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=2.0)
    return FasterRCNN(model, "slim", CLASSES, **settings)


@pytest.fixture(scope="module")
def recognizer() -> FasterRCNN:
    return make()


@pytest.fixture
def batch() -> Tensor:
    return torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(5))


def targets() -> list[Detections]:
    boxes = torch.tensor([[10.0, 12.0, 60.0, 70.0], [64.0, 64.0, 120.0, 110.0]])
    return [Detections(boxes, torch.tensor([0, 3]), torch.ones(2)), Detections.empty()]


def test_satisfies_the_protocol(recognizer: FasterRCNN) -> None:
    assert isinstance(recognizer, Recognizer)


def test_predict_is_torchvisions_forward_with_labels_counted_from_zero(
    recognizer: FasterRCNN, batch: Tensor
) -> None:
    with torch.no_grad():
        expected = recognizer.model(list(batch))
    for found, wanted in zip(recognizer.predict(batch), expected, strict=True):
        assert len(found) > 0
        assert torch.equal(found.boxes, wanted["boxes"])
        assert torch.equal(found.labels, wanted["labels"] - 1)
        assert torch.equal(found.scores, wanted["scores"])


def test_pictures_of_other_sizes_do_not_change_what_is_found(recognizer: FasterRCNN, batch: Tensor) -> None:
    mixed = [batch[0], torch.rand(3, 128, 200), batch[1], torch.rand(3, 97, 128)]
    together = recognizer.predict(mixed)
    for found, image in zip(together, mixed, strict=True):
        alone = recognizer.predict([image])[0]
        torch.testing.assert_close(found.boxes, alone.boxes)
        height, width = image.shape[-2:]
        assert found.boxes[:, 2].max() <= width and found.boxes[:, 3].max() <= height


def test_pseudo_labels_are_the_confident_predictions(batch: Tensor) -> None:
    teacher = make(pseudo_label_threshold=0.3)
    for label, found in zip(teacher.pseudo_labels(batch), teacher.predict(batch), strict=True):
        assert 0 < len(label) < len(found)
        assert torch.equal(label.scores, found.scores[found.scores >= 0.3])


def test_loss_is_torchvisions_training_loss_with_frozen_batchnorm(batch: Tensor) -> None:
    recognizer = sample_everything(make())
    with torch.no_grad():
        losses = recognizer.loss(batch, targets())
    model = sample_everything(make()).model
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    given = [{"boxes": t.boxes, "labels": t.labels + 1} for t in targets()]
    with torch.no_grad():
        expected = model(list(batch), given)
    assert losses.keys() == expected.keys()
    assert len(losses) == 4
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


def test_loss_leaves_out_targets_without_extent(batch: Tensor) -> None:
    recognizer = sample_everything(make())
    sound = targets()
    flat = torch.tensor([[5.0, 5.0, 5.0, 30.0], [40.0, 40.0, 90.0, 40.2]])
    spoiled = [
        Detections(
            torch.cat([flat, t.boxes]), torch.cat([torch.tensor([1, 2]), t.labels]), torch.ones(2 + len(t))
        )
        for t in sound
    ]
    with torch.no_grad():
        expected, losses = recognizer.loss(batch, sound), recognizer.loss(batch, spoiled)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


@pytest.mark.parametrize("labels", [targets(), [Detections.empty(), Detections.empty()]])
def test_gradients_reach_the_picture_and_nothing_else(
    recognizer: FasterRCNN, batch: Tensor, labels: list[Detections]
) -> None:
    before = {key: value.clone() for key, value in recognizer.state_dict().items()}
    batch.requires_grad_()
    sum(recognizer.loss(batch, labels).values()).backward()  # type: ignore[union-attr]
    assert batch.grad is not None and torch.isfinite(batch.grad).all()
    assert batch.grad[0].abs().sum() > 0
    assert all(parameter.grad is None for parameter in recognizer.parameters())
    assert all(torch.equal(value, before[key]) for key, value in recognizer.state_dict().items())


def test_stays_in_inference_mode_whatever_is_done_to_it(
    batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = make()
    nn.ModuleList([recognizer]).train()
    recognizer.loss(batch, targets())
    assert not any(module.training for module in recognizer.modules())

    def fail(*_: object) -> None:
        raise FloatingPointError

    monkeypatch.setattr(recognizer.model.roi_heads, "select_training_samples", fail)
    with pytest.raises(FloatingPointError):
        recognizer.loss(batch, targets())
    assert not any(module.training for module in recognizer.modules())
    assert not any(parameter.requires_grad for parameter in recognizer.parameters())


def test_features_are_the_pyramid_and_pass_gradients(recognizer: FasterRCNN, batch: Tensor) -> None:
    batch.requires_grad_()
    levels = recognizer.features(batch)
    assert [tuple(level.shape) for level in levels] == [(2, 64, 16, 16), (2, 64, 8, 8), (2, 64, 4, 4)]
    sum(level.square().mean() for level in levels).backward()  # type: ignore[union-attr]
    assert batch.grad is not None and batch.grad.abs().sum() > 0


def test_padding_is_told(recognizer: FasterRCNN) -> None:
    assert not recognizer.pads(64) and not recognizer.pads(256)
    scaled = FasterRCNN(recognizer.model, "scaled", recognizer.categories, crop_scale=1.667)
    assert scaled.pads(256) and not scaled.pads(96)


def test_a_picture_that_scaling_would_make_vanish_is_refused() -> None:
    scenes = load_scenes_recognizer()
    with pytest.raises(RecognizerError, match="6000x10 pixels is too narrow"):
        scenes.predict([torch.rand(3, 10, 6000)])


def test_divergence_is_held_on_the_references_proposals(recognizer: FasterRCNN, batch: Tensor) -> None:
    assert isinstance(recognizer, SoftRecognizer)
    same = recognizer.divergence(batch, batch)
    assert set(same) == {"objectness", "rpn_box", "classes", "box"}
    assert all(float(value) == pytest.approx(0, abs=1e-4) for value in same.values())
    other = batch.flip(3).requires_grad_()
    terms = recognizer.divergence(other, batch)
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert other.grad is not None and other.grad.isfinite().all()
    assert all((other.grad[index] != 0).any() for index in range(2))
    assert all(parameter.grad is None for parameter in recognizer.parameters())

    # The oracle: torchvision's own proposals and head, and torch's divergence of categorical distributions.
    seen: list[tuple[Tensor, ...]] = []
    hook = recognizer.model.roi_heads.box_predictor.register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    recognizer.divergence(other.detach(), batch)
    recognizer.predict(batch)
    hook.remove()
    (wanted, _), (found, _), (forward, _) = seen
    torch.testing.assert_close(wanted, forward, atol=1e-4, rtol=1e-4)
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=wanted), torch.distributions.Categorical(logits=found)
    )
    objects = (1 - wanted.softmax(1)[:, 0]).sum().clamp(min=1)
    torch.testing.assert_close(terms["classes"].detach(), divergence.sum() / objects, rtol=1e-3, atol=1e-4)


def test_fingerprint_follows_weights_and_thresholds() -> None:
    assert make().fingerprint == make().fingerprint
    assert make().fingerprint != make(pseudo_label_threshold=0.4).fingerprint
    changed = make().model
    with torch.no_grad():
        changed.rpn.head.cls_logits.bias[0] += 1e-3  # type: ignore[index]
    assert FasterRCNN(changed, "slim", CLASSES).fingerprint != make().fingerprint


def test_refuses_categories_that_do_not_fit_the_model() -> None:
    with pytest.raises(RecognizerError, match="slim has 4 classes, 5 categories"):
        FasterRCNN(slim_rcnn(4), "slim", [Category(number, "x") for number in range(1, 6)])


@pytest.fixture(scope="module")
def coco_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=91)
    # A bias that makes it see people, toothbrushes and label 12, which torchvision calls N/A, everywhere.
    model.roi_heads.box_predictor.cls_score.bias.data[[1, 12, 90]] = 5.0
    return model.state_dict()


@pytest.fixture(scope="module")
def coco_file(coco_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mobile.pth"
    torch.save(coco_state, path)
    return path


@pytest.fixture(scope="module")
def coco(coco_file: Path) -> FasterRCNN:
    return from_torchvision(MOBILE, str(coco_file))


def test_labels_of_coco_models_mean_what_torchvision_says(coco: FasterRCNN) -> None:
    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert len(coco.categories) == 80
    for label, category in zip(coco.to_label.tolist(), coco.categories, strict=True):
        assert names[label] == category.name
        assert label == category.id


def test_labels_that_are_no_category_are_dropped(coco: FasterRCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco.model.roi_heads, "detections_per_img", 100_000)
    image = torch.rand(3, 96, 96)
    with torch.no_grad():
        raw = coco.model([image])[0]["labels"]
    assert set(raw.tolist()) == {1, 12, 90}
    found = coco.predict([image])[0]
    assert {coco.categories[label].name for label in found.labels.tolist()} == {"person", "toothbrush"}


def test_both_file_formats_give_the_same_recognizer(
    coco: FasterRCNN, coco_state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "mobile.safetensors"
    save_file(coco_state, path)
    again = from_torchvision(MOBILE, str(path))
    assert again.fingerprint == coco.fingerprint
    assert again.name == f"{MOBILE}:{path}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no weights"),
        (b"\x80\x02 nonsense", "holds no weights"),
        ("a pickled object", "holds no weights"),
        ({"weight": torch.zeros(2)}, "no state dict"),
        ([1, 2], "no state dict"),
    ],
)
def test_files_of_another_kind_are_refused(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(hashlib.md5 if isinstance(content, str) else content, path)
    with pytest.raises(RecognizerError, match=message) as caught:
        from_torchvision("fasterrcnn-r50-fpn", str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_another_backbone_are_refused(coco_file: Path, tmp_path: Path) -> None:
    with pytest.raises(RecognizerError, match="No such file"):
        from_torchvision("fasterrcnn-r50-fpn", str(tmp_path / "absent.pth"))
    with pytest.raises(RecognizerError, match="does not fit fasterrcnn-r18-fpn") as caught:
        from_torchvision("fasterrcnn-r18-fpn", str(coco_file))
    assert "\n" not in str(caught.value)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(RecognizerError, match="did you mean fasterrcnn-r50-fpn"):
        from_torchvision("fasterrcnn-r5-fpn")
    with pytest.raises(RecognizerError, match="give a file: torchvision-fasterrcnn-x101-fpn:WEIGHTS"):
        from_torchvision("torchvision-fasterrcnn-x101-fpn")


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", "/nonexistent/but/never/written")
    monkeypatch.setattr("os.makedirs", lambda *_, **__: None)
    for name, weights in ((MOBILE, None), ("retinanet-r50-fpn-v2", "COCO_V1")):
        with pytest.raises(RecognizerError, match="cannot be downloaded") as caught:
            from_torchvision(name, weights)
        message = str(caught.value)
        assert "https://download.pytorch.org/models/" in message and f"{name}:FILE" in message
        assert "\n" not in message


def test_the_shipped_scenes_recognizer_sees_what_is_drawn() -> None:
    recognizer = load_scenes_recognizer()
    assert recognizer.categories == CATEGORIES
    scenes = Scenes("test", 12)
    images = [torch.from_numpy(sample.image).permute(2, 0, 1) / 255 for sample in scenes]
    figures = coco_metrics(scenes.coco_ground_truth(), recognizer.predict(images), range(12), CATEGORIES)
    assert figures["ap"] > 55
    teacher = recognizer.pseudo_labels(images)
    assert all(len(labels) >= 1 and labels.scores.min() >= 0.5 for labels in teacher)


def test_a_missing_scenes_recognizer_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskpress.recognition.faster_rcnn.SCENES_WEIGHTS", "absent.safetensors")
    with pytest.raises(RecognizerError, match="train-recognizer"):
        load_scenes_recognizer()


def sample_everything(recognizer: FasterRCNN) -> FasterRCNN:
    """Takes the chance out of the losses: every anchor and every proposal is in the sample."""
    model: TorchvisionFasterRCNN = recognizer.model
    for sampler in (model.rpn.fg_bg_sampler, model.roi_heads.fg_bg_sampler):
        sampler.batch_size_per_image = 1_000_000  # type: ignore[union-attr]
    return recognizer
