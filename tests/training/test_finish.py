"""One part alone goes on: what changes, what must not, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from taskpress.cli.app import app
from taskpress.coding.bitstream import unpack
from taskpress.coding.codec import Codec
from taskpress.coding.hyperprior import HyperpriorModel
from taskpress.datasets.scenes import Scenes
from taskpress.errors import BitstreamError, ConfigError, DataError
from taskpress.training import finishing as module
from taskpress.training.config import Preset, RunConfig
from taskpress.training.data import Batch, StepStream, open_sources
from taskpress.training.finishing import FinishConfig, Part, finish
from taskpress.training.refining import refinement_for
from taskpress.training.run import settings_digest, train_experiment

STEPS, FURTHER = 3, 4
SETTINGS = FinishConfig(part="synthesis", steps=FURTHER, learning_rate=1e-3)


def finish_one(source: str, folder: Path, settings: FinishConfig, command: str = "") -> Path:
    (path,) = finish([source], folder, settings, command)
    return path


def preset(**changes: Any) -> Preset:
    return Preset.model_validate(
        {
            "name": "tiny",
            "codec": {"channels": 8, "half": True},
            "data": {"sources": ["scenes:8"], "patch": 64},
            "objective": {"task": "none", "mse": 1.0},
            "optimizer": {"steps": STEPS, "learning_rate": 1e-3},
            "lambdas": [0.05],
            "arms": {"mse": {}, "roi": {"allocation": "roi", "allocation_width": 8}},
            "recognizer": "scenes",
            "trainer": {"accelerator": "cpu", "checkpoint_every": 1, "log_every": 1},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_experiment(preset(), folder)
    return folder / "codecs"


@pytest.mark.parametrize("arm", ["mse", "roi"])
def test_files_stay_as_long_and_hold_the_same(trained: Path, tmp_path: Path, arm: str) -> None:
    before = Codec.load(trained / f"tiny-{arm}-q1.safetensors")
    after = Codec.load(
        finish_one(str(trained / f"tiny-{arm}-q1.safetensors"), tmp_path, SETTINGS, "the command")
    )
    old, new = before.state_dict(), after.state_dict()
    changed = [key for key, value in new.items() if not torch.equal(value, old[key])]
    assert len(changed) > 20 and all(key.startswith("model.g_s.") for key in changed)
    image = Scenes("test", 1)[0].image
    ours, theirs = after.encode(image), before.encode(image)
    assert len(ours) == len(theirs) and unpack(ours)[1] == unpack(theirs)[1]
    assert not np.array_equal(after.decode(ours, "numpy"), before.decode(theirs, "numpy"))
    told = {"steps": FURTHER, "learning_rate": 1e-3, "of": before.fingerprint, "command": "the command"}
    assert after.card["finish"] == {"synthesis": told} and after.card["config"] == before.card["config"]
    config, digest = RunConfig.model_validate(before.card["config"]), before.card["settings"]
    assert after.card["settings"] == settings_digest(config, STEPS, digest, "synthesis", FURTHER, 1e-3)


def test_an_entropy_model_learns_what_files_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against the same steps by the rate of noise; a codec for few bits, whose latents are mostly 0."""
    source, settings = tmp_path / "source.safetensors", FinishConfig.of("entropy", 60)
    codec = Codec.load("scenes-task-q1")
    del codec.card["finish"]
    codec.save(source)
    rounded = Codec.load(finish_one(str(source), tmp_path / "rounded", settings))
    monkeypatch.setattr(HyperpriorModel, "rounded_likelihoods", HyperpriorModel.noisy_likelihoods)
    noisy = Codec.load(finish_one(str(source), tmp_path / "noisy", settings))
    images = [Scenes("test", 3)[i].image for i in range(3)]
    ours, theirs = ([one.encode(image) for image in images] for one in (rounded, noisy))
    assert sum(map(len, ours)) < 0.9 * sum(map(len, theirs))
    for image in images:
        now, before = (one.decode(one.encode(image), "numpy").astype(float) for one in (rounded, codec))
        assert np.square(now - image).mean() < 1.1 * np.square(before - image).mean()
    with pytest.raises(BitstreamError, match="written by codec"):
        codec.decode(ours[0])


