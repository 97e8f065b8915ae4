"""Branches that learn alone first: what they learn, who shares it, and that all arms still see the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from taskpress.coding.codec import Codec, Estimate
from taskpress.coding.entropy_models import add_noise
from taskpress.recognition.named import load_recognizer
from taskpress.training import branch_first, run
from taskpress.training.allocation import give_allocator
from taskpress.training.config import Preset
from taskpress.training.data import Batch
from taskpress.training.module import CodecTraining

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
            "rates": [0.5, 1.0],
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
            if name not in self.batches and module.branch is not None:
                self.branches[name] = {k: v.clone() for k, v in module.branch.state_dict().items()}
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fresh = Seen(patch)
        run.train_experiment(preset(first=None), tmp_path / "fresh")
    assert not fresh.fits and not (tmp_path / "fresh" / "branches").exists()
    seen = Seen(monkeypatch)
    run.train_experiment(preset(), tmp_path / "taught")
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
    one = preset(rates=[0.5], arms={"task+aux": {"alpha": 0.1}})
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


@pytest.mark.parametrize("allocation", ["none", "roi"])
def test_it_learns_on_the_latent_of_training(allocation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec.create("cheng2020-attention", 8, seed=3).train()
    if allocation != "none":
        config = preset(arms={"roi": {"allocation": "roi"}}).runs()[0]
        give_allocator(codec, config, load_recognizer("scenes"))
    images = torch.rand(1, 3, 70, 64, generator=torch.Generator().manual_seed(1))
    # z draws its noise first in `estimate`, so noise is given here: a quarter for every value.
    quarter = lambda x: x + 0.25  # noqa: E731
    for place in ("codec", "models"):
        monkeypatch.setattr(f"taskpress.coding.{place}.add_noise", quarter)
    estimate: Estimate = codec.estimate(images)
    torch.testing.assert_close(codec.noisy_latent(images), estimate.latent.detach(), atol=1e-5, rtol=1e-5)
    assert add_noise(images).sub(images).abs().max() <= 0.5
