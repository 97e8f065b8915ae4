from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from taskpress.auxiliary.branch import PRIOR, AuxiliaryBranch, branch_cost
from taskpress.auxiliary.detection import DetectionBranch
from taskpress.auxiliary.features import FeaturesBranch
from taskpress.auxiliary.foreground import ForegroundBranch
from taskpress.auxiliary.named import build_auxiliary
from taskpress.auxiliary.objectness import ObjectnessBranch
from taskpress.boxes import coverage
from taskpress.coding.codec import Codec
from taskpress.detections import Detections
from taskpress.errors import ConfigError

STRIDE = 16
KINDS = ("detection", "objectness", "foreground")
"""Branches that learn from boxes."""


def detections(boxes: list[list[float]], labels: list[int]) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.ones(len(labels)),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_maps_have_the_latents_resolution(kind: str) -> None:
    branch = build_auxiliary(kind, latent_channels=8, classes=5, width=16)
    output = branch(torch.randn(2, 8, 6, 9))
    channels = {
        "detection": {"classes": 5, "box": 4},
        "objectness": {"objectness": 1},
        "foreground": {"foreground": 1},
    }
    assert {name: tuple(value.shape) for name, value in output.items()} == {
        name: (2, count, 6, 9) for name, count in channels[kind].items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_loss_reaches_the_latent_with_and_without_objects(kind: str) -> None:
    branch = build_auxiliary(kind, latent_channels=8, classes=5, width=16)
    some = detections([[5, 5, 60, 40], [70, 30, 74, 33]], [4, 0])
    for targets in ([some, Detections.empty()], [Detections.empty(), Detections.empty()]):
        latent = torch.randn(2, 8, 4, 6, requires_grad=True)
        terms = branch.loss(branch(latent), targets)
        assert all(value.ndim == 0 and value.isfinite() and value >= 0 for value in terms.values())
        sum(terms.values()).backward()  # type: ignore[union-attr]
        assert latent.grad is not None
        assert latent.grad.isfinite().all()
        assert (latent.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_everything(kind: str) -> None:
    def run() -> Tensor:
        torch.manual_seed(7)
        branch = build_auxiliary(kind, latent_channels=4, classes=3, width=8)
        return torch.stack(
            list(branch.loss(branch(torch.randn(1, 4, 4, 4)), [detections([[3, 3, 40, 50]], [1])]).values())
        )

    assert torch.equal(run(), run())


def test_unknown_kind_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'detections'; did you mean detection"):
        build_auxiliary("detections", 8, 5)
    with pytest.raises(ConfigError, match="known: detection, objectness, foreground"):
        build_auxiliary("zzz", 8, 5)


@pytest.mark.parametrize("width", [8, 12, 30, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_cost_is_that_of_the_layers_counted_by_hand(kind: str, width: int) -> None:
    M, K = 32, 80
    stem = 9 * M * width
    tower = 9 * width + width * width
    heads = {"detection": [K, 4], "objectness": [1], "foreground": [1]}[kind]
    towers = 5 + len(heads)
    weights = stem + towers * tower + width * sum(heads)
    norms = 2 * width * (1 + towers)
    cost = branch_cost(build_auxiliary(kind, M, K, width=width), M)
    assert cost.parameters == weights + norms + sum(heads)
    assert cost.macs_per_pixel == weights / STRIDE**2


@pytest.mark.parametrize("channels", [32, 48, 128])
@pytest.mark.parametrize("kind", KINDS)
def test_branch_is_light_beside_the_encoder(kind: str, channels: int) -> None:
    codec = Codec.create("cheng2020-attention", channels, seed=0)
    encoder = codec.encoder_cost()
    cost = branch_cost(build_auxiliary(kind, codec.latent_channels, 80), codec.latent_channels)
    assert cost.parameters < 0.15 * encoder.parameters
    assert cost.macs_per_pixel < 0.15 * encoder.macs_per_pixel


def raw_box(box: list[float], row: int, column: int) -> Tensor:
    x0, y0, x1, y1 = (side / STRIDE for side in box)
    middle = [(x0 + x1) / 2 - column - 0.5, (y0 + y1) / 2 - row - 0.5]
    return torch.tensor([*middle, math.log(x1 - x0), math.log(y1 - y0)])


def test_the_truth_costs_nothing_and_is_found() -> None:
    branch = DetectionBranch(latent_channels=8, classes=3, width=8)
    target = detections([[17, 18, 30, 31], [0, 32, 80, 64]], [2, 0])
    output = {"classes": torch.full((1, 3, 4, 5), -20.0), "box": torch.zeros(1, 4, 4, 5)}
    # The small one lies in cell (1, 1); the wide one's middle is (40, 48).
    cells = {(1, 1): 0} | {(row, column): 1 for row in (2, 3) for column in (1, 2, 3)}
    for (row, column), index in cells.items():
        output["classes"][0, int(target.labels[index]), row, column] = 20.0
        output["box"][0, :, row, column] = raw_box(target.boxes[index].tolist(), row, column)
    terms = branch.loss(output, [target])
    assert float(terms["classes"]) == pytest.approx(0, abs=1e-6)
    assert float(terms["box"]) == pytest.approx(0, abs=1e-5)
    (found,) = branch.predict(output)
    order = found.labels.argsort(descending=True)
    torch.testing.assert_close(found.boxes[order], target.boxes, atol=1e-3, rtol=1e-4)
    assert found.labels[order].tolist() == [2, 0]


def test_focal_loss_of_an_untrained_head_is_the_closed_form() -> None:
    branch = DetectionBranch(latent_channels=8, classes=3, width=8)
    torch.nn.init.zeros_(branch.classes.weight)
    target = detections([[17, 18, 30, 31]], [2])
    terms = branch.loss(branch(torch.randn(1, 8, 4, 5)), [target])
    negative = 0.75 * PRIOR**2 * -math.log(1 - PRIOR)
    positive = 0.25 * (1 - PRIOR) ** 2 * -math.log(PRIOR)
    assert float(terms["classes"].detach()) == pytest.approx((3 * 4 * 5 - 1) * negative + positive, rel=1e-4)


def test_objectness_counts_the_detection_branchs_cells_whatever_the_class() -> None:
    branch = ObjectnessBranch(latent_channels=8, width=8)
    logits = torch.full((1, 1, 4, 5), -20.0)
    logits[0, 0, 1, 1] = 20.0
    for label in (0, 7):
        terms = branch.loss({"objectness": logits}, [detections([[17, 18, 30, 31]], [label])])
        assert float(terms["objectness"]) == pytest.approx(0, abs=1e-6)


def test_foreground_is_best_where_it_states_the_share() -> None:
    branch = ForegroundBranch(latent_channels=8, width=8)
    target = detections([[8, 0, 40, 16], [0, 20, 16, 64]], [0, 1])
    shares = coverage(target.boxes, 4, 5, STRIDE).clamp(1e-6, 1 - 1e-6)[None, None]
    best = branch.loss({"foreground": shares.logit()}, [target])["foreground"]
    entropy = -(shares * shares.log() + (1 - shares) * (1 - shares).log()).mean()
    torch.testing.assert_close(best, entropy, atol=1e-5, rtol=1e-4)
    for shift in (-0.5, 0.5):
        assert branch.loss({"foreground": shares.logit() + shift}, [target])["foreground"] > best


def scene(generator: torch.Generator, classes: int = 3) -> tuple[Tensor, Detections]:
    """A latent of 8×8 cells that carries two objects: by class a channel that marks the covered share."""
    corners = torch.randint(0, 5, (2, 2), generator=generator) * 16.0
    sides = torch.randint(1, 4, (2, 2), generator=generator) * 16.0
    boxes = torch.cat([corners, (corners + sides).clamp(max=128)], dim=1)
    labels = torch.randint(0, classes, (2,), generator=generator)
    latent = 0.1 * torch.randn(classes + 1, 8, 8, generator=generator)
    for box, label in zip(boxes, labels, strict=True):
        latent[label] += coverage(box[None], 8, 8, STRIDE)
    return latent, Detections(boxes, labels, torch.ones(2))


def train(branch: AuxiliaryBranch, steps: int) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(branch.parameters(), lr=5e-3)
    losses = []
    for _ in range(steps):
        latents, targets = zip(*(scene(generator) for _ in range(4)), strict=True)
        loss = torch.stack(list(branch.loss(branch(torch.stack(latents)), targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", ["objectness", "foreground"])
def test_a_branch_learns_what_the_latent_holds(kind: str) -> None:
    torch.manual_seed(0)
    losses = train(build_auxiliary(kind, latent_channels=4, classes=3, width=16), 60)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_trained_detection_finds_unseen_objects() -> None:
    torch.manual_seed(0)
    branch = DetectionBranch(latent_channels=4, classes=3, width=16)
    losses = train(branch, 150)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    generator = torch.Generator().manual_seed(99)
    hits = total = 0
    for _ in range(20):
        latent, target = scene(generator)
        (found,) = branch.predict(branch(latent[None]), threshold=0.2)
        for box, label in zip(target.boxes, target.labels, strict=True):
            same = found.boxes[found.labels == label]
            total += 1
            hits += bool(len(same)) and bool(box_iou(box[None], same).max() > 0.5)
    assert hits / total > 0.6


def test_a_features_branch_meets_finer_and_coarser_layers_at_the_coarser_side() -> None:
    branch = FeaturesBranch(8, [5, 7, 6], width=16)
    output = branch(torch.randn(2, 8, 4, 6))
    assert [tuple(map.shape) for map in output.values()] == [(2, c, 4, 6) for c in (5, 7, 6)]
    perfect = {name: torch.randn_like(map) for name, map in output.items()}
    layers = [
        perfect["0"].repeat_interleave(4, 2).repeat_interleave(4, 3),
        perfect["1"],
        perfect["2"].unflatten(2, (2, 2)).unflatten(4, (3, 2)).mean((3, 5)),
    ]
    assert branch.loss(perfect, layers)["features"].item() == pytest.approx(0, abs=1e-12)
    nothing = {name: torch.zeros_like(map) for name, map in output.items()}
    assert branch.loss(nothing, layers)["features"].item() == pytest.approx(1)
