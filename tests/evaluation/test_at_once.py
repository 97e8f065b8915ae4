"""Operating points measured at once are those measured one after another."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskpress.errors import ConfigError
from taskpress.evaluation.result import Result

from .conftest import call

SCENES = ["--images", "scenes", "--limit", 3, "--recognizer", "scenes", "--no-fidelity"]
OWN = """
import zlib
import numpy as np

class Deflated:
    def __init__(self, quality):
        self.quality = quality

    def encode(self, image):
        if self.quality == 7:
            raise OSError("no luck")
        return image.shape[0].to_bytes(2, "big") + zlib.compress(image.tobytes(), self.quality)

    def decode(self, data):
        height = int.from_bytes(data[:2], "big")
        return np.frombuffer(zlib.decompress(data[2:]), np.uint8).reshape(height, -1, 3)
"""


def told(folder: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in sorted(folder.glob("*.json")):
        one = Result.read(path)
        found[path.name] = (one.curve, one.bpp, one.scores, one.pictures, one.matches, one.codec_fingerprint)
    return found


def test_codecs_at_once(tmp_path: Path) -> None:
    codecs = ["scenes-task-q1", "scenes-task-q2", "mse-n32"]
    call("evaluate", *codecs, *SCENES, "-o", tmp_path / "one")
    outcome = call("evaluate", *codecs, *SCENES, "-o", tmp_path / "two", "--jobs", 2)
    assert told(tmp_path / "one") == told(tmp_path / "two")
    # In the order that was asked for, whichever was done first.
    places = [outcome.stdout.index(name) for name in codecs]
    assert places == sorted(places)
    with pytest.raises(ConfigError, match="--refine"):
        call("evaluate", *codecs, *SCENES, "-o", tmp_path / "three", "--jobs", 2, "--refine", 3)
    with pytest.raises(ConfigError, match="--device nowhere"):
        call("evaluate", *codecs, *SCENES, "-o", tmp_path / "three", "--device", "cpu,nowhere")


def test_anchors_of_ones_own_at_once(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    anchor = ["anchor", f"python:{tmp_path}/own.py:Deflated", *SCENES, "--curve", "mine"]
    call(*anchor, "--quality", "1,9", "-o", tmp_path / "one")
    call(*anchor, "--quality", "1,9", "-o", tmp_path / "two", "--device", "cpu,cpu")
    assert told(tmp_path / "one") == told(tmp_path / "two")
    with pytest.raises(ConfigError, match="quality 7: encode raises OSError: no luck"):
        call(*anchor, "--quality", "7,9", "-o", tmp_path / "three", "-j", 2)
    assert not (tmp_path / "three" / "deflated-q7.json").exists()
