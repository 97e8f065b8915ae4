"""Branches that learn alone first: what they learn, who shares it, and that all arms still see the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from taskpress.auxiliary.branch import AuxiliaryBranch
from taskpress.coding.allocation import AllocatorSettings
from taskpress.coding.codec import Codec
from taskpress.coding.hyperprior import Quantization
from taskpress.training import branch_first, run
from taskpress.training.config import Preset
from taskpress.training.data import Batch, StepStream, open_sources
from taskpress.training.module import CodecTraining
from taskpress.training.restore import restore
from taskpress.training.teacher import Teacher

FIRST = {"steps": 3, "batch": 2}
OPTIMIZER = {"steps": 2, "learning_rate": 1e-3, "auxiliary_learning_rate": 1e-2}


def preset(first: dict[str, int] | None = FIRST, **changes: Any) -> Preset:
    return Preset.model_validate(
        {
            "name": "tiny",
            "recognizer": "scenes",
            "codec": {"channels": 8},
            "data": {"sources": ["scenes:8"], "patch": 64},
            "objective": {"task": "features", "auxiliary_first": first},
            "optimizer": OPTIMIZER,
            "lambdas": [0.5, 1.0],
            "arms": {"task": {"alpha": 0.0}, "task+aux": {"alpha": 0.1}},
            "trainer": {"accelerator": "cpu", "checkpoint_every": 1, "log_every": 1},
            **changes,
        }
    )


class Seen:
    """What trainings began with: branch, codec, and the batches of the codec's steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: dict[str, list[torch.Tensor]] = {}
        self.branches: dict[str, dict[str, torch.Tensor]] = {}
        self.codecs: dict[str, str] = {}
        self.fits: list[str] = []
        step, fit = CodecTraining.training_step, branch_first.BranchTraining.training_step

        def watches(module: CodecTraining, batch: Batch, batch_idx: int) -> torch.Tensor:
            name = module.config.short_name
            if name not in self.batches and module.branches:
                self.branches[name] = {k: v.clone() for k, v in module.branches["0"].state_dict().items()}
            if name not in self.batches:
                self.codecs[name] = module.codec.fingerprint
            self.batches.setdefault(name, []).append(batch.images)
            return step(module, batch, batch_idx)

        def counts(module: branch_first.BranchTraining, batch: Batch, batch_idx: int) -> torch.Tensor:
            self.fits.append(module.config.short_name)
            assert len(batch.images) == FIRST["batch"]
            return fit(module, batch, batch_idx)

        monkeypatch.setattr(CodecTraining, "training_step", watches)
        monkeypatch.setattr(branch_first.BranchTraining, "training_step", counts)


def test_the_branch_alone_learns_and_arms_stay_comparable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    with monkeypatch.context() as patch:
        fresh = Seen(patch)
        run.train_experiment(preset(first=None), tmp_path / "fresh")
    assert not fresh.fits and not (tmp_path / "fresh" / "branches").exists()
    seen = Seen(monkeypatch)
    run.train_experiment(preset(), tmp_path / "taught")
    assert not [str(warning.message) for warning in recwarn if "val" in str(warning.message)]
    # One branch for both rates, which begin from one codec; none for the arm without auxiliary loss.
    assert seen.fits == ["aux-q1"] * FIRST["steps"]
    (learned,) = (tmp_path / "taught" / "branches").iterdir()
    taught = {key.removeprefix("0."): value for key, value in load_file(learned).items()}
    for name in ("aux-q1", "aux-q2"):
        assert all(torch.equal(value, taught[key]) for key, value in seen.branches[name].items())
        assert any(not torch.equal(v, fresh.branches[name][k]) for k, v in seen.branches[name].items())
    assert len(set(seen.codecs.values()) | set(fresh.codecs.values())) == 1
    for name in ("task-q1", "aux-q1", "aux-q2"):
        assert torch.equal(torch.stack(seen.batches[name]), torch.stack(fresh.batches["task-q1"]))


