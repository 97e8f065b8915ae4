"""Branches for tasks other than boxes: their targets by brute force, their losses at known points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from taskpress.auxiliary.branch import branch_cost
from taskpress.auxiliary.instance import mask_shares
from taskpress.auxiliary.named import FITTING, build_auxiliary
from taskpress.auxiliary.segmentation import class_shares
from taskpress.coding.codec import Codec
from taskpress.detections import Instances
from taskpress.errors import ConfigError
from taskpress.targets import UNCOUNTED, ClassScores, SemanticMap, Target, Task

K, STRIDE = 4, 16


def semantic(seed: int, height: int = 64, width: int = 96) -> SemanticMap:
    """Blocks of classes, some not counted."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, K + 1, (-(-height // 7), -(-width // 7))).astype(np.uint8)
    blocks[blocks == K] = UNCOUNTED
    return SemanticMap(torch.from_numpy(np.kron(blocks, np.ones((7, 7), np.uint8))[:height, :width].copy()))


def instances(seed: int, height: int = 64, width: int = 96) -> Instances:
    rng = np.random.default_rng(seed)
    masks = np.zeros((3, height, width), bool)
    boxes = np.zeros((3, 4), np.float32)
    for mask, box in zip(masks, boxes, strict=True):
        y, x = rng.integers(0, height - 20), rng.integers(0, width - 20)
        mask[y : y + 20, x : x + 20] = np.tri(20, dtype=bool)
        box[:] = x, y, x + 20, y + 20
    labels = torch.from_numpy(rng.integers(0, K, 3))
    return Instances(torch.from_numpy(boxes), labels, torch.ones(3), torch.from_numpy(masks))


def probabilities(seed: int) -> ClassScores:
    return ClassScores(torch.randn(K, generator=torch.Generator().manual_seed(seed)).softmax(0))


TARGETS = {
    "segmentation": (Task.SEGMENTATION, semantic),
    "classification": (Task.CLASSIFICATION, probabilities),
    "instance": (Task.INSTANCE_SEGMENTATION, instances),
}


