"""Pictures by file and class: the example of the documentation, and what is amiss with others."""

from __future__ import annotations

import json
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from taskpress.cli.app import app
from taskpress.coding.codec import Codec
from taskpress.datasets.own import OwnPictures
from taskpress.datasets.scenes import Scenes
from taskpress.errors import ConfigError, DataError

ZIPPED = Path(__file__).parents[2] / "docs" / "examples" / "zipped.py"


def zipped(folder: Path, count: int = 3) -> tuple[str, Path]:
    """The example's name for an archive of drawn scenes, and a folder of the same pictures."""
    unpacked = folder / "unpacked"
    unpacked.mkdir(parents=True)
    with ZipFile(folder / "pictures.zip", "w") as archive:
        archive.writestr("about.txt", "no picture")
        for index in range(count):
            path = unpacked / f"{index}.png"
            Image.fromarray(Scenes("train", count)[index].image).save(path)
            archive.write(path, path.name)
    return f"python:{ZIPPED}:Zip:{folder / 'pictures.zip'}", unpacked


def run(*words: object) -> str:
    outcome = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    return outcome.stdout


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_on_an_archive_is_that_on_its_pictures(tmp_path: Path, workers: int) -> None:
    spec, unpacked = zipped(tmp_path)
    found = []
    for name, source in (("zip", spec), ("folder", str(unpacked))):
        settings = {
            "data": {"sources": [source], "patch": 64, "workers": workers},
            "codec": {"channels": 8},
            "recognizer": "scenes",
            "optimizer": {"steps": 2, "learning_rate": 1e-3},
            "trainer": {"accelerator": "cpu"},
            "lambdas": [0.5],
            "arms": {"task": {}},
        }
        preset = tmp_path / f"{name}.yaml"
        preset.write_text(json.dumps({"name": name, **settings}))
        run("train", preset, "-o", tmp_path / name)
        found.append(Codec.load(tmp_path / name / "codecs" / f"{name}-task-q1.safetensors"))
    assert found[0].fingerprint == found[1].fingerprint
    assert found[0].card["contents"][spec] == OwnPictures(spec).digest
    with ZipFile(tmp_path / "pictures.zip", "a") as archive:
        archive.write(unpacked / "0.png", "more.png")
    with pytest.raises(ConfigError, match=r"Zip.*is not what it was"):
        run("train", tmp_path / "zip.yaml", "-o", tmp_path / "zip")


def test_measured_without_annotations(tmp_path: Path) -> None:
    spec, unpacked = zipped(tmp_path)
    rates = []
    for images in (spec, unpacked):
        options = [
            "--recognizer",
            "scenes",
            "--no-fidelity",
            "--json",
            "-o",
            tmp_path / "result.json",
            "--force",
        ]
        (result,) = json.loads(run("anchor", "jpeg", "--quality", 30, "--images", images, *options))
        assert result["ap"] is None and result["teacher_ap"] > 0
        rates.append(result["bpp"])
    assert rates[0] == rates[1]
    with pytest.raises(ConfigError, match="have none"):
        run("anchor", "jpeg", "--quality", 30, "--images", spec, "--annotations", "a.json", *options)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("class P:\n    pass", "P has no __len__ and no __getitem__"),
        ("class P(list):\n    pass", "holds no picture"),
        ("class P:\n    def __init__(self):\n        raise OSError('gone')", "OSError: gone"),
        ("P = lambda: [3]", "picture 0 must be uint8 RGB .*, not int"),
        ("import numpy\nP = lambda: [numpy.zeros((4, 4))]", r"not float64 \(4, 4\)"),
        ("class P(dict):\n    def __len__(self):\n        return 1", "KeyError: 0"),
    ],
)
def test_what_is_amiss_is_named(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "own.py").write_text(body)
    with pytest.raises(DataError, match=rf"own\.py:P: .*{message}"):
        OwnPictures(f"python:{tmp_path / 'own.py'}:P")[0]


def test_what_it_gives_is_a_data_set(tmp_path: Path) -> None:
    pictures = OwnPictures(zipped(tmp_path)[0])
    assert [sample.id for sample in pictures] == [0, 1, 2] and pictures.coco_ground_truth() is None
    assert np.array_equal(pictures[1].image, Scenes("train", 3)[1].image)