def test_a_killed_first_phase_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = preset(lambdas=[0.5], arms={"task+aux": {"alpha": 0.1}})
    run.train_experiment(one, tmp_path / "whole")
    step = branch_first.BranchTraining.training_step

    def dies(module: branch_first.BranchTraining, batch: Batch, batch_idx: int) -> torch.Tensor:
        if module.global_step == 2:
            raise RuntimeError("killed")
        return step(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(branch_first.BranchTraining, "training_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            run.train_experiment(one, tmp_path / "killed")
    seen = Seen(monkeypatch)
    run.train_experiment(one, tmp_path / "killed")
    assert len(seen.fits) == 1, "two of three steps were not repeated"
    whole, killed = (
        load_file(next((tmp_path / name / "branches").iterdir())) for name in ("whole", "killed")
    )
    assert all(torch.equal(whole[key], killed[key]) for key in whole)


def test_it_learns_on_the_latent_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec.create("cheng2020-attention", 8, seed=3)
    codec.attach_allocator(AllocatorSettings(kind="roi", levels=5, width=8))
    with torch.no_grad():
        torch.nn.init.normal_(codec.allocator.foreground.weight)
        torch.nn.init.normal_(codec.allocator.attention.excite.weight)
        codec.allocator.gains.log_gain += torch.linspace(-1, 1, 8)
    images = torch.rand(1, 3, 70, 64, generator=torch.Generator().manual_seed(1))
    for place in ("codec", "hyperprior", "entropy_models"):
        monkeypatch.setattr(f"taskpress.coding.{place}.add_noise", lambda x: x + 0.25)
    ways: tuple[Quantization, ...] = ("noise", "straight-through", "rounded")
    for quantization in ways:
        # Rounded around the very means of coding, where training takes those of noise or comes close.
        estimate = codec.train(quantization == "noise").estimate(images)
        assert estimate.decision is not None and estimate.decision.gain.std() > 0.1
        ours = codec.training_latent(images, quantization)
        torch.testing.assert_close(ours, estimate.latent.detach(), atol=1e-5, rtol=1e-5)
        assert not ours.requires_grad


def test_what_is_learned_is_what_the_teacher_sees(tmp_path: Path) -> None:
    """Held against its labels on the very crops, a branch that learned alone beats a fresh one by far."""
    one = preset({"steps": 60, "batch": 4}, lambdas=[0.5], arms={"task+aux": {"alpha": 0.1}})
    run.train_experiment(one, tmp_path, limit_steps=1)
    taught = restore(tmp_path / "aux-q1")
    fresh = CodecTraining(
        one.runs()[0], 1, Codec.create("cheng2020-attention", 8), taught.recognizer
    ).branches["0"]
    stream = StepStream(open_sources(["scenes:8"]), one.data, 1, [Teacher(taught.recognizer)])
    batches = [stream.batch(step) for step in range(8)]

    @torch.no_grad()
    def loss(branch: AuxiliaryBranch) -> float:
        latents = [taught.codec.training_latent(batch.images) for batch in batches]
        pairs = zip(latents, batches, strict=True)
        return sum(float(v) for y, b in pairs for v in branch.loss(branch(y), b.labels[0]).values())

    assert loss(taught.branch) < 0.8 * loss(fresh)


@pytest.mark.parametrize("kind", ["features", "heads"])
def test_branches_of_layers_learn_first_and_with_the_codec(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = {"task": "outputs", "auxiliary": kind, "auxiliary_first": FIRST}
    arms = {"task": {"alpha": 0.0}, "task+aux": {"alpha": 0.5}}
    seen = Seen(monkeypatch)
    run.train_experiment(preset(lambdas=[0.5], objective=objective, arms=arms), tmp_path)
    assert seen.fits == ["aux-q1"] * FIRST["steps"]
    assert torch.equal(torch.stack(seen.batches["aux-q1"]), torch.stack(seen.batches["task-q1"]))
    branch = restore(tmp_path / "aux-q1").branch.state_dict()
    assert any(not torch.equal(value, seen.branches["aux-q1"][key]) for key, value in branch.items())
    log = next((tmp_path / "aux-q1" / "logs").rglob("metrics.csv")).read_text()
    parts = {"features": [], "heads": ["aux/loss_classifier", "aux/loss_objectness"]}
    assert all(name in log for name in ["aux/features", "gradient/aux", *parts[kind]])
