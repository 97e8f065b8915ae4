"""Files to pictures: tile by tile to the latent, and from the whole latent to pixels."""

from __future__ import annotations

import numpy as np

from .container import Codec, read_container
from .latent import decode_latent
from .level_map import decode_levels, split_level_map
from .synthesis import synthesize


def decode(codec: Codec, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(ŷ · 2^8 int64 [M, h, w], pixels uint8 [H, W, 3]) of a file."""
    container = read_container(data)
    if container.fingerprint != codec.fingerprint:
        raise ValueError("the file is another codec's")
    height, width = latent_size(container.height), latent_size(container.width)
    latent = np.zeros((codec.latent_channels, height, width), np.int64)
    levels = None if codec.allocator is None else np.zeros((height, width), np.int64)
    for tile in container.tiles:
        top, left, rows, columns = (
            tile.top // 16,
            tile.left // 16,
            latent_size(tile.height),
            latent_size(tile.width),
        )
        here = slice(top, top + rows), slice(left, left + columns)
        payload = tile.payload
        if levels is not None:
            section, payload = split_level_map(payload)
            levels[here] = decode_levels(section, rows, columns, codec.allocator["levels"])
        latent[:, *here] = decode_latent(codec, payload, rows, columns)
    return latent, synthesize(codec, latent, container.height, container.width, levels)


def latent_size(side: int) -> int:
    return 4 * -(-side // 64)
