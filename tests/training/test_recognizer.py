"""Training of the scenes recognizer: resumed it is the one never killed; its file is the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from taskpress.errors import ConfigError, RecognizerError
from taskpress.recognition import faster_rcnn
from taskpress.recognition.named import load_recognizer
from taskpress.training import recognizer as training
from taskpress.training.recognizer import RecognizerTraining, export, train

SHORT = RecognizerTraining(steps=4, batch=1, save_every=2)


class KilledError(Exception):
    pass


def test_a_killed_training_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(SHORT, tmp_path / "whole").state_dict()
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "log.csv").write_text("step,of one that was killed before its first checkpoint")

    save = training._save

    def save_and_die(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(training, "_save", save_and_die)
        with pytest.raises(KilledError):
            train(SHORT, tmp_path / "killed")
    torch.manual_seed(99)
    resumed = train(SHORT, tmp_path / "killed").state_dict()

    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    logs = [(tmp_path / run / "log.csv").read_text() for run in ("whole", "killed")]
    assert logs[0] == logs[1]
    assert len(logs[0].splitlines()) == 1 + SHORT.steps


def test_another_runs_folder_is_refused(tmp_path: Path) -> None:
    one = RecognizerTraining(steps=1, batch=1)
    train(one, tmp_path)
    with pytest.raises(ConfigError, match="other settings"):
        train(RecognizerTraining(steps=1, batch=1, seed=1), tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="no checkpoint"):
        train(one, tmp_path)


def test_a_deeper_recognizer_is_trained_and_read_as_deep(tmp_path: Path) -> None:
    settings = RecognizerTraining(steps=1, batch=1, deeper=2, precision="bfloat16")
    model = train(settings, tmp_path)
    export(model, settings, tmp_path, "taskpress train-recognizer -o RUN", images=1)
    file = tmp_path / "scenes-recognizer.safetensors"
    read = load_recognizer(f"scenes:{file}").model.state_dict()
    assert read.keys() == model.state_dict().keys() > training.slim_rcnn(1).state_dict().keys()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(read[key], value, rtol=1e-3, atol=1e-5)

    with safe_open(file, "pt") as weights:
        state, about = {key: weights.get_tensor(key) for key in weights.keys()}, weights.metadata()  # noqa: SIM118
    for lie in ("1000000000", "0", "1", "deep"):
        save_file(state, file, about | {"deeper": lie})
        with pytest.raises(RecognizerError, match=r"scenes-recognizer\.safetensors: no recognizer of scenes"):
            load_recognizer(f"scenes:{file}")


def test_an_unknown_precision_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'float8'.*float32 or bfloat16"):
        train(RecognizerTraining(precision="float8"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_exported_file_is_the_trained_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = training.slim_rcnn(len(training.CATEGORIES)).eval()
    card = export(model, SHORT, tmp_path, "taskpress train-recognizer -o RUN", images=2)
    assert json.loads((tmp_path / "scenes-recognizer.json").read_text()) == card
    assert card["training"]["steps"] == 4
    assert 0 <= card["figures"]["ap"] <= 100
    assert (tmp_path / "scenes-recognizer.safetensors").stat().st_size < 8e6

    other = load_recognizer(f"scenes:{tmp_path / 'scenes-recognizer.safetensors'}")
    assert other.name == "scenes:scenes-recognizer.safetensors"
    assert other.fingerprint != load_recognizer("scenes").fingerprint
    (tmp_path / "broken.safetensors").write_bytes(b"{}")
    with pytest.raises(RecognizerError, match=r"broken\.safetensors: no recognizer of scenes"):
        load_recognizer(f"scenes:{tmp_path / 'broken.safetensors'}")

    monkeypatch.setattr(faster_rcnn.resources, "files", lambda _: tmp_path)
    (tmp_path / "weights").symlink_to(tmp_path, target_is_directory=True)
    loaded = faster_rcnn.load_scenes_recognizer()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[key], value, rtol=1e-3, atol=1e-5)
