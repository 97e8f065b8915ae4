"""Mask R-CNN with its masks: the scenes detector with a mask head, and torchvision's by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from taskpress.auxiliary.named import build_auxiliary
from taskpress.coding.codec import Codec
from taskpress.coding.images import to_tensor
from taskpress.datasets.scenes import CATEGORIES, Scenes
from taskpress.detections import Crop, Instances
from taskpress.evaluation.anchors import anchor
from taskpress.evaluation.rate_accuracy import evaluate
from taskpress.recognition.faster_rcnn import load_scenes_recognizer
from taskpress.recognition.instance_segmentation import InstanceSegmenter
from taskpress.recognition.named import load_recognizer
from taskpress.recognition.protocol import Recognizer, SoftHeadedRecognizer
from taskpress.recognition.slim_rcnn import PYRAMID, slim_rcnn
from taskpress.targets import Task
from taskpress.training.data import Batch
from taskpress.training.objective import Objective, Weighted
from taskpress.training.objective_config import ObjectiveConfig
from taskpress.training.teacher import Teacher


@pytest.fixture(scope="module")
def segmenter() -> InstanceSegmenter:
    """The shipped detector of scenes, which finds objects, and a mask head that knows nothing."""
    torch.manual_seed(0)
    model = slim_rcnn(len(CATEGORIES))
    model.load_state_dict(load_scenes_recognizer().model.state_dict())
    model.roi_heads.mask_roi_pool = MultiScaleRoIAlign(["0", "1", "2"], output_size=7, sampling_ratio=2)
    model.roi_heads.mask_head = MaskRCNNHeads(PYRAMID, (16,), 1)
    model.roi_heads.mask_predictor = MaskRCNNPredictor(16, 16, len(CATEGORIES) + 1)
    # A head drawn at random says almost the same everywhere.
    model.roi_heads.mask_predictor.mask_fcn_logits.weight.data *= 20
    return InstanceSegmenter(model, "slim", CATEGORIES, crop_scale=1.0)


@pytest.fixture(scope="module")
def pictures() -> list[Tensor]:
    return [to_tensor(Scenes("test", 2)[index].image) for index in range(2)]


def test_objects_and_their_pixels(segmenter: InstanceSegmenter, pictures: list[Tensor]) -> None:
    """Oracle: torchvision's own output."""
    assert isinstance(segmenter, Recognizer) and segmenter.task is Task.INSTANCE_SEGMENTATION
    assert segmenter.fingerprint != load_scenes_recognizer().fingerprint
    found = segmenter.predict(pictures)
    with torch.no_grad():
        expected = segmenter.model(pictures)
    for mine, theirs in zip(found, expected, strict=True):
        assert isinstance(mine, Instances) and mine.masks.dtype == torch.bool
        assert torch.allclose(mine.boxes, theirs["boxes"], atol=1e-3)
        assert torch.equal(mine.labels + 1, theirs["labels"])
        agreement = (mine.masks == (theirs["masks"][:, 0] >= 0.5)).float().mean()
        assert agreement > 0.999
    labels = segmenter.pseudo_labels(pictures)
    assert all(isinstance(label, Instances) and (label.scores >= 0.5).all() for label in labels)
    assert sum(len(label) for label in labels) > 0


def test_the_masks_count_in_the_loss(segmenter: InstanceSegmenter, pictures: list[Tensor]) -> None:
    labels = segmenter.pseudo_labels(pictures)
    assert all(isinstance(label, Instances) for label in labels)
    images = [picture.clone().requires_grad_() for picture in pictures]

    def losses(targets: list) -> dict[str, Tensor]:
        torch.manual_seed(0)
        return segmenter.loss(images, targets)

    own = losses(labels)
    assert set(own) == {
        "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask",
    }  # fmt: skip
    (gradient,) = torch.autograd.grad(own["loss_mask"], images[0])
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    inverted = losses(
        [Instances(label.boxes, label.labels, label.scores, ~label.masks) for label in labels]  # type: ignore[attr-defined]
    )
    assert inverted["loss_mask"] > own["loss_mask"]
    assert inverted["loss_classifier"] == own["loss_classifier"]
    nothing = losses([label.where(label.scores > 2) for label in labels])
    assert nothing["loss_mask"] == 0 and all(value.isfinite() for value in nothing.values())
    assert not any(p.requires_grad for p in segmenter.parameters())
    assert not any(module.training for module in segmenter.modules())


