"""What every step of a training takes from its settings: noise, α, learning rates, the largest gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from taskpress.coding.codec import Codec
from taskpress.recognition.named import load_recognizer
from taskpress.training.data import StepStream, open_sources
from taskpress.training.module import CodecTraining, layer_shapes
from taskpress.training.presets import load_preset
from taskpress.training.teacher import Teacher
from taskpress.training.trainer import build_trainer

SETTINGS = ["codec.channels=8", "data.patch=64", "optimizer.auxiliary_learning_rate=0.003"]
SETTINGS += ["arms={aux: {alpha: 0.5, alpha_schedule: cosine}}", "trainer.log_every=1000", "start=null"]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> CodecTraining:
    (config,) = load_preset("quick", SETTINGS).runs()
    codec = Codec.create("cheng2020-attention", 8, seed=1)
    monkeypatch.setattr(CodecTraining, "global_step", 0)
    return CodecTraining(config, 100, codec, load_recognizer("scenes"))


def batch_of(module: CodecTraining):
    teacher = Teacher(load_recognizer("scenes"))
    return StepStream(open_sources(["scenes:1"]), module.config.data, 1, [teacher]).batch(0)


def test_noise_is_a_steps_own_and_always_the_same(
    module: CodecTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, latents = batch_of(module), []
    for step in (0, 1, 0):
        monkeypatch.setattr(CodecTraining, "global_step", step)
        with torch.no_grad():
            latents.append(module._judge(batch, None)[1].latent)
    assert torch.equal(latents[0], latents[2])
    noise = (latents[1] - latents[0]).abs()
    assert 0.2 < noise.mean() < 0.5, "two uniform draws are a third apart on average"


def test_alpha_falls_by_its_schedule(module: CodecTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, found = batch_of(module), []
    for step in (0, 50, 100):
        monkeypatch.setattr(CodecTraining, "global_step", step)
        module.training_step(batch, step)
        found.append(module.objective.alpha)
    assert found == pytest.approx([0.5, 0.25, 0.0])


def test_codec_and_branch_learn_at_their_own_rates(module: CodecTraining) -> None:
    settings = module.config.optimizer
    own, branch = module.configure_optimizers()["optimizer"].param_groups
    assert own["initial_lr"] == settings.learning_rate and branch["initial_lr"] == 0.003
    assert {id(p) for p in branch["params"]} == {id(p) for p in module.branches["0"].parameters()}
    assert {id(p) for p in own["params"]} == {id(p) for p in module.codec.model.parameters()}


def test_gradients_are_clipped_as_configured(module: CodecTraining) -> None:
    for clip in (0.5, None):
        assert build_trainer(module.config.trainer, clip).gradient_clip_val == clip
    optimizer_config = module.config.optimizer.model_copy(update={"clip_apart": True})
    module.config = module.config.model_copy(update={"optimizer": optimizer_config})
    optimizer = module.configure_optimizers()["optimizer"]
    codec, branch = (group["params"] for group in optimizer.param_groups)
    for parameters, norm in ((codec, 0.25), (branch, 1e6)):
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        size = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
        torch._foreach_mul_([parameter.grad for parameter in parameters], float(norm / size))
    module.configure_gradient_clipping(optimizer, None)
    module.configure_gradient_clipping(optimizer, 0.5)
    norms = [torch.nn.utils.get_total_norm([p.grad for p in parameters]) for parameters in (codec, branch)]
    assert [norm.item() for norm in norms] == pytest.approx([0.25, 0.5], rel=1e-4)


def test_layers_are_probed_where_the_last_training_moved_the_recognizer() -> None:
    """Recognizers are opened once for all trainings of an experiment, and stay on the device of the first.
    `meta` stands for a GPU: it takes no tensor of the CPU either."""

    class OneLayer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 5, 4, stride=4)

        def features(self, images):
            return [self.layer(torch.stack(list(images)))]

    recognizer: Any = OneLayer()
    assert layer_shapes(recognizer, 64) == [(5, 16)]
    assert layer_shapes(recognizer.to("meta"), 64) == [(5, 16)]
