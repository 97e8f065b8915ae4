"""Whole trainings, of a few steps: resumable, fair between arms, no trace of the branch."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open

from taskpress.coding.codec import Codec
from taskpress.coding.estimate import Estimate
from taskpress.errors import ConfigError
from taskpress.recognition.named import load_recognizer
from taskpress.training import run
from taskpress.training.config import RunConfig
from taskpress.training.module import CodecTraining
from taskpress.training.run import settings_digest

from .conftest import STEPS, power_cut, preset


def metrics(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def weights(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict


def test_a_codec_that_had_a_branch_is_the_codec_without(tmp_path: Path) -> None:
    without, aux = preset().runs()
    recognizer = load_recognizer("scenes")
    modules = [
        CodecTraining(config, STEPS, Codec.create("cheng2020-attention", 8, seed=5), recognizer)
        for config in (without, aux)
    ]
    assert not modules[0].branches and modules[1].branches
    files = [tmp_path / "without.safetensors", tmp_path / "aux.safetensors"]
    for module, path in zip(modules, files, strict=True):
        module.codec.save(path, card={})
    assert files[0].read_bytes() == files[1].read_bytes()
    image = np.random.default_rng(0).integers(0, 255, (80, 100, 3)).astype(np.uint8)
    assert modules[0].codec.encode(image) == modules[1].codec.encode(image)


@pytest.mark.parametrize("kill_at", [3, 4])
def test_a_killed_run_ends_like_one_never_killed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    with power_cut(monkeypatch, at=kill_at):
        run.train_experiment(preset(), tmp_path, only=["aux-q1"])
    assert not (tmp_path / "codecs").exists()
    (codec,) = run.train_experiment(preset(), tmp_path, only=["aux-q1"])
    whole, resumed = weights(trained / "codecs" / "tiny-aux-q1.safetensors"), weights(codec)
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
    logs = sorted((tmp_path / "aux-q1" / "logs").glob("from-step-*/metrics.csv"))
    first = kill_at - kill_at % 2
    assert [path.parent.name for path in logs] == ["from-step-000000", f"from-step-{first:06d}"]
    whole_log = metrics(trained / "aux-q1" / "logs" / "from-step-000000" / "metrics.csv")
    assert metrics(logs[0]) == whole_log[:kill_at]
    assert metrics(logs[1]) == whole_log[first:]


def test_the_exported_codec_has_no_trace_of_the_branch(trained: Path) -> None:
    paths = {arm: trained / "codecs" / f"tiny-{arm}-q1.safetensors" for arm in ("task", "aux")}
    without, aux = (weights(path) for path in paths.values())
    assert {k: (v.shape, v.dtype) for k, v in without.items()} == {
        k: (v.shape, v.dtype) for k, v in aux.items()
    }
    assert any(not torch.equal(without[k], aux[k]) for k in without)
    pair = [Codec.load(path) for path in paths.values()]
    assert [name for name, _ in pair[0].named_modules()] == [name for name, _ in pair[1].named_modules()]
    assert pair[0].encoder_cost() == pair[1].encoder_cost()


def test_arms_see_the_same_batches_and_noise_and_start_from_the_same_codec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: dict[str, list[bytes]] = {}
    first_latent: dict[str, torch.Tensor] = {}
    step, estimate = CodecTraining.training_step, Codec.estimate

    def watches(self: CodecTraining, batch: Any, batch_idx: int) -> torch.Tensor:
        batches.setdefault(self.config.short_name, []).append(batch.images.numpy().tobytes())

        def keeps(codec: Codec, images: torch.Tensor, *more: Any, **named: Any) -> Estimate:
            found = estimate(codec, images, *more, **named)
            first_latent.setdefault(self.config.short_name, found.latent.detach())
            return found

        with monkeypatch.context() as patch:
            patch.setattr(Codec, "estimate", keeps)
            return step(self, batch, batch_idx)

    monkeypatch.setattr(CodecTraining, "training_step", watches)
    start = {"lmbda": 0.01, "optimizer": {"steps": 2, "learning_rate": 1e-3}}
    run.train_experiment(preset(start=start), tmp_path, limit_steps=3)
    assert batches["task-q1"] == batches["aux-q1"]
    assert len(batches["task-q1"]) == 3 and len(set(batches["task-q1"])) == 3
    # Equal latents with noise on them: weights and noise are the same.
    assert torch.equal(first_latent["task-q1"], first_latent["aux-q1"])
    assert not torch.equal(first_latent["task-q1"], first_latent["task-q1"].round())


@pytest.mark.parametrize("family", ["scenes", "onnx"])
def test_the_recognizer_is_unchanged_to_the_bit_and_learns_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, family: str
) -> None:
    spec = family
    if family == "onnx":
        spec = f"onnx:{request.getfixturevalue('shared_models') / 'yolox_nano.onnx'}"
    recognizer = load_recognizer(spec)
    assert isinstance(recognizer, torch.nn.Module)
    before = {k: v.clone() for k, v in recognizer.state_dict().items()}
    monkeypatch.setattr(run, "load_recognizer", lambda spec: recognizer)
    codec = Codec.create("cheng2020-attention", 8, seed=1).fingerprint
    (trained,) = run.train_experiment(preset(), tmp_path, only=["aux-q1"], limit_steps=3)
    assert Codec.load(trained).fingerprint != codec
    after = recognizer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert all(p.grad is None and not p.requires_grad for p in recognizer.parameters())
    assert not any(m.training for m in recognizer.modules())
    checkpoint = torch.load(tmp_path / "aux-q1" / "checkpoints" / "last.ckpt", weights_only=True)
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"codec", "branches"}


def test_no_auxiliary_loss_builds_no_branch() -> None:
    config = preset().runs()[0]
    module = CodecTraining(config, STEPS, Codec.create("cheng2020-attention", 8), load_recognizer("scenes"))
    assert not module.branches
    assert {name.split(".")[0] for name, _ in module.named_parameters()} == {"codec"}


def test_a_folder_keeps_its_settings(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    again = run.train_experiment(preset(trainer={"accelerator": "cpu", "log_every": 5}), folder)
    assert [path.name for path in again] == ["tiny-task-q1.safetensors", "tiny-aux-q1.safetensors"]
    with pytest.raises(ConfigError, match="another `seed`"):
        run.train_experiment(preset(seed=2), folder)
    assert yaml.safe_load((folder / "task-q1" / "config.yaml").read_text())["seed"] == 1
    assert yaml.safe_load((folder / "preset.yaml").read_text())["seed"] == 1
    with pytest.raises(ConfigError, match=r"task-q1, aux-q1"):
        run.train_experiment(preset(), folder, only=["aux-q9"])


def test_a_lost_codec_comes_back_from_the_last_checkpoint(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    codec = folder / "codecs" / "tiny-aux-q1.safetensors"
    codec.unlink()
    data = {"sources": ["scenes:8"], "patch": 64, "workers": 1}
    run.train_experiment(preset(data=data), folder, only=["aux-q1"])
    assert Codec.load(codec).fingerprint == Codec.load(trained / "codecs" / codec.name).fingerprint
    with pytest.raises(ConfigError, match=r"another `data\.patch`"):
        run.train_experiment(preset(data={**data, "patch": 128}), folder, only=["aux-q1"])


def test_worker_processes_change_nothing_but_who_reads(trained: Path, tmp_path: Path) -> None:
    data = {"sources": ["scenes:8"], "patch": 64, "workers": 2}
    (codec,) = run.train_experiment(preset(data=data), tmp_path, only=["aux-q1"])
    whole = weights(trained / "codecs" / "tiny-aux-q1.safetensors")
    assert all(torch.equal(value, whole[key]) for key, value in weights(codec).items())


def test_a_rehearsal_is_trained_on(trained: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for limit in (4, None):
        (codec,) = run.train_experiment(preset(), tmp_path, only=["aux-q1"], limit_steps=limit)
        assert Codec.load(codec).card["steps"] == (limit or STEPS)
    whole = weights(trained / "codecs" / "tiny-aux-q1.safetensors")
    assert all(torch.equal(value, whole[key]) for key, value in weights(codec).items())
    assert not any("not empty" in str(warning.message) for warning in recwarn)


def test_arms_of_a_rehearsed_start_begin_anew(tmp_path: Path) -> None:
    start = {"lmbda": 0.01, "optimizer": {"steps": 3, "learning_rate": 1e-3}}
    for limit in (1, 2, None, None):
        codecs = run.train_experiment(preset(start=start), tmp_path, limit_steps=limit)
        loaded = [Codec.load(path) for path in codecs]
        assert [one.card["steps"] for one in loaded] == ([limit] * 3 if limit else [3, STEPS, STEPS])
        assert {one.card["begins_as"] for one in loaded[1:]} == {loaded[0].fingerprint}
    run.train_experiment(preset(start=start), tmp_path / "whole")
    for path in codecs:
        assert Codec.load(path).fingerprint == Codec.load(tmp_path / "whole/codecs" / path.name).fingerprint


def test_a_start_of_another_width_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    Codec.create("cheng2020-attention", 16).save(tmp_path / "wide.safetensors")
    init = {"channels": 8, "init": str(tmp_path / "wide.safetensors")}
    with pytest.raises(ConfigError, match="N = 16"):
        run.train_experiment(preset(codec=init), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_arms_wait_for_their_start(tmp_path: Path) -> None:
    start = {"lmbda": 0.01, "optimizer": {"steps": 2}}
    with pytest.raises(ConfigError, match=r"--only start$"):
        run.train_experiment(preset(start=start), tmp_path, only=["task"])


def test_each_rate_begins_from_its_own_start(tmp_path: Path) -> None:
    start = {"lambdas": [0.001, 0.01], "optimizer": {"steps": 2, "learning_rate": 1e-3}}
    two = preset(start=start, lambdas=[0.1, 1.0], arms={"task": {}})
    with pytest.raises(ConfigError, match="--only start-q2"):
        run.train_experiment(two, tmp_path, only=["task-q2"])
    codecs = run.train_experiment(two, tmp_path, limit_steps=2)
    cards = {(codec := Codec.load(path)).card["name"]: (codec.card, codec.fingerprint) for path in codecs}
    assert list(cards) == ["tiny-start-q1", "tiny-start-q2", "tiny-task-q1", "tiny-task-q2"]
    for quality in (1, 2):
        start_card, fingerprint = cards[f"tiny-start-q{quality}"]
        assert start_card["config"]["lmbda"] == start["lambdas"][quality - 1]
        assert cards[f"tiny-task-q{quality}"][0]["begins_as"] == fingerprint
    assert cards["tiny-start-q1"][1] != cards["tiny-start-q2"][1]
    again = preset(seed=7, start={**start, "seed": 3}, lambdas=[0.1, 1.0])
    assert [(one.short_name, one.seed) for one in again.runs()[1:3]] == [("start-q2", 3), ("task-q1", 7)]
    with pytest.raises(ConfigError, match=r"2 starts for the 3 rates of task"):
        preset(start=start, lambdas=[0.1, 1.0, 2.0]).runs()


def test_epochs_are_passes_over_the_pictures() -> None:
    config = preset(optimizer={"epochs": 50}, data={"sources": ["scenes:8"], "patch": 64, "batch": 3}).runs()[
        0
    ]
    assert run.training_steps(config, 8) == 134


def test_a_codec_serves_two_recognizers_at_once(tmp_path: Path) -> None:
    further = {"recognizer": "lraspp-mobilenet-v3:random", "weight": 0.5, "auxiliary": "segmentation"}
    two = preset(further=[further], recognizer_weight=2.0, arms={"task+aux": {"alpha": 0.1}})
    run.train_experiment(two, tmp_path / "whole")
    (log,) = (tmp_path / "whole" / "aux-q1" / "logs").glob("*/metrics.csv")
    rows = metrics(log)
    row = {name: float(value) for name, value in rows[0].items()}
    sums = {
        (kind, place): sum(v for name, v in row.items() if re.fullmatch(rf"{kind}/{place}[a-z_]+", name))
        for kind in ("task", "aux")
        for place in ("", "2/")
    }
    for kind in ("task", "aux"):
        assert sums[kind, "2/"] > 0
        assert row[kind] == pytest.approx(2.0 * sums[kind, ""] + 0.5 * sums[kind, "2/"], rel=1e-4)
    first = weights(tmp_path / "whole" / "codecs" / "tiny-aux-q1.safetensors")
    run.train_experiment(preset(arms={"task+aux": {"alpha": 0.1}}), tmp_path / "one")
    alone = weights(tmp_path / "one" / "codecs" / "tiny-aux-q1.safetensors")
    assert any(not torch.equal(first[key], alone[key]) for key in first)
    with pytest.raises(ConfigError, match="another `recognizer_weight`"):
        run.train_experiment(preset(arms={"task+aux": {"alpha": 0.1}}), tmp_path / "whole")


def test_settings_of_an_earlier_version_stay_valid(tmp_path: Path) -> None:
    one = preset(arms={"task": {}})
    run.train_experiment(one, tmp_path, limit_steps=1)
    claim = tmp_path / "task-q1" / "config.yaml"
    settings = yaml.safe_load(claim.read_text())
    for new in ("further", "recognizer_weight"):
        del settings[new]
    del settings["objective"]["allocation"]
    settings["rate"] = settings.pop("lmbda")
    claim.write_text(yaml.safe_dump(settings))
    run.train_experiment(one, tmp_path, limit_steps=2)


@pytest.mark.parametrize("content", [b"", b"- 1", b"a: [", b"\xff\xfe", b"seed: x"])
def test_damaged_settings_of_a_training_are_named(tmp_path: Path, content: bytes) -> None:
    claim = tmp_path / "task-q1" / "config.yaml"
    claim.parent.mkdir()
    claim.write_bytes(content)
    with pytest.raises(ConfigError, match=r"task-q1.config\.yaml"):
        run.train_experiment(preset(arms={"task": {}}), tmp_path, limit_steps=1)


def test_repetitions_share_their_settings_and_nothing_else_does(trained: Path) -> None:
    card = Codec.load(next((trained / "codecs").glob("*aux-q1*"))).card
    config, steps = RunConfig.model_validate(card["config"]), card["steps"]
    assert card["settings"] == settings_digest(config, steps, None)

    def changed(section: str, **update: Any) -> RunConfig:
        return config.model_copy(update={section: getattr(config, section).model_copy(update=update)})

    alike = [
        config.model_copy(update={"seed": 99, "lmbda": 7.0, "name": "x-y", "quality": 3}),
        changed("data", workers=4),
        changed("trainer", log_every=7, accelerator="auto"),
        changed("trainer", devices="1,"),
    ]
    assert {settings_digest(one, steps, None) for one in alike} == {card["settings"]}
    others = [changed("optimizer", clip=0.5), changed("objective", alpha=0.2), changed("trainer", devices=2)]
    digests = {settings_digest(one, steps, None) for one in others}
    digests |= {settings_digest(config, 1, None), settings_digest(config, steps, "a start"), card["settings"]}
    assert len(digests) == 6
    assert settings_digest(changed("trainer", devices="2,5"), steps, None) in digests, "two, whichever"


def test_a_further_rate_says_how_it_is_trained(trained: Path) -> None:
    with pytest.raises(ConfigError, match="another `lmbda`; trainings are numbered in order of λ"):
        run.train_experiment(preset(lambdas=[0.25, 0.5]), trained)
