"""What a training is given: pictures and recognizers, known by content, labelled once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from taskpress.coding.codec import Codec
from taskpress.datasets.scenes import Scenes
from taskpress.errors import ConfigError
from taskpress.recognition.faster_rcnn import FasterRCNN
from taskpress.training import run
from taskpress.training.config import Preset, RunConfig
from taskpress.training.run import settings_digest
from taskpress.training.teacher import Teacher


def preset(**changes: Any) -> Preset:
    return Preset.model_validate(
        {
            "name": "tiny",
            "recognizer": "scenes",
            "codec": {"channels": 8},
            "optimizer": {"steps": 6},
            "lambdas": [0.5],
            "arms": {"task": {"alpha": 0.0}, "task+aux": {"alpha": 0.1}},
            "trainer": {"accelerator": "cpu", "checkpoint_every": 1},
            **changes,
        }
    )


def test_worker_processes_of_all_trainings_share_what_one_teacher_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    labels = Teacher.labels

    def counted(self: Teacher, image: Any) -> Any:
        asked.append(image.shape)
        return labels(self, image)

    monkeypatch.setattr(Teacher, "labels", counted)
    data = {"sources": ["scenes:3"], "patch": 64, "workers": 1}
    run.train_experiment(preset(data=data, lambdas=[0.5, 1.0]), tmp_path, limit_steps=1)
    assert len(asked) == 3, (
        "workers have copies of their own, so only what is labelled before them counts here"
    )


@pytest.mark.parametrize("arm", [{"alpha": 0.1}, {"alpha": 0.0, "allocation": "semantic"}])
def test_crops_can_be_labelled_in_place_of_pictures(
    arm: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that looks at the crop says what is to be seen in the crop, and is asked once a step."""
    asked: list[tuple[int, ...]] = []
    label = FasterRCNN.crop_labels

    def counted(self: FasterRCNN, images: Any) -> Any:
        asked.extend(image.shape for image in images)
        return label(self, images)

    monkeypatch.setattr(FasterRCNN, "crop_labels", counted)
    monkeypatch.setattr(Teacher, "labels", lambda self, image: pytest.fail("a whole picture was labelled"))
    data = {"sources": ["scenes:3"], "patch": 64, "batch": 2}
    one = preset(data=data, objective={"labels": "crop"}, arms={"own": arm})
    run.train_experiment(one, tmp_path, limit_steps=2)
    assert asked == [(3, 64, 64)] * 4


def folder_of_pictures(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(Scenes("train", index + 1)[index].image[:80, :96]).save(folder / f"{index}.png")
    return folder


def test_other_pictures_or_another_recognizer_under_the_same_name_are_refused(tmp_path: Path) -> None:
    """What is drawn in a step depends on how many pictures there are: arms would no longer see the same."""
    pictures, detector = folder_of_pictures(tmp_path / "pictures", 4), tmp_path / "own.py"
    text = (
        "from taskpress.recognition.named import load_recognizer as own_\ndef own(): return own_('scenes')\n"
    )
    detector.write_text(text)
    one = preset(
        data={"sources": [str(pictures)], "patch": 64}, recognizer=f"python:{detector}:own", arms={"task": {}}
    )
    run.train_experiment(one, tmp_path / "run", limit_steps=1)
    shutil.move(pictures / "2.png", tmp_path / "2.png")
    with pytest.raises(ConfigError, match=r"task-q1.config\.yaml.*pictures is not what it was"):
        run.train_experiment(one, tmp_path / "run", limit_steps=2)
    shutil.move(tmp_path / "2.png", pictures / "2.png")
    detector.write_text(text + "# another threshold, say\n")
    with pytest.raises(ConfigError, match=r"own\.py:own is not what it was"):
        run.train_experiment(one, tmp_path / "run", limit_steps=2)
    detector.write_text(text)
    run.train_experiment(one, tmp_path / "run", limit_steps=2)


def test_repetitions_on_two_machines_are_told_as_such(tmp_path: Path) -> None:
    cards = []
    for place in ("here", "there"):
        pictures = folder_of_pictures(tmp_path / place / "pictures", 3)
        one = preset(
            data={"sources": [str(pictures)], "patch": 64},
            recognizer=None,
            arms={"mse": {"task": "none", "mse": 1}},
        )
        (codec,) = run.train_experiment(one, tmp_path / place / "run", limit_steps=1)
        cards.append(Codec.load(codec).card)
    assert cards[0]["config"] != cards[1]["config"]
    assert cards[0]["settings"] == cards[1]["settings"]
    config = RunConfig.model_validate(cards[0]["config"])
    (source,) = config.data.sources
    others = [settings_digest(config, 1, None, contents={str(source): digits}) for digits in ("a", "b")]
    assert len({*others, cards[0]["settings"]}) == 3


def test_a_damaged_account_of_them_is_named(tmp_path: Path) -> None:
    one = preset(data={"sources": ["scenes:2"], "patch": 64}, arms={"task": {}})
    run.train_experiment(one, tmp_path, limit_steps=1)
    claim = tmp_path / "task-q1" / "config.yaml"
    text = claim.read_text()
    claim.write_text(text[: text.index("contents:")] + "contents: 3\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: is damaged"):
        run.train_experiment(one, tmp_path, limit_steps=2)