@pytest.mark.parametrize("arm", ["mse", "roi"])
def test_entropy_leaves_transforms_and_allocator(trained: Path, tmp_path: Path, arm: str) -> None:
    source = trained / f"tiny-{arm}-q1.safetensors"
    words = ["finish", str(source), "-o", str(tmp_path), "--steps", str(FURTHER)]
    assert CliRunner().invoke(app, words).exception is None
    path = tmp_path / source.name
    before, after = Codec.load(source), Codec.load(path)
    old, new = before.state_dict(), after.state_dict()
    kept = {key for key, value in new.items() if torch.equal(value, old[key])}
    transforms = {key for key in new if key.startswith(("model.g_a.", "model.g_s.", "allocator."))}
    assert transforms <= kept and len(new.keys() - kept) > 20
    image = Scenes("test", 1)[0].image
    assert after.decode(after.encode(image), "numpy").shape == image.shape
    assert after.card["finish"]["entropy"]["of"] == before.fingerprint
    with pytest.raises(ConfigError, match="its entropy is finished already"):
        finish_one(str(path), tmp_path / "twice", FinishConfig.of("entropy"))


def finish_settings(trained: Path, tmp_path: Path, settings: FinishConfig) -> str:
    path = finish_one(str(trained / "tiny-mse-q1.safetensors"), tmp_path / "plain", settings)
    return str(Codec.load(path).card["settings"])


def test_pictures_that_lie_elsewhere_are_the_same_ones(tmp_path: Path) -> None:
    """Of a folder that was moved: by names, not by path; of another folder: another codec."""
    for name, count in (("old", 3), ("moved", 3), ("other", 4)):
        (tmp_path / name).mkdir()
        for index in range(count):
            Image.fromarray(Scenes("train", 4)[index].image).save(tmp_path / name / f"{index}.png")
    train_experiment(preset(data={"sources": [str(tmp_path / "old")], "patch": 64}), tmp_path, only=["mse"])
    codec = str(tmp_path / "codecs" / "tiny-mse-q1.safetensors")
    entropy = FinishConfig(part="entropy", steps=1, learning_rate=1e-3)
    digests = []
    for name in ("", "moved", "other"):
        sources = [str(tmp_path / name)] if name else []
        (path,) = finish([codec], tmp_path / f"finished-{name}", entropy, sources=sources)
        digests.append(Codec.load(path).card["settings"])
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(ConfigError, match="asks none"):
        list(finish([codec], tmp_path / "out", entropy, recognizer="scenes"))


def test_a_codec_of_many_devices_and_other_paths_is_finished_here(trained: Path, tmp_path: Path) -> None:
    codec = Codec.load(trained / "tiny-mse-q1.safetensors")
    elsewhere = {**codec.card["config"], "data": {**codec.card["config"]["data"], "sources": ["/elsewhere"]}}
    elsewhere["trainer"] = {**elsewhere["trainer"], "devices": 4, "nodes": 2, "accelerator": "gpu"}
    codec.save(tmp_path / "a.safetensors", card={**codec.card, "config": elsewhere})
    entropy = FinishConfig(part="entropy", steps=2, learning_rate=1e-3)
    with pytest.raises(DataError, match="/elsewhere: no such folder"):
        finish_one(str(tmp_path / "a.safetensors"), tmp_path / "refused", entropy)
    found = {}
    for source, folder in (
        (tmp_path / "a.safetensors", "there"),
        (trained / "tiny-mse-q1.safetensors", "here"),
    ):
        (path,) = finish([str(source)], tmp_path / folder, entropy, sources=["scenes:8"])
        found[folder] = Codec.load(path)
    assert found["here"].fingerprint != found["there"].fingerprint != codec.fingerprint, (
        "crops that came next"
    )
    assert found["here"].card["settings"] == finish_settings(trained, tmp_path, entropy), (
        "by the same pictures"
    )
    assert found["there"].card["config"]["trainer"]["devices"] == 4, "of the training"
    assert found["there"].card["finish"]["entropy"]["sources"] == ["scenes:8"]