@pytest.mark.parametrize("size", [(64, 96), (60, 90), (100, 128)])
def test_shares_count_every_pixel_once(size: tuple[int, int]) -> None:
    """Oracle: a loop over the pixels. Maps may end within a cell, or reach beyond the latent."""
    labels, objects = semantic(1, *size).labels, instances(2, *size)
    counts, covered = torch.zeros(K, 4, 6), torch.zeros(K, 4, 6)
    for y in range(min(size[0], 64)):
        for x in range(min(size[1], 96)):
            if labels[y, x] != UNCOUNTED:
                counts[int(labels[y, x]), y // STRIDE, x // STRIDE] += 1
            for label in {int(k) for k, m in zip(objects.labels, objects.masks, strict=True) if m[y, x]}:
                covered[label, y // STRIDE, x // STRIDE] += 1 / STRIDE**2
    assert torch.equal(class_shares(labels, K, 4, 6, STRIDE), counts)
    assert torch.allclose(mask_shares(objects, K, 4, 6, STRIDE), covered, atol=1e-6)


@pytest.mark.parametrize("kind", TARGETS)
def test_loss_reaches_every_latent_and_the_seed_decides(kind: str) -> None:
    task, make = TARGETS[kind]

    def run() -> tuple[Tensor, Tensor]:
        torch.manual_seed(3)
        branch = build_auxiliary(kind, latent_channels=8, classes=K, width=16, task=task)
        latent = torch.randn(2, 8, 4, 6, requires_grad=True)
        terms = branch.loss(branch(latent), [make(0), make(1)])
        assert all(value.ndim == 0 and value.isfinite() and value >= 0 for value in terms.values())
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        assert latent.grad is not None
        return total.detach(), latent.grad

    (loss, gradient), (again, _) = run(), run()
    assert torch.equal(loss, again)
    assert gradient.isfinite().all() and (gradient.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_losses_of_known_predictions() -> None:
    segmentation = build_auxiliary("segmentation", 8, K, width=8)
    target = semantic(4)
    pixels = class_shares(target.labels, K, 4, 6, STRIDE)
    shares = pixels / pixels.sum(0).clamp(min=1)
    entropy = -(pixels * shares.clamp(min=1e-9).log()).sum() / pixels.sum()
    best = segmentation.loss({"classes": shares.clamp(min=1e-9).log()[None]}, [target])["classes"]
    even = segmentation.loss({"classes": torch.zeros(1, K, 4, 6)}, [target])["classes"]
    assert best.item() == pytest.approx(entropy.item(), rel=1e-4)
    assert even.item() == pytest.approx(np.log(K), rel=1e-5)
    nothing = SemanticMap(torch.full((64, 96), UNCOUNTED, dtype=torch.uint8))
    assert segmentation.loss({"classes": torch.randn(1, K, 4, 6)}, [nothing])["classes"] == 0

    classification = build_auxiliary("classification", 8, K, width=8)
    wanted = probabilities(1)
    logits = wanted.probabilities.log().reshape(1, K, 1, 1)
    assert classification.loss({"classes": logits}, [wanted])["classes"].item() == pytest.approx(0, abs=1e-6)
    one = ClassScores.of_class(2, K)
    even = classification.loss({"classes": torch.zeros(1, K, 1, 1)}, [one])["classes"]
    assert even.item() == pytest.approx(np.log(K))


@pytest.mark.parametrize("channels", [32, 128])
@pytest.mark.parametrize(
    ("kind", "classes"), [("segmentation", 21), ("classification", 100), ("instance", 80)]
)
def test_branch_is_light_beside_the_encoder(kind: str, classes: int, channels: int) -> None:
    codec = Codec.create("cheng2020-attention", channels, seed=0)
    encoder = codec.encoder_cost()
    cost = branch_cost(build_auxiliary(kind, codec.latent_channels, classes), codec.latent_channels)
    assert cost.parameters < 0.15 * encoder.parameters
    assert cost.macs_per_pixel < 0.15 * encoder.macs_per_pixel


def test_a_branch_must_fit_the_teacher() -> None:
    for kind, tasks in FITTING.items():
        for task in Task:
            if task in tasks:
                build_auxiliary(kind, 8, K, task=task, heads=lambda *_: {})
            else:
                with pytest.raises(ConfigError, match=rf"`{kind}` branch learns nothing from .* {task}"):
                    build_auxiliary(kind, 8, K, task=task)


def disc(generator: torch.Generator, kind: str) -> tuple[Tensor, Target]:
    """A latent that shows where and of which class an object is, and what a teacher would say."""
    label = int(torch.randint(0, K, (1,), generator=generator))
    row, column = (int(v) for v in torch.randint(0, 3, (2,), generator=generator))
    latent = 0.3 * torch.randn(K, 4, 4, generator=generator)
    latent[label, row : row + 2, column : column + 2] += 2
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[row * 16 : row * 16 + 32, column * 16 : column * 16 + 32] = True
    box = torch.tensor([[column, row, column + 2, row + 2]]) * 16.0
    targets: dict[str, Target] = {
        "segmentation": SemanticMap((mask * label).to(torch.uint8)),
        "classification": ClassScores.of_class(label, K),
        "instance": Instances(box, torch.tensor([label]), torch.ones(1), mask[None]),
    }
    return latent, targets[kind]


@pytest.mark.parametrize("kind", TARGETS)
def test_a_branch_learns_what_the_latent_holds(kind: str) -> None:
    torch.manual_seed(0)
    branch = build_auxiliary(kind, latent_channels=K, classes=K, width=16)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(branch.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        latents, targets = zip(*(disc(generator, kind) for _ in range(4)), strict=True)
        loss = torch.stack(list(branch.loss(branch(torch.stack(latents)), targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
