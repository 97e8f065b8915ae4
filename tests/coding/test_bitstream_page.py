"""docs/bitstream.md is enough: a decoder that was written from it finds the same latents, to the bit."""

import ast
import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import taskpress
from taskpress.coding import bitstream, exact_math
from taskpress.coding.allocation import AllocatorSettings
from taskpress.coding.checkpoints import SHIPPED
from taskpress.coding.codec import Codec
from taskpress.coding.entropy_coding import CODING
from taskpress.coding.tables import gaussian_tables

from . import second_decoder
from .conftest import ARCHITECTURES, decisive
from .second_decoder import real
from .second_decoder.container import crc32c
from .test_golden import DIGESTS, GOLDEN, MAKER

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", DIGESTS)
def test_golden_files(name: str) -> None:
    codec = second_decoder.read_codec(GOLDEN / f"{name}.safetensors")
    for kind, digest in DIGESTS[name].items():
        latent, pixels = second_decoder.decode(codec, MAKER.file_of(name, kind).read_bytes())
        assert hashlib.sha256(latent.astype("<i4").tobytes()).hexdigest() == digest
        if kind == "picture":
            expected = np.asarray(Image.open(GOLDEN / f"{name}.png")).astype(int)
            assert np.abs(pixels[:: MAKER.THIN, :: MAKER.THIN] - expected).max() <= 1


@pytest.mark.parametrize("kind", ["roi", "semantic"])
def test_a_codec_with_an_allocator(lively, picture, tmp_path: Path, kind: str) -> None:
    codec = decisive(lively("cheng2020-anchor"), AllocatorSettings(kind, 7, 16, 3))
    array = picture(90, 300, seed=2)
    codec.save(tmp_path / "codec.safetensors")
    own = second_decoder.read_codec(tmp_path / "codec.safetensors")
    for data in (codec.encode(array), codec.encode(array, tile=128)):
        _, pixels = second_decoder.decode(own, data)
        assert np.abs(pixels - codec.decode(data, "numpy").astype(int)).max() <= 1
    assert len(np.unique(codec.level_map(array))) > 1


def test_a_codec_that_was_trained(picture) -> None:
    codec = taskpress.load("scenes-aux-q3")
    data = codec.encode(picture(60, 100, seed=5))
    own = second_decoder.read_codec(SHIPPED / "scenes-aux-q3.safetensors")
    latent, pixels = second_decoder.decode(own, data)
    ours = codec._freeze().coder.decode(bitstream.unpack(data)[1], 4, 8)
    assert np.array_equal(latent, (ours * 256).numpy())
    assert np.abs(pixels - codec.decode(data, "numpy").astype(int)).max() <= 1


def test_a_hyper_latent_beyond_the_limit_of_activations() -> None:
    """Escaped symbols of z reach twice as far as activations do, which are then limited."""
    codec = taskpress.load("scenes-aux-q3")
    coder = codec._freeze().coder
    z = torch.zeros(codec.model.N, 1, 2)
    z[0, 0, 0], z[1, 0, 1] = 30000, -30000
    latents = coder.quantize(torch.zeros(codec.latent_channels, 4, 8), z)
    assert np.abs(latents.z_symbols).max() > 2**14
    payload = coder.encode(latents)
    own = second_decoder.read_codec(SHIPPED / "scenes-aux-q3.safetensors")
    found = second_decoder.decode_latent(own, payload, 4, 8)
    assert np.array_equal(found, (coder.decode(payload, 4, 8) * 256).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_any_codec_and_size(tmp_path: Path, seed: int) -> None:
    """Weights of every magnitude, so that layers of every shift, activations at their limits and tables of
    every level take part."""
    rng = np.random.default_rng(seed)
    architecture, channels = ARCHITECTURES[seed % 4], int(rng.integers(2, 12))
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
    assert f"version, {bitstream.WHOLE}" in page and f"version, {bitstream.TILED}" in page
    assert crc32c(b"123456789") == 0xE3069283 and "0xE3069283" in page


def test_the_values_to_check_against() -> None:
    page = (PROJECT / "docs" / "bitstream.md").read_text()
    functions = re.findall(r"(\w+)\((-?[0-9.]+)\) +(0x1\.\w+p[+-]\d+)", page)
    assert len(functions) == 8
    for name, argument, value in functions:
        x = float(argument)
        assert getattr(real, name)(x) == float.fromhex(value)
        ours = exact_math.normal_above if name == "above" else getattr(exact_math, name)
        assert ours(np.array(x)) == float.fromhex(value)
    told = re.findall(r"of level (\d+): +symbols (-\d+) … (\d+), weights ([\d ]+), escape (\d+)", page)
    assert len(told) == 2
    for level, first, last, weights, escape in told:
        table = gaussian_tables()[int(level)]
        assert (table.low, table.low + table.escape - 1) == (int(first), int(last))
        assert table.weights.tolist() == [*map(int, weights.split()), int(escape)]
