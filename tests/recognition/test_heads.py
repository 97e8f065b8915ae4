"""A recognizer's loss as a function of its layers."""

from __future__ import annotations

import torch

from taskpress.detections import Detections
from taskpress.recognition.faster_rcnn import load_scenes_recognizer
from taskpress.recognition.protocol import HeadedRecognizer


def test_heads_on_their_own_layers_give_the_loss() -> None:
    recognizer = load_scenes_recognizer()
    batch = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(5))
    boxes = torch.tensor([[10.0, 12.0, 60.0, 70.0], [64.0, 64.0, 120.0, 110.0]])
    targets = [Detections(boxes, torch.tensor([0, 3]), torch.ones(2)), Detections.empty()]
    assert isinstance(recognizer, HeadedRecognizer)
    layers = [level.requires_grad_() for level in recognizer.features(batch)]
    torch.manual_seed(0)
    expected = recognizer.loss(batch, targets)
    torch.manual_seed(0)
    found = recognizer.loss_of_features(batch, layers, targets)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    gradients = torch.autograd.grad(sum(found.values()), layers)  # type: ignore[arg-type]
    assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)
    assert not any(module.training for module in recognizer.modules())
