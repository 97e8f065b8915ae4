"""A codec of a user's own architecture through all commands, from a preset to the decoded picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from taskpress.coding import own_architecture

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "elic.py"


def test_from_a_preset_to_the_decoded_picture(
    taskpress: Callable, tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_architecture, "_named", {})
    elic = f"python:{shutil.copy(EXAMPLE, tmp_path / 'elic.py')}:Elic"
    small = [f"codec.architecture={elic}", "codec.init=null", "codec.channels=8", "data.patch=64"]
    short = ["optimizer.steps=2", "start=null", "lambdas=[1.0]", "trainer.accelerator=cpu"]
    arms = "arms={task+aux: {alpha: 0.1, auxiliary: detection}}"
    run = tmp_path / "run"
    told = taskpress("train", "quick", *small, *short, arms, "-o", run)
    assert told.code == 0, told.err
    (file,) = (run / "codecs").glob("*.safetensors")
    codec = f"{elic}:{file}"
    told = taskpress("info", codec, "--json")
    card = json.loads(told.out)
    assert card["architecture"] == "python:Elic"

    told = taskpress("finish", codec, "--steps", 1, "-o", tmp_path / "finished")
    assert told.code == 0, told.err
    finished = f"{elic}:{tmp_path / 'finished' / file.name}"
    # Two processes: each has to know the class.
    other = f"{elic}:{shutil.copy(file, tmp_path / 'other.safetensors')}"
    seen = ["--images", "scenes", "--recognizer", "scenes", "--limit", 2, "-j", 2, "--no-fidelity"]
    told = taskpress("evaluate", finished, other, *seen, "-o", tmp_path / "results", "--json")
    assert told.code == 0, told.err
    assert [result["codec"] for result in json.loads(told.out)] == [file.stem, "other"]

    shutil.copy(file, tmp_path / "self.safetensors")
    told = taskpress("export", f"{elic}:{tmp_path / 'self.safetensors'}", "-o", tmp_path)
    assert told.code == 2 and "would replace what it is made of" in told.err

    coded, decoded = tmp_path / "coded", tmp_path / "decoded"
    assert taskpress("encode", finished, pictures, "-o", coded).code == 0
    assert taskpress("decode", coded, "-o", decoded, "--codec", finished).code == 0
    sizes = {Image.open(path).size for path in decoded.rglob("*.png")}
    assert sizes == {(50, 70)}
    told = taskpress("allocation", codec, pictures / "rgb.png", "-o", tmp_path / "map.png")
    assert told.code == 0, told.err
    told = taskpress(
        "evaluate-branch", run / "aux-q1", "--images", "scenes", "--limit", 1, "-o", tmp_path / "b"
    )
    assert told.code == 0, told.err

    with (tmp_path / "elic.py").open("a") as end:
        end.write("# another\n")
    told = taskpress("train", "quick", *small, *short, arms, "-o", run)
    assert told.code == 2 and "is not what it was when this training began" in told.err
