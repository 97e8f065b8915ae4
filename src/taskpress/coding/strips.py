"""Transforms over a picture of any size, in memory that does not grow with it.

The picture goes through g_a, the latent through g_s, in strips of rows (streams.py). What is wider than
`BAND` is cut into vertical bands first, with as many columns more to either side as the transform reaches:
there, and nowhere else, something is computed twice. A transform with layers of a user's own, whose reach
nobody knows, gets the whole picture at once.
"""

from collections.abc import Iterator
from itertools import pairwise
from math import ceil, inf

import torch
from torch import Tensor

from taskpress.coding.grid import CELL, UNIT, Box
from taskpress.coding.images import Picture
from taskpress.coding.transforms import Transform

BAND = 4096
STRIP_VALUES = 2**24
"""Pixels of a strip times N: 16 MB a tensor in the widest layers, which work at half the size. Of more than
32 MB the C library gives memory back at once and gets the next one's page by page: a fifth of all time."""


def analyze(g_a: Transform, picture: Picture, channels: int, device: torch.device) -> Tensor:
    """The latent y, float32 [1, M, h, w], of a picture padded to multiples of 64; `channels` is N."""
    whole = picture.box.outward(UNIT)
    y: Tensor | None = None
    reach = g_a.reach
    for band in [whole] if reach is None else _bands(whole):
        seen = whole if reach is None else band.grown(ceil(reach / CELL) * CELL).outward(CELL).within(whole)
        windows = (
            picture.window(Box(seen.left, top, seen.right, bottom)).to(device)
            for top, bottom in _cuts(seen, _at_once(g_a, channels))
        )
        at = 0
        for rows in g_a.in_strips(windows):
            if y is None:
                y = rows.new_empty((1, rows.shape[1], whole.height // CELL, whole.width // CELL))
            inside = band.moved(-seen.left, 0).slices(CELL)[1]
            y[:, :, at : at + rows.shape[2], band.slices(CELL)[1]] = rows[..., inside]
            at += rows.shape[2]
    assert y is not None
    return y


def needed(g_s: Transform, region: Box, picture: Box) -> Box:
    """The pixels, to multiples of 64, on whose latents those of a region of a picture depend.

    Of the whole picture that is all of its latent, the padding's too, as training sees it: fewer rows would
    round otherwise.
    """
    whole, reach = picture.outward(UNIT), g_s.reach
    return whole if reach is None else region.grown(ceil(reach) * CELL).outward(UNIT).within(whole)


def synthesize(
    g_s: Transform, latent: Tensor, seen: Box, region: Box, picture: Box, channels: int
) -> Iterator[tuple[Box, Tensor]]:
    """The pixels of a region, piece by piece, from the latent [1, M, h, w] of the pixels `seen`.

    `seen` is what `needed` says of the region, or more; `channels` is N. Yields (box, its float32
    [3, height, width], not clamped).
    """
    for band in [region] if g_s.reach is None else _bands(region):
        own = needed(g_s, band, picture)
        rows, columns = own.moved(-seen.left, -seen.top).slices(CELL)
        cells = latent[:, :, rows, columns]
        cuts = (
            cells[:, :, (top - own.top) // CELL : (bottom - own.top) // CELL]
            for top, bottom in _cuts(own, _at_once(g_s, channels))
        )
        top = own.top
        for pixels in g_s.in_strips(cuts):
            bottom = top + pixels.shape[2]
            box = band.within(Box(band.left, top, band.right, bottom))
            if box.height > 0:
                rows, columns = box.moved(-own.left, -top).slices()
                yield box, pixels[0, :, rows, columns]
            top = bottom


def _at_once(transform: Transform, channels: int) -> float:
    """How many pixels go through a transform of so many channels at once."""
    return inf if transform.reach is None else STRIP_VALUES // channels


def _bands(region: Box) -> list[Box]:
    """Side by side, none wider than `BAND`, their sides on multiples of 64 but for the outermost."""
    count = -(-region.width // BAND)
    inner = [region.left + region.width * i // count // UNIT * UNIT for i in range(1, count)]
    sides = [region.left, *inner, region.right]
    return [region._replace(left=left, right=right) for left, right in pairwise(sides)]


def _cuts(box: Box, pixels: float) -> list[tuple[int, int]]:
    """(top, bottom) of strips of about so many pixels."""
    count = max(1, round(box.width * box.height / pixels))
    rows = box.height if count == 1 else max(1, round(box.height / count / CELL)) * CELL
    return list(pairwise([*range(box.top, box.bottom, rows), box.bottom]))