@pytest.mark.parametrize("place", ["recognizer", "sources", "further"])
def test_code_that_a_card_names_is_not_run_unasked(trained: Path, tmp_path: Path, place: str) -> None:
    """A card may be a stranger's."""
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{OWN}")
    codec = Codec.load(trained / "tiny-mse-q1.safetensors")
    config = json.loads(json.dumps(codec.card["config"]))
    recognizer, pictures = (f"python:{tmp_path}/own.py:{name}" for name in ("recognizer", "Pictures"))
    if place == "recognizer":
        config["recognizer"] = recognizer
    elif place == "sources":
        config["data"]["sources"] = [pictures]
    else:
        config["further"] = [{"recognizer": recognizer}]
    config["objective"] = {**config["objective"], "task": "outputs", "mse": 0.0}
    path = str(tmp_path / "stranger.safetensors")
    codec.save(path, card={**codec.card, "config": config})
    with pytest.raises(ConfigError, match=r"stranger.*names code to be run, python:.*own\.py.*--run-code"):
        finish_one(path, tmp_path / "out", SETTINGS)
    if place != "sources":
        with pytest.raises(ConfigError, match=r"names code to be run, python:.*--refine-recognizer"):
            refinement_for(codec, path, 1)
        refinement_for(codec, path, 1, recognizer="scenes")
    assert not (tmp_path / "ran").exists()
    (finished,) = finish([path], tmp_path / "out", SETTINGS, run_code=True)
    assert finished.exists() and (tmp_path / "ran").exists()
    if place != "further":
        told = {"recognizer": recognizer} if place == "recognizer" else {"sources": [pictures]}
        list(finish([path], tmp_path / "told", SETTINGS, **told))


OWN = """
import numpy as np
from taskpress.recognition.named import load_recognizer

def recognizer():
    return load_recognizer("scenes")

class Pictures:
    def __len__(self): return 2
    def __getitem__(self, index): return np.full((64, 64, 3), 9 * index, np.uint8)
"""


def test_damaged_contents_of_a_card_are_told(trained: Path, tmp_path: Path) -> None:
    codec = Codec.load(trained / "tiny-mse-q1.safetensors")
    codec.save(tmp_path / "a.safetensors", card={**codec.card, "contents": ["?"]})
    with pytest.raises(ConfigError, match=r"a\.safetensors: its card is damaged: `contents` is no object"):
        finish_one(str(tmp_path / "a.safetensors"), tmp_path / "out", SETTINGS)


