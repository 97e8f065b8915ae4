"""Allocators in training: their terms by hand, a policy that finds the best, arms that learn and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from taskpress.coding.allocation import AllocatorSettings, Decision
from taskpress.coding.codec import Codec
from taskpress.coding.estimate import Estimate
from taskpress.coding.semantic_allocator import draw, neutral_logits
from taskpress.detections import Detections
from taskpress.errors import ConfigError
from taskpress.recognition.named import load_recognizer
from taskpress.training import run
from taskpress.training.allocation import (
    cell_classes,
    give_allocator,
    policy_loss,
    rewards,
    roi_weighted_mse,
    teaching_terms,
)
from taskpress.training.config import Preset
from taskpress.training.data import Batch, StepStream, open_sources
from taskpress.training.module import CodecTraining
from taskpress.training.objective import Objective
from taskpress.training.objective_config import ObjectiveConfig
from taskpress.training.presets import load_preset
from taskpress.training.teacher import Teacher

from .conftest import power_cut

STEPS = 4
ARMS = {
    "task": {},
    "roi": {"allocation": "roi", "mse": 0.001, "roi_weight": 4.0},
    "semantic": {"allocation": "semantic"},
}


def preset(**changes: Any) -> Preset:
    return Preset.model_validate(
        {
            "name": "tiny",
            "recognizer": "scenes",
            "codec": {"channels": 8},
            "data": {"sources": ["scenes:4"], "patch": 64},
            "objective": {"task": "features", "allocation_width": 8, "quantization": "rounded"},
            "optimizer": {"steps": STEPS, "learning_rate": 1e-3, "auxiliary_learning_rate": 5e-3},
            "lambdas": [0.5],
            "arms": ARMS,
            "trainer": {"accelerator": "cpu", "checkpoint_every": 2, "log_every": 1},
            **changes,
        }
    )


def detections(boxes: list[list[float]], labels: list[int]) -> Detections:
    return Detections(torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels), torch.ones(len(labels)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run.train_experiment(preset(), folder)
    return folder


def test_cells_are_of_the_smallest_object_that_holds_their_centre() -> None:
    label = detections([[0, 0, 48, 32], [16, 0, 32, 32], [50, 50, 53, 53]], [0, 1, 2])
    found = cell_classes(label, 4, 4, 16, background=9)
    assert found.tolist() == [[0, 1, 0, 9], [0, 1, 0, 9], [9, 9, 9, 9], [9, 9, 9, 2]]
    assert (cell_classes(Detections.empty(), 2, 3, 16, 9) == 9).all()


def test_teaching_is_cross_entropy_against_the_teachers_boxes() -> None:
    labels = [detections([[0, 0, 24, 32]], [1]), Detections.empty()]
    levels, gain, bits = torch.zeros(2, 2, 2, dtype=torch.int64), torch.ones(2, 1, 2, 2), torch.zeros(2)
    logits = torch.randn(2, 1, 2, 2)
    chance = logits[:, 0].sigmoid()
    share = torch.tensor([[[1, 0.5], [1, 0.5]], [[0, 0], [0, 0]]])
    expected = -(share * chance.log() + (1 - share) * (1 - chance).log()).mean()
    terms = teaching_terms(Decision(levels, gain, bits, {"foreground": logits}), labels)
    torch.testing.assert_close(terms["foreground"], expected)
    classes = torch.randn(2, 3, 2, 2)
    # The centre of the right column's cells, x = 24, lies on the box's edge: inside, by the branches' rule.
    wanted = torch.tensor([[[1, 1], [1, 1]], [[2, 2], [2, 2]]])
    expected = -classes.log_softmax(1).gather(1, wanted[:, None]).mean()
    terms = teaching_terms(Decision(levels, gain, bits, {"classes": classes}), labels)
    torch.testing.assert_close(terms["classes"], expected)


def test_errors_inside_boxes_weigh_more() -> None:
    x, x_hat = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    x_hat[..., :4, :] = 0.5
    labels = [detections([[0, 0, 4, 4]], [0])]
    half = 0.25 * 0.5
    assert roi_weighted_mse(x_hat, x, labels, 1.0).item() == pytest.approx(half)
    assert roi_weighted_mse(x_hat, x, labels, 3.0).item() == pytest.approx(half * (1 + 3) / 2)
    config = ObjectiveConfig(task="none", mse=0.01, roi_weight=3.0)
    estimate = Estimate(x_hat, torch.zeros(1, 1, 1, 1), torch.tensor([0.4]), torch.ones(1, 1, 1))
    batch = Batch(x, [labels])
    terms = Objective(config, 0.5)(batch, estimate)
    assert terms["mse"].item() == pytest.approx(half)
    assert terms["loss"].item() == pytest.approx(0.5 * 0.01 * 255**2 * half * 2 + 0.4)


def test_a_pictures_reward_is_what_it_loses_by_equation_1() -> None:
    terms = {"loss": torch.tensor(2.5), "rate": torch.tensor(0.5)}
    rate = torch.tensor([0.25, 0.75])
    estimate = Estimate(torch.zeros(0), torch.zeros(0), rate, torch.zeros(0))
    assert rewards(terms, estimate).tolist() == [-2.25, -2.75]


def test_the_policy_gradient_is_that_of_the_expected_reward() -> None:
    """On a bandit whose expectation has a closed form; the baseline changes nothing on average."""
    levels, value = 4, torch.tensor([0.1, 0.9, 0.3, 0.0])
    logits = torch.randn(levels, requires_grad=True)
    expected = (logits.softmax(0) * value).sum()
    (exact,) = torch.autograd.grad(-expected, logits)
    draws = draw(logits.expand(200_000, levels), torch.Generator().manual_seed(0))
    for baseline in (0.0, 0.5):
        log_prob = logits.log_softmax(0)[draws]
        loss = policy_loss(log_prob, value[draws], torch.full((len(draws),), baseline))
        (found,) = torch.autograd.grad(loss, logits)
        torch.testing.assert_close(found, exact, atol=5e-3, rtol=0)


def test_a_policy_finds_the_best_level_of_every_region() -> None:
    """Three kinds of regions, the best level of each another; rewards against the likeliest choice's."""
    best = torch.tensor([0, 4, 2])
    policy = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 5))
    nn.init.zeros_(policy[2].weight)
    policy[2].bias.data.copy_(neutral_logits(5))
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    kinds = torch.eye(3).expand(8, 3, 3)
    for _ in range(300):
        logits = policy(kinds)
        chosen, likeliest = draw(logits, generator), draw(logits, None)
        reward, baseline = (-(levels - best).abs().float().sum(1) for levels in (chosen, likeliest))
        log_prob = logits.log_softmax(2).gather(2, chosen[..., None])[..., 0].sum(1)
        optimizer.zero_grad()
        policy_loss(log_prob, reward, baseline).backward()
        optimizer.step()
    assert draw(policy(torch.eye(3)), None).tolist() == best.tolist()


