"""docs/bitstream.md is enough: a decoder that was written from it finds the same latents, to the bit."""

import ast
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import taskpress
from taskpress.coding import bitstream
from taskpress.coding.allocation import AllocatorSettings
from taskpress.coding.checkpoints import SHIPPED
from taskpress.coding.codec import Codec
from taskpress.coding.entropy_coding import CODING

from . import second_decoder
from .conftest import decisive
from .second_decoder.container import crc32c

PROJECT = Path(__file__).resolve().parents[2]
GOLDEN = PROJECT / "tests" / "golden"
DIGESTS = json.loads((GOLDEN / "latents.json").read_text())
THIN = 4


def decode(codec: second_decoder.Codec, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(ŷ · 2^8 [M, h, w], pixels uint8 [H, W, 3]) by the second decoder."""
    container = second_decoder.read_container(data)
    assert container.fingerprint == codec.fingerprint
    height, width = (4 * -(-side // 64) for side in (container.height, container.width))
    payload, levels = container.payload, None
    if codec.allocator is not None:
        section, payload = second_decoder.split_level_map(payload)
        levels = second_decoder.decode_levels(section, height, width, codec.allocator["levels"])
    latent = second_decoder.decode_latent(codec, payload, height, width)
    return latent, second_decoder.synthesize(codec, latent, container.height, container.width, levels)


def digest(latent: np.ndarray) -> str:
    return hashlib.sha256(latent.astype("<i4").tobytes()).hexdigest()


@pytest.mark.parametrize("architecture", DIGESTS)
def test_golden_files(architecture: str) -> None:
    codec = second_decoder.read_codec(GOLDEN / f"{architecture}.safetensors")
    latent, pixels = decode(codec, (GOLDEN / f"{architecture}.tpc").read_bytes())
    assert digest(latent) == DIGESTS[architecture]["picture"]
    expected = np.asarray(Image.open(GOLDEN / f"{architecture}.png")).astype(int)
    assert np.abs(pixels[::THIN, ::THIN] - expected).max() <= 1
    far, _ = decode(codec, (GOLDEN / f"{architecture}-far.tpc").read_bytes())
    assert digest(far) == DIGESTS[architecture]["far"]


@pytest.mark.parametrize("kind", ["roi", "semantic"])
def test_a_codec_with_an_allocator(lively, picture, tmp_path: Path, kind: str) -> None:
    codec = decisive(lively("cheng2020-anchor"), AllocatorSettings(kind, 7, 16, 3))
    array = picture(90, 300, seed=2)
    codec.save(tmp_path / "codec.safetensors")
    _, pixels = decode(second_decoder.read_codec(tmp_path / "codec.safetensors"), codec.encode(array))
    expected = codec.decode(codec.encode(array), "numpy")
    assert np.abs(pixels - expected.astype(int)).max() <= 1
    assert len(np.unique(codec.level_map(array))) > 1


def test_a_codec_that_was_trained(picture) -> None:
    codec = taskpress.load("mse-n48")
    data = codec.encode(picture(100, 150, seed=5))
    latent, pixels = decode(second_decoder.read_codec(SHIPPED / "mse-n48.safetensors"), data)
    ours = codec._freeze().coder.decode(bitstream.unpack(data)[1], 8, 12)
    assert np.array_equal(latent, (ours * 256).numpy())
    assert np.abs(pixels - codec.decode(data, "numpy").astype(int)).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_any_codec_and_size(tmp_path: Path, seed: int) -> None:
    """Weights of every magnitude, so that layers of every shift, activations at their limits and tables of
    every level take part."""
    rng = np.random.default_rng(seed)
    architecture, channels = list(DIGESTS)[seed % 4], int(rng.integers(2, 12))
    codec = Codec.create(architecture, channels, seed=seed)
    for parameter in codec.model.parameters():
        parameter.data.mul_(2.0 ** float(rng.uniform(-2, 3)))
    codec.eval().save(tmp_path / "codec.safetensors", half=bool(seed % 2))
    codec = taskpress.load(tmp_path / "codec.safetensors")
    data = codec.encode(rng.integers(0, 256, (*rng.integers(1, 200, 2), 3), dtype=np.uint8))
    header, payload = bitstream.unpack(data)
    rows, columns = (4 * -(-side // 64) for side in (header.height, header.width))
    own = second_decoder.read_codec(tmp_path / "codec.safetensors")
    assert own.fingerprint == codec.fingerprint
    ours = codec._freeze().coder.decode(payload, rows, columns)
    found = second_decoder.decode_latent(own, payload, rows, columns)
    assert np.array_equal(found, (ours * 256).numpy())


def test_the_second_decoder_owes_nothing_to_the_first() -> None:
    imported = set()
    for path in (Path(__file__).parent / "second_decoder").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.partition(".")[0])
    assert imported - sys.stdlib_module_names <= {"numpy", "safetensors"}


def test_what_the_page_states_of_constants() -> None:
    page = (PROJECT / "docs" / "bitstream.md").read_text()
    assert f"`{CODING}`" in " ".join(page.split())
    assert f"version, {bitstream.VERSION}" in page
    assert crc32c(b"123456789") == 0xE3069283 and "0xE3069283" in page
