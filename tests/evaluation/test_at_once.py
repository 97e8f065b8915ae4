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


def check_equal(folders: tuple[Path, Path], count: int) -> None:
    """But for what another number of threads does to the last bits."""
    names = [sorted(path.name for path in folder.glob("*.json")) for folder in folders]
    assert names[0] == names[1] and len(names[0]) == count
    for name in names[0]:
        ours, theirs = (Result.read(folder / name) for folder in folders)
        for field in (
            "curve",
            "codec",
            "codec_fingerprint",
            "code",
            "dataset",
            "images",
            "resize",
            "fidelity",
        ):
            assert getattr(ours, field) == getattr(theirs, field)
        assert ours.bpp == pytest.approx(theirs.bpp, rel=0.01)
        assert ours.scores == pytest.approx(theirs.scores, abs=3)
        assert ours.matches.keys() == theirs.matches.keys() == {"ap", "teacher_ap"}
        levels = [[(picture.id, picture.level) for picture in one.pictures] for one in (ours, theirs)]
        assert levels[0] == levels[1]


def test_codecs_at_once(tmp_path: Path) -> None:
    codecs = ["scenes-task-q1", "scenes-task-q2", "mse-n32"]
    call("evaluate", *codecs, *SCENES, "-o", tmp_path / "one")
    outcome = call("evaluate", *codecs, *SCENES, "-o", tmp_path / "two", "--jobs", 2)
    check_equal((tmp_path / "one", tmp_path / "two"), 3)
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
    check_equal((tmp_path / "one", tmp_path / "two"), 2)
    with pytest.raises(ConfigError, match="quality 7: encode raises OSError: no luck"):
        call(*anchor, "--quality", "7,9", "-o", tmp_path / "three", "-j", 2)
    assert not (tmp_path / "three" / "deflated-q7.json").exists()