@pytest.mark.parametrize("arm", list(ARMS))
def test_every_arm_lowers_its_loss(arm: str) -> None:
    config = preset().runs()[list(ARMS).index(arm)]
    recognizer = load_recognizer("scenes")
    codec = Codec.create("cheng2020-attention", 8, seed=1)
    give_allocator(codec, config, recognizer)
    module = CodecTraining(config, 100, codec, recognizer)
    stream = StepStream(open_sources(["scenes:1"]), config.data, 1, [Teacher(recognizer)])
    batch = stream.batch(0)
    optimizer = module.configure_optimizers()["optimizer"]
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]

    def losses() -> torch.Tensor:
        with torch.no_grad():
            terms, estimate = module._judge(batch, None)
        taught = teaching_terms(estimate.decision, batch.labels[0]) if estimate.decision else {}
        return torch.stack([terms["loss"], *taught.values()])

    before = losses()
    for _ in range(6):
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
    assert (losses() < before).all(), (before, losses())


@pytest.mark.parametrize("arm", ["roi", "semantic"])
def test_a_killed_run_ends_like_one_never_killed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    with power_cut(monkeypatch, at=3):
        run.train_experiment(preset(), tmp_path, only=[arm])
    (codec,) = run.train_experiment(preset(), tmp_path, only=[arm])
    whole = trained / "codecs" / f"tiny-{arm}-q1.safetensors"
    first, second = (Codec.load(path) for path in (whole, codec))
    assert first.fingerprint == second.fingerprint
    assert first.allocator is not None and first.allocator.settings.kind == arm
    fresh = Codec.create("cheng2020-attention", 8, seed=1)
    fresh.attach_allocator(first.allocator.settings, seed=1)
    assert fresh.allocator is not None
    before, after = fresh.allocator.state_dict(), first.allocator.state_dict()
    assert all(not torch.equal(value, after[name]) for name, value in before.items()), "all of it learnt"


