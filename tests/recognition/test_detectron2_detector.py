"""Detectron2's Faster R-CNN as a recognizer: what goes in, what comes out, what gradients reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, kl_divergence

from taskpress.detections import Category, Detections
from taskpress.errors import RecognizerError
from taskpress.recognition.coco_categories import COCO_CATEGORIES
from taskpress.recognition.detectron2_backbone import Architecture
from taskpress.recognition.detectron2_detector import Detectron2FasterRCNN
from taskpress.recognition.detectron2_rcnn import TEST_TOP_K
from taskpress.recognition.detectron2_weights import random_model
from taskpress.recognition.protocol import Recognizer, SoftHeadedRecognizer

SMALL = Architecture(
    blocks=(1, 2, 2, 1), stem=8, groups=2, group_width=4, res2=16, pyramid=16, hidden=32, classes=5
)


def make(**settings: float) -> Detectron2FasterRCNN:
    given: dict[str, float] = {"shortest_edge": 128, "longest_edge": 200, **settings}
    model = random_model(SMALL)
    # Few channels make small activations; so scores still differ.
    model.roi_heads["box_predictor"].cls_score.weight.data *= 20
    return Detectron2FasterRCNN(model, "small", **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def recognizer() -> Detectron2FasterRCNN:
    return make()


@pytest.fixture
def batch() -> Tensor:
    return torch.rand(2, 3, 96, 120, generator=torch.Generator().manual_seed(5))


def targets() -> list[Detections]:
    boxes = torch.tensor([[10.0, 12.0, 60.0, 70.0], [64.0, 34.0, 118.0, 90.0]])
    return [Detections(boxes, torch.tensor([0, 3]), torch.ones(2)), Detections.empty()]


def test_satisfies_the_protocol(recognizer: Detectron2FasterRCNN) -> None:
    assert isinstance(recognizer, Recognizer)
    assert [category.name for category in recognizer.categories] == [f"class {n}" for n in range(1, 6)]


def test_the_network_sees_bgr_of_255_less_mean_over_std_padded_with_zeros(
    recognizer: Detectron2FasterRCNN, batch: Tensor
) -> None:
    canvas = recognizer._canvas(list(batch), (96, 120)).numpy()
    assert canvas.shape == (2, 3, 96, 128)
    assert not canvas[..., 120:].any()
    blue_green_red = batch.numpy()[:, ::-1] * 255.0
    mean, std = np.array([103.530, 116.280, 123.675]), np.array([57.375, 57.120, 58.395])
    wanted = (blue_green_red - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    np.testing.assert_allclose(canvas[..., :120], wanted, rtol=1e-4, atol=1e-5)


def test_boxes_come_back_in_the_picture_s_pixels(recognizer: Detectron2FasterRCNN, batch: Tensor) -> None:
    picture = batch[0]
    found = recognizer.predict([picture])[0]
    assert len(found) > 5 and torch.isfinite(found.boxes).all()
    assert found.boxes[:, 2].max() <= 120 and found.boxes[:, 3].max() <= 96
    assert found.scores.diff().le(0).all() and found.scores.min() > 0.05
    with torch.no_grad():  # 96×120 scaled to 128×160
        on_canvas = recognizer.model(recognizer._canvas([picture], (128, 160)), [(128, 160)])[0]
    torch.testing.assert_close(found.boxes, on_canvas.boxes * 0.75)
    # A longer picture is bounded by its long side: 200 pixels.
    assert recognizer._training_size(torch.zeros(3, 40, 100)) == (80, 200)


def test_pictures_of_other_sizes_do_not_change_what_is_found(
    recognizer: Detectron2FasterRCNN, batch: Tensor
) -> None:
    mixed = [batch[0], batch[1], batch[0].flip(1), torch.rand(3, 97, 64)]
    for found, picture in zip(recognizer.predict(mixed), mixed, strict=True):
        alone = recognizer.predict([picture])[0]
        torch.testing.assert_close(found.boxes, alone.boxes, rtol=1e-3, atol=1e-2)


def test_pseudo_labels_are_the_confident_predictions(batch: Tensor) -> None:
    teacher = make(pseudo_label_threshold=0.8)
    for label, found in zip(teacher.pseudo_labels(batch), teacher.predict(batch), strict=True):
        assert 0 < len(label) < len(found)
        assert torch.equal(label.scores, found.scores[found.scores >= 0.8])


@pytest.mark.parametrize("labels", [targets(), [Detections.empty(), Detections.empty()]])
def test_gradients_reach_the_picture_and_nothing_else(
    recognizer: Detectron2FasterRCNN, batch: Tensor, labels: list[Detections]
) -> None:
    before = {key: value.clone() for key, value in recognizer.state_dict().items()}
    batch.requires_grad_()
    losses = recognizer.loss(batch, labels)
    assert list(losses) == ["loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"]
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert batch.grad is not None and torch.isfinite(batch.grad).all()
    assert all(gradient.abs().sum() > 0 for gradient in batch.grad)
    assert all(parameter.grad is None for parameter in recognizer.parameters())
    assert all(torch.equal(value, before[key]) for key, value in recognizer.state_dict().items())


def test_the_loss_follows_torchs_seed(recognizer: Detectron2FasterRCNN, batch: Tensor) -> None:
    values = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        values.append(torch.stack(list(recognizer.loss(batch, targets()).values())))
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def test_a_few_steps_on_the_picture_lower_the_loss(recognizer: Detectron2FasterRCNN, batch: Tensor) -> None:
    picture = batch[:1].clone().requires_grad_()
    optimizer = torch.optim.Adam([picture], 0.02)
    losses = []
    for _ in range(12):
        torch.manual_seed(0)
        loss = torch.stack(list(recognizer.loss(picture, targets()[:1]).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.8 * losses[0]


def test_targets_without_extent_are_left_out(recognizer: Detectron2FasterRCNN, batch: Tensor) -> None:
    flat = Detections(torch.tensor([[5.0, 5.0, 5.0, 30.0]]), torch.tensor([1]), torch.ones(1))
    values = []
    for labels in ([flat, Detections.empty()], [Detections.empty()] * 2):
        torch.manual_seed(0)
        values.append(torch.stack(list(recognizer.loss(batch, labels).values())))
    assert torch.equal(*values)


def test_features_are_p2_to_p5(recognizer: Detectron2FasterRCNN, batch: Tensor) -> None:
    batch.requires_grad_()
    levels = recognizer.features(batch)  # on 128×160
    assert [tuple(level.shape) for level in levels] == [
        (2, 16, 32, 40),
        (2, 16, 16, 20),
        (2, 16, 8, 10),
        (2, 16, 4, 5),
    ]
    sum(level.square().mean() for level in levels).backward()  # type: ignore[union-attr]
    assert batch.grad is not None and batch.grad.abs().sum() > 0


def test_crops_keep_the_scale_of_their_picture(batch: Tensor) -> None:
    crops = make(crop_scale=4 / 3)
    # 96×120 is scaled to 128×160; so a crop of half its sides must be scaled to 64×80, on a canvas of 64×96.
    crop = batch[:, :, :48, :60]
    assert crops.features(crop)[0].shape[2:] == (16, 24)
    whole = make()
    for one, other in zip(whole.predict(batch), crops.predict(batch), strict=True):
        assert torch.equal(one.boxes, other.boxes)
    # Labels of a crop are those of a detector that scales whole pictures of its size so.
    doubling = make(shortest_edge=64)
    for one, other in zip(doubling.predict(crop), crops._find(crop, crops=True), strict=True):
        assert len(one) > 0
        torch.testing.assert_close(one.boxes, other.boxes)
    assert not torch.equal(crops.predict(crop)[0].boxes, crops._find(crop, crops=True)[0].boxes)
    values = []
    for recognizer in (whole, crops):
        torch.manual_seed(0)
        values.append(torch.stack(list(recognizer.loss(batch, targets()).values())))
    torch.testing.assert_close(*values)
    with pytest.raises(RecognizerError, match="crop scale of 0"):
        make(crop_scale=0.0)


def test_stays_in_inference_mode_whatever_is_done_to_it() -> None:
    recognizer = make()
    nn.ModuleList([recognizer]).train()
    assert not any(module.training for module in recognizer.modules())
    assert not any(parameter.requires_grad for parameter in recognizer.parameters())


def test_fingerprint_follows_weights_and_settings() -> None:
    prints = {make().fingerprint}
    assert make().fingerprint in prints
    for settings in (
        {"pseudo_label_threshold": 0.4},
        {"shortest_edge": 96},
        {"longest_edge": 300},
        {"crop_scale": 2.0},
    ):
        prints.add(make(**settings).fingerprint)
    prints.add(Detectron2FasterRCNN(random_model(SMALL, seed=1), "small").fingerprint)
    assert len(prints) == 6


def test_categories_are_cocos_for_80_classes() -> None:
    architecture = Architecture((1, 1, 1, 1), 8, 2, 4, 16, 16, 16)
    assert Detectron2FasterRCNN(random_model(architecture), "x").categories == COCO_CATEGORIES
    with pytest.raises(RecognizerError, match="x has 80 classes, 1 categories"):
        Detectron2FasterRCNN(random_model(architecture), "x", [Category(1, "one")])
    with pytest.raises(RecognizerError, match=r"threshold of 1.5"):
        make(pseudo_label_threshold=1.5)


@pytest.mark.slow
def test_x101_of_random_weights_gives_finite_losses_and_detections() -> None:
    recognizer = Detectron2FasterRCNN(random_model(), "random", shortest_edge=160)
    picture = torch.rand(1, 3, 120, 160, requires_grad=True)
    found = recognizer.pseudo_labels(picture.detach())
    assert len(found[0]) > 0 and torch.isfinite(found[0].boxes).all()
    sum(recognizer.loss(picture, found).values()).backward()  # type: ignore[union-attr]
    assert picture.grad is not None and torch.isfinite(picture.grad).all() and picture.grad.any()


def test_divergence_is_held_on_the_references_proposals(
    recognizer: Detectron2FasterRCNN, batch: Tensor
) -> None:
    assert isinstance(recognizer, SoftHeadedRecognizer)
    same = recognizer.divergence(batch, batch)
    assert set(same) == {"objectness", "rpn_box", "classes", "box"}
    assert all(float(value) == pytest.approx(0, abs=1e-4) for value in same.values())
    other = batch.flip(3).requires_grad_()
    terms = recognizer.divergence(other, batch)
    torch.stack(list(terms.values())).sum().backward()
    assert other.grad is not None and all((gradient != 0).any() for gradient in other.grad)
    assert all(parameter.grad is None for parameter in recognizer.parameters())

    # The oracle: the model's own proposals, and torch's divergences of distributions.
    size = recognizer._training_size(batch[0])
    with torch.no_grad():
        levels = [recognizer.model.backbone(recognizer._canvas(list(x), size)) for x in (batch, other)]
        seen = [recognizer.model.propose(few) for few in levels]
        proposals = seen[0].proposals([size] * 2, TEST_TOP_K)
        heads = [recognizer.model.classify(few, proposals) for few in levels]
    wanted, found = (Bernoulli(logits=torch.cat(one.logits, dim=1)) for one in seen)
    expected = kl_divergence(wanted, found).sum() / wanted.probs.sum().clamp(min=1)
    torch.testing.assert_close(terms["objectness"].detach(), expected, rtol=1e-3, atol=1e-4)
    sure, guess = (Categorical(logits=logits) for logits, _ in heads)
    objects = sure.probs[:, :-1]
    count = objects.sum().clamp(min=1)
    expected = kl_divergence(sure, guess).sum() / count
    torch.testing.assert_close(terms["classes"].detach(), expected, rtol=1e-3, atol=1e-4)
    apart = nn.functional.smooth_l1_loss(heads[1][1], heads[0][1], reduction="none")
    expected = (objects[..., None] * apart).sum() / count
    torch.testing.assert_close(terms["box"].detach(), expected, rtol=1e-3, atol=1e-4)


def test_divergence_of_its_own_layers_is_divergence(recognizer: Detectron2FasterRCNN, batch: Tensor) -> None:
    other = batch.flip(2)
    with torch.no_grad():
        layers = recognizer.features(other), recognizer.features(batch)
        apart = recognizer.divergence_of_features(other, *layers)
        for name, value in recognizer.divergence(other, batch).items():
            torch.testing.assert_close(apart[name], value)
