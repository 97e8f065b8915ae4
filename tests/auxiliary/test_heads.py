"""The heads branch in front of a small Faster R-CNN and of heads that are known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from taskpress.auxiliary.branch import Lesson
from taskpress.auxiliary.heads import HeadsBranch
from taskpress.auxiliary.named import build_auxiliary
from taskpress.detections import Detections
from taskpress.errors import ConfigError
from taskpress.recognition.faster_rcnn import load_scenes_recognizer
from taskpress.training.module import heads_of


def sizes(layers: Sequence[Tensor], lesson: Lesson) -> dict[str, Tensor]:
    """Heads that say how far every layer is from 1."""
    assert len(lesson.images) == len(lesson.labels) == len(layers[0])
    return {str(place): (layer - 1).square().mean() for place, layer in enumerate(layers)}


def seen(layers: Sequence[Tensor]) -> Lesson:
    count = len(layers[0])
    return Lesson(torch.zeros(count, 3, 64, 96), layers, [Detections.empty()] * count)


def test_maps_have_the_layers_sizes_and_a_power_of_two_of_sub_pixels() -> None:
    branch = HeadsBranch(8, [5, 7, 6, 2], [2, 1, 0.5, 3.2], sizes, width=16)
    output = branch(torch.randn(2, 8, 4, 6))
    assert [tuple(map.shape) for map in output.values()] == [
        (2, 5, 8, 12),
        (2, 7, 4, 6),
        (2, 6, 4, 6),
        (2, 2, 16, 24),
    ]
    layers = [torch.rand(2, *size) for size in [(5, 8, 12), (7, 4, 6), (6, 2, 3), (2, 13, 19)]]
    perfect = {str(place): layer for place, layer in enumerate(layers)}
    terms = branch.loss(perfect, seen(layers))
    assert terms.pop("features").item() == pytest.approx(0, abs=1e-12)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {str(place): (layer - 1).square().mean().item() for place, layer in enumerate(layers)}
    )


def test_a_coarser_layer_is_met_by_averages_and_a_finer_one_by_interpolation() -> None:
    branch = HeadsBranch(8, [1, 1], [0.5, 1.5], sizes, width=16)
    rows = torch.arange(8.0).expand(1, 1, 6, 8)
    halves, wider = torch.tensor([0.5, 2.5, 4.5, 6.5]), torch.arange(12) * 2 / 3 - 1 / 6
    layers = [halves.expand(1, 1, 3, 4), wider.clamp(0, 7).expand(1, 1, 9, 12)]
    assert branch.loss({"0": rows, "1": rows}, seen(layers))["features"].item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("task", "part"), [("outputs", "loss_classifier"), ("soft", "classes")])
def test_the_frozen_heads_reach_the_latent_and_stay_as_they_are(task: str, part: str) -> None:
    recognizer = load_scenes_recognizer()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[4.0, 6.0, 40.0, 50.0]])
    labels = [Detections(boxes, torch.tensor([3]), torch.ones(1)), Detections.empty()]
    layers = recognizer.features(list(images))
    branch = HeadsBranch(8, [64] * 3, [2, 1, 0.5], heads_of(recognizer, task), width=16)
    before = {key: value.clone() for key, value in recognizer.state_dict().items()}
    of_recognizer = set(map(id, recognizer.parameters()))
    assert not of_recognizer & set(map(id, branch.parameters()))
    latent = torch.randn(2, 8, 4, 4, requires_grad=True)
    torch.manual_seed(0)
    terms = branch.loss(branch(latent), Lesson(images, layers, labels))
    terms[part].backward()
    assert latent.grad is not None and latent.grad.isfinite().all() and latent.grad[0].abs().sum() > 0
    assert all(parameter.grad is None for parameter in recognizer.parameters())
    assert all(torch.equal(value, before[key]) for key, value in recognizer.state_dict().items())


def test_it_needs_heads() -> None:
    with pytest.raises(ConfigError, match="heads of a recognizer"):
        build_auxiliary("heads", 8, 5)