def test_a_short_training_lowers_both_losses(segmenter: InstanceSegmenter, tmp_path: Path) -> None:
    torch.manual_seed(0)
    scenes, teacher = Scenes("train", 2), Teacher(segmenter, tmp_path)
    window = Crop(64, 64, 128, 128)
    labels = [teacher.labels(scenes[i].image).cropped(window, flip=False) for i in range(2)]
    images = torch.stack([to_tensor(scenes[i].image[64:192, 64:192].copy()) for i in range(2)])
    batch = Batch(images, [labels])
    codec = Codec.create("mean-scale-hyperprior", 8, 12, seed=0).train()
    branch = build_auxiliary("instance", 12, len(CATEGORIES), width=8, task=segmenter.task)
    objective = Objective(ObjectiveConfig(task="outputs", alpha=1.0), 100.0, [Weighted(segmenter)])
    optimizer = torch.optim.Adam([*codec.parameters(), *branch.parameters()], lr=5e-3)
    history = []
    for _ in range(40):
        terms = objective(batch, codec.estimate(batch.images), {0: branch})
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        history.append((terms["task"].item(), terms["aux"].item()))
    first, last = torch.tensor(history[:4]).mean(0), torch.tensor(history[-4:]).mean(0)
    assert (last < 0.9 * first).all(), (first, last)


def test_mask_ap_of_real_files(segmenter: InstanceSegmenter) -> None:
    scenes = Scenes("test", 2, task=Task.INSTANCE_SEGMENTATION)
    result = evaluate(anchor("webp", 100), scenes, segmenter)
    assert (result.task, result.ap) == (Task.INSTANCE_SEGMENTATION, result.scores["ap"])
    assert set(result.scores) == {
        "ap", "ap50", "teacher_ap", "teacher_ap50",
        "mask_ap", "mask_ap50", "teacher_mask_ap", "teacher_mask_ap50",
    }  # fmt: skip
    assert result.uncompressed_scores["teacher_mask_ap"] == pytest.approx(100)
    # Boxes are good, masks are chance: only boxes are where the scene has its objects.
    assert result.scores["ap"] > 50 > result.scores["mask_ap"]  # type: ignore[operator]


def test_torchvisions_by_name(tmp_path: Path) -> None:
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    torch.save(model.state_dict(), tmp_path / "mask.pth")
    boxes = load_recognizer(f"maskrcnn-r50-fpn:{tmp_path / 'mask.pth'}")
    masks = load_recognizer(
        f"instance-maskrcnn-r50-fpn:{tmp_path / 'mask.pth'}?shortest_edge=64,threshold=0.3"
    )
    assert isinstance(masks, InstanceSegmenter) and isinstance(masks.model, MaskRCNN)
    assert (boxes.task, masks.task) == (Task.DETECTION, Task.INSTANCE_SEGMENTATION)
    assert (len(masks.categories), masks.pseudo_label_threshold) == (3, 0.3)


def test_divergence_compares_masks_in_the_boxes_that_the_reference_detects(
    segmenter: InstanceSegmenter, pictures: list[Tensor]
) -> None:
    """Oracle: torchvision's own masks of the reference, and torch's divergence of distributions."""
    assert isinstance(segmenter, SoftHeadedRecognizer)
    same = segmenter.divergence(pictures, pictures)
    assert all(float(value) == pytest.approx(0, abs=1e-4) for value in same.values())
    darker = [(0.5 * picture).requires_grad_() for picture in pictures]
    seen: list[Tensor] = []
    hook = segmenter.model.roi_heads.mask_predictor.register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    terms = segmenter.divergence(darker, pictures)
    hook.remove()
    assert set(terms) - set(load_scenes_recognizer().divergence(pictures, pictures)) == {"mask"}
    (gradient,) = torch.autograd.grad(terms["mask"], darker[0])
    assert (gradient != 0).any()

    objects = segmenter.model(pictures)
    labels = torch.cat([few["labels"] for few in objects])
    scores = torch.cat([few["scores"] for few in objects])
    logits = [masks[torch.arange(len(labels)), labels].double() for masks in seen[-2:]]
    reference, decoded = (Categorical(logits=torch.stack([few, 0 * few], dim=-1)) for few in logits)
    apart = kl_divergence(reference, decoded).mean(dim=(1, 2))
    expected = (scores * apart).sum() / scores.sum()
    assert float(terms["mask"].detach()) == pytest.approx(float(expected.detach()), rel=1e-3)
