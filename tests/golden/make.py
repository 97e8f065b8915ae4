"""Adds golden files beside it: tiny codecs, files of each, what they decode to.

    python tests/golden/make.py

To be run when a version of the container or `CODING` changes, or for a kind of file that there was none of.
What is there already stays, as a file that was written once decodes for ever; never take one away to make a
failing test pass.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import taskpress
from taskpress.coding import bitstream
from taskpress.coding.allocation import AllocatorSettings
from taskpress.coding.grid import Box, Grid
from taskpress.coding.level_map import split_section

HERE = Path(__file__).parent
DIGESTS = HERE / "latents.json"
ROI = "cheng2020-anchor-roi"
CHANNELS = 4
SIZE = (150, 230)
TILE = 64
# Pixels are kept thinned out, for size.
THIN = 4


def file_of(name: str, kind: str) -> Path:
    """The file of a codec: its picture, or one of another kind."""
    return HERE / (f"{name}.tpc" if kind == "picture" else f"{name}-{kind}.tpc")


def latent_digest(codec: taskpress.Codec, data: bytes) -> str:
    """SHA-256 of ŷ·256 [M, h, w] as little-endian int32, that of tiles side by side."""
    header, _ = bitstream.unpack(data)
    grid = Grid(header.width, header.height, header.side or 65536)
    whole = Box(0, 0, header.width, header.height).outward(64)
    latent = np.empty((codec.latent_channels, whole.height // 16, whole.width // 16), "<i4")
    for number in range(len(grid)):
        _, payload = bitstream.unpack(bitstream.extract_tile(data, number) if header.side else data)
        if codec.allocator is not None:
            _, payload = split_section(payload)
        box = grid.box(number).outward(64)
        tile = codec._freeze().coder.decode(payload, box.height // 16, box.width // 16)
        latent[(..., *box.slices(16))] = (tile * 256).numpy()
    return hashlib.sha256(latent.tobytes()).hexdigest()


def far_values(codec: taskpress.Codec) -> bytes:
    """A 64×64 file whose latents lie far outside the tables of probability."""
    generator = torch.Generator().manual_seed(1)
    coder = codec._freeze().coder
    y = 100 * torch.randn(codec.latent_channels, 4, 4, generator=generator)
    z = 1000 * torch.randn(codec.model.N, 1, 1, generator=generator)
    return bitstream.pack(codec.fingerprint, 64, 64, coder.encode(coder.quantize(y, z)))


def main() -> None:
    sys.path.insert(0, str(HERE.parent / "coding"))
    from conftest import ARCHITECTURES, decisive, draw, enlivened

    digests = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    for name in (*ARCHITECTURES, ROI):
        path = HERE / f"{name}.safetensors"
        if not path.exists():
            codec = enlivened(name.removesuffix("-roi"), CHANNELS)
            (decisive(codec, AllocatorSettings("roi", 5, 8)) if name == ROI else codec).save(path, half=True)
        codec = taskpress.load(path)
        for kind in ("picture", "tiles") if name == ROI else ("picture", "far", "tiles"):
            file = file_of(name, kind)
            if file.exists():
                continue
            tile = TILE if kind == "tiles" else 0
            data = far_values(codec) if kind == "far" else codec.encode(draw(*SIZE, seed=7), tile)
            file.write_bytes(data)
            digests.setdefault(name, {})[kind] = latent_digest(codec, data)
            if kind == "picture":
                pixels = codec.decode(data, "numpy")[::THIN, ::THIN]
                Image.fromarray(np.ascontiguousarray(pixels)).save(path.with_suffix(".png"), optimize=True)
    DIGESTS.write_text(json.dumps(digests, indent=1) + "\n")


if __name__ == "__main__":
    main()
