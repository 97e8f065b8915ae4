"""Files written once decode for ever: latents to the bit, pixels to a rounding."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import taskpress

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DIGESTS = json.loads((GOLDEN / "latents.json").read_text())


def load_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = load_maker()


@pytest.mark.parametrize("name", DIGESTS)
def test_golden_files_decode(name: str) -> None:
    codec = taskpress.load(GOLDEN / f"{name}.safetensors")
    for kind, digest in DIGESTS[name].items():
        assert MAKER.latent_digest(codec, MAKER.file_of(name, kind).read_bytes()) == digest
    expected = np.asarray(Image.open(GOLDEN / f"{name}.png")).astype(int)
    assert expected.std() > 5
    files = [MAKER.file_of(name, kind).read_bytes() for kind in ("picture", "tiles")]
    whole = (codec.decode(file, "numpy").astype(int) for file in files)
    pixels, tiled = (found[:: MAKER.THIN, :: MAKER.THIN] for found in whole)
    assert pixels.shape == tiled.shape == expected.shape
    # The synthesis runs in float32, whose sums may differ.
    assert np.abs(pixels - expected).max() <= 1
    # Other contexts give other means to round around, at the borders of tiles; in all it is the same picture.
    assert np.abs(tiled - expected).mean() < 0.5 * expected.std()


def test_there_is_one_of_every_architecture() -> None:
    from taskpress.coding.models import ARCHITECTURES

    assert DIGESTS.keys() - ARCHITECTURES.keys() == {MAKER.ROI}
    assert all(DIGESTS[architecture].keys() >= {"picture", "far", "tiles"} for architecture in ARCHITECTURES)
