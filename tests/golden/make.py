"""Writes the golden files beside it: tiny codecs of every architecture, files of each, what they decode to.

    python tests/golden/make.py

To be run when `VERSION` of the container or `CODING` changes, and never to make a failing test pass: a file
that was written once decodes for ever.
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

HERE = Path(__file__).parent
CHANNELS = 4
SIZE = (150, 230)
# Pixels are kept thinned out, for size.
THIN = 4


def latent_digest(codec: taskpress.Codec, data: bytes) -> str:
    """SHA-256 of ŷ·256 [M, h, w] as little-endian int32."""
    header, payload = bitstream.unpack(data)
    rows, columns = (4 * -(-side // 64) for side in (header.height, header.width))
    latent = codec._freeze().coder.decode(payload, rows, columns)
    return hashlib.sha256((latent * 256).numpy().astype("<i4").tobytes()).hexdigest()


def far_values(codec: taskpress.Codec) -> bytes:
    """A 64×64 file whose latents lie far outside the tables of probability."""
    generator = torch.Generator().manual_seed(1)
    coder = codec._freeze().coder
    y = 100 * torch.randn(codec.latent_channels, 4, 4, generator=generator)
    z = 1000 * torch.randn(codec.model.N, 1, 1, generator=generator)
    return bitstream.pack(codec.fingerprint, 64, 64, coder.encode(coder.quantize(y, z)))


def main() -> None:
    sys.path.insert(0, str(HERE.parent / "coding"))
    from conftest import ARCHITECTURES, draw, enlivened

    digests = {}
    for architecture in ARCHITECTURES:
        path = HERE / f"{architecture}.safetensors"
        enlivened(architecture, CHANNELS).save(path, half=True)
        codec = taskpress.load(path)
        data = codec.encode(draw(*SIZE, seed=7))
        path.with_suffix(".tpc").write_bytes(data)
        pixels = codec.decode(data, "numpy")[::THIN, ::THIN]
        Image.fromarray(np.ascontiguousarray(pixels)).save(path.with_suffix(".png"), optimize=True)
        digests[architecture] = {"picture": latent_digest(codec, data)}
        far = far_values(codec)
        (HERE / f"{architecture}-far.tpc").write_bytes(far)
        digests[architecture]["far"] = latent_digest(codec, far)
    (HERE / "latents.json").write_text(json.dumps(digests, indent=1) + "\n")


if __name__ == "__main__":
    main()
