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


@pytest.mark.parametrize("architecture", DIGESTS)
def test_golden_files_decode(architecture: str) -> None:
    codec = taskpress.load(GOLDEN / f"{architecture}.safetensors")
    data = (GOLDEN / f"{architecture}.tpc").read_bytes()
    assert MAKER.latent_digest(codec, data) == DIGESTS[architecture]["picture"]
    far = (GOLDEN / f"{architecture}-far.tpc").read_bytes()
    assert MAKER.latent_digest(codec, far) == DIGESTS[architecture]["far"]
    expected = np.asarray(Image.open(GOLDEN / f"{architecture}.png")).astype(int)
    found = codec.decode(data, "numpy")[:: MAKER.THIN, :: MAKER.THIN].astype(int)
    assert found.shape == expected.shape
    # The synthesis runs in float32, whose sums may differ.
    assert np.abs(found - expected).max() <= 1
    assert expected.std() > 5


def test_there_is_one_of_every_architecture() -> None:
    from taskpress.coding.models import ARCHITECTURES

    assert DIGESTS.keys() == ARCHITECTURES.keys()