def test_arms_without_allocation_have_no_allocator_and_all_begin_alike(trained: Path) -> None:
    codecs = {arm: Codec.load(trained / "codecs" / f"tiny-{arm}-q1.safetensors") for arm in ARMS}
    assert codecs["task"].allocator is None
    assert len({codec.card["begins_as"] for codec in codecs.values()}) == 1
    costs = {arm: codec.encoder_cost() for arm, codec in codecs.items()}
    assert costs["task"].parameters < min(costs["roi"].parameters, costs["semantic"].parameters)


def test_noise_is_that_of_the_other_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The semantic arm draws levels and estimates twice; the noise on its latent is still the step's."""
    latents = {}
    recognizer = load_recognizer("scenes")
    for config in preset().runs():
        codec = Codec.create("cheng2020-attention", 8, seed=1)
        give_allocator(codec, config, recognizer)
        module = CodecTraining(config, STEPS, codec, recognizer)
        batch = StepStream(open_sources(["scenes:1"]), config.data, 1, [Teacher(recognizer)]).batch(0)
        explore = torch.Generator().manual_seed(1) if config.arm == "semantic" else None
        if explore is not None:
            assert codec.allocator is not None
            nn.init.zeros_(codec.allocator.gains.log_gain)
        with torch.no_grad():
            latents[config.arm] = module._judge(batch, explore)[1].latent
    assert torch.equal(latents["task"], latents["roi"])
    assert torch.equal(latents["task"], latents["semantic"])


def test_an_initial_codec_keeps_its_allocator_and_no_other_is_put_over_it(tmp_path: Path) -> None:
    path = tmp_path / "roi.safetensors"
    codec = Codec.create("cheng2020-attention", 8, seed=2)
    codec.attach_allocator(AllocatorSettings("roi", 5, 8), seed=9)
    codec.save(path)
    changed = preset(codec={"channels": 8, "init": str(path)})
    task, roi, semantic = changed.runs()
    recognizer = load_recognizer("scenes")
    loaded = Codec.load(path)
    give_allocator(loaded, roi, recognizer)
    assert loaded.fingerprint == codec.fingerprint
    for config in (task, semantic):
        with pytest.raises(ConfigError, match="has the allocator"):
            give_allocator(Codec.load(path), config, recognizer)
    with pytest.raises(ConfigError, match="has the allocator"):
        run.train_experiment(changed, tmp_path / "run", only=["task"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("arms.roi.allocation_levels=4", "odd"),
        ("arms.roi.mse=0", "roi_weight weighs"),
        ("arms.roi.allocation=rio", "allocation"),
        ("arms.semantic.allocatoin=roi", "did you mean allocation"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_preset("scenes", [setting])


@pytest.mark.parametrize("name", ["scenes", "coco-yolox"])
def test_the_shipped_experiments_have_every_alternative(name: str) -> None:
    runs = [config for config in load_preset(name).runs() if config.arm != "start"]
    arms = {config.arm: config.objective for config in runs}
    assert list(arms) == ["task", "task+aux", "mse", "roi", "semantic"]
    assert arms["roi"].allocation == "roi" and arms["roi"].roi_weight > 1
    assert arms["semantic"].allocation == "semantic"
    assert arms["mse"].task == "none" and not arms["mse"].needs_labels
    assert len({str(config.optimizer) + str(config.data) + str(config.codec) for config in runs}) == 1