def test_both_parts_one_after_the_other(trained: Path, tmp_path: Path) -> None:
    settings = FinishConfig.of("entropy", 1)
    first = finish_one(str(trained / "tiny-mse-q1.safetensors"), tmp_path / "a", settings)
    second = Codec.load(finish_one(str(first), tmp_path / "b", SETTINGS))
    assert list(second.card["finish"]) == ["entropy", "synthesis"]
    assert second.card["finish"]["synthesis"]["of"] == Codec.load(first).fingerprint


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_it_learns_from_file_latents_of_crops_that_come_next(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    codec, seen, latents = Codec.load(trained / "tiny-mse-q1.safetensors"), [], []
    source = tmp_path / "source.safetensors"
    codec.card["config"]["trainer"]["precision"] = precision
    codec.save(source)
    step = module.SynthesisTraining.training_step

    def watches(self: module.SynthesisTraining, batch: Batch, batch_idx: int) -> torch.Tensor:
        hook = self.part.register_forward_pre_hook(lambda _, given: latents.append(given[0].clone()))
        seen.append(batch.images)
        loss = step(self, batch, batch_idx)
        hook.remove()
        return loss

    monkeypatch.setattr(module.SynthesisTraining, "training_step", watches)
    finish_one(str(source), tmp_path / "finished", SETTINGS)
    config = preset().runs()[0].data
    stream = StepStream(open_sources(config.sources), config, 1)
    for place, images in enumerate(seen):
        assert torch.equal(images, stream.batch(STEPS + place).images)
        with torch.no_grad():
            torch.testing.assert_close(latents[place], codec.estimate(images).latent)


def test_errors_on_files_fall(trained: Path, tmp_path: Path) -> None:
    source = trained / "tiny-mse-q1.safetensors"
    finished = finish_one(str(source), tmp_path, FinishConfig(part="synthesis", steps=60, learning_rate=3e-3))
    image = Scenes("test", 1)[0].image

    def error(path: Path) -> float:
        codec = Codec.load(path)
        decoded = codec.decode(codec.encode(image), "numpy")
        return float(np.square(decoded.astype(float) - image).mean())

    assert error(finished) < 0.7 * error(source)


@pytest.mark.parametrize("part", ["entropy", "synthesis"])
def test_a_killed_one_goes_on_and_a_finished_one_is_kept(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: Part
) -> None:
    source, settings = str(trained / "tiny-mse-q1.safetensors"), FinishConfig.of(part, FURTHER, 1e-2)
    whole = Codec.load(finish_one(source, tmp_path / "whole", settings))
    step = module.PartTraining.training_step

    def dies(self: module.PartTraining, batch: Batch, batch_idx: int) -> torch.Tensor:
        if self.global_step == 2:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    def cannot_save(*_: Any, **__: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(module.PartTraining, "training_step", dies)
        finish_one(source, tmp_path / "killed", settings)
    other: Part = "synthesis" if part == "entropy" else "entropy"
    for wrong in (FinishConfig.of(part, 9, 1e-2), FinishConfig.of(other, FURTHER, 1e-2)):
        with pytest.raises(ConfigError, match=r"settings\.json: another codec or other settings"):
            finish_one(source, tmp_path / "killed", wrong)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(Codec, "save", cannot_save)
        finish_one(source, tmp_path / "killed", settings)
    path = finish_one(source, tmp_path / "killed", settings)
    assert Codec.load(path).fingerprint == whole.fingerprint
    monkeypatch.setattr(module.PartTraining, "training_step", dies)
    stamp = path.stat().st_mtime_ns
    assert finish_one(source, tmp_path / "killed", settings) == path and path.stat().st_mtime_ns == stamp


def test_cards_of_before_there_were_two_parts_are_understood(trained: Path, tmp_path: Path) -> None:
    codec = Codec.load(trained / "tiny-mse-q1.safetensors")
    told = {"steps": 300, "learning_rate": 1e-4, "of": "0123456789abcdef", "command": "the command"}
    codec.card["finish"] = told
    codec.save(tmp_path / "former.safetensors")
    with pytest.raises(ConfigError, match="its synthesis is finished already"):
        finish_one(str(tmp_path / "former.safetensors"), tmp_path / "a", SETTINGS)
    path = finish_one(str(tmp_path / "former.safetensors"), tmp_path / "b", FinishConfig.of("entropy", 1))
    assert path == tmp_path / "b" / "former.safetensors", "named like what it was made of"
    assert Codec.load(path).card["finish"]["synthesis"] == told


def test_what_cannot_be_finished_is_refused(trained: Path, tmp_path: Path) -> None:
    source = trained / "tiny-mse-q1.safetensors"
    outcome = CliRunner().invoke(
        app, ["finish", str(source), "-o", str(tmp_path / "a"), "--part", "synthesis", "--steps", "1"]
    )
    assert outcome.exception is None
    (path,) = (tmp_path / "a").glob("*.safetensors")
    with pytest.raises(ConfigError, match="finished already"):
        finish_one(str(path), tmp_path / "b", SETTINGS)
    with pytest.raises(ConfigError, match="holds another codec"):
        finish_one(str(source), trained, SETTINGS)
    codec = Codec.create("cheng2020-anchor", 8)
    codec.save(tmp_path / "plain.safetensors")
    with pytest.raises(ConfigError, match=r"plain\.safetensors: its card holds no settings of a training"):
        finish_one(str(tmp_path / "plain.safetensors"), tmp_path / "b", SETTINGS)
    only_aux = preset(objective={"task": "none", "alpha": 1.0}, arms={"aux": {}}).runs()[0]
    card = {"config": only_aux.model_dump(), "steps": 3}
    codec.save(tmp_path / "aux.safetensors", card=card)
    with pytest.raises(ConfigError, match="auxiliary loss alone"):
        finish_one(str(tmp_path / "aux.safetensors"), tmp_path / "b", SETTINGS)
    with pytest.raises(ConfigError, match=r"two codecs.*tiny-mse-q1"):
        list(finish([str(source), str(source)], tmp_path / "b", SETTINGS))
    with pytest.raises(ConfigError, match=r"--part synthesys: .*entropy or synthesis"):
        words = ["finish", str(source), "-o", str(tmp_path / "b"), "--part", "synthesys"]
        raise CliRunner().invoke(app, words).exception  # type: ignore[misc]
    with pytest.raises(ConfigError, match=r"learning_rate"):
        words = ["finish", str(source), "-o", str(tmp_path / "b"), "--learning-rate", "0"]
        raise CliRunner().invoke(app, words).exception  # type: ignore[misc]
    # Nothing is begun where a later codec is refused.
    with pytest.raises(ConfigError, match="finished already"):
        list(finish([str(source), str(path)], tmp_path / "b", SETTINGS))
    assert not (tmp_path / "b").exists()
