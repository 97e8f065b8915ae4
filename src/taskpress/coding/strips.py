"""Transforms over a picture of any size, strip by strip, in memory that does not grow with its height.

    rows of x ──► layer ──► layer ──► … ──► rows of the outcome
                   └─ keeps the last rows it saw: what the next strip's first rows depend on

Every layer of g_a or g_s works on a strip and the few rows that it kept of the one above. What it gives is
what it would give for the whole picture, up to the rounding of float32: nothing is missing at a strip's edge,
and little is computed twice (each layer's own reach a strip, not the sum of them all). Pictures wider than
`BAND` are worked on in vertical bands, with as many columns more to either side as the transform reaches.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor, nn

from taskpress.coding.entropy_models import at_least_float32
from taskpress.coding.grid import UNIT, Box
from taskpress.coding.images import Picture
from taskpress.coding.layers import (
    GDN,
    AttentionBlock,
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
)

CELL = 16
"""Pixels a side of a latent position."""
STRIP_PIXELS = 3 * 2**18
"""How much is worked on at once."""
BAND = 4096
THIN = 2 * CELL


class Reach(NamedTuple):
    """How far a layer looks and what it does to size.

    rows   of the input that a row of the output depends on, to either side of its own place
    scale  rows of output to a row of input
    """

    rows: Fraction
    scale: Fraction


def reach(layer: nn.Module) -> Reach:
    """Of a layer of the transforms, or a sequence of them. TypeError for a layer it does not know."""
    match layer:
        case nn.Conv2d():
            return Reach(Fraction(_first(layer.kernel_size) // 2), Fraction(1, _first(layer.stride)))
        case nn.ConvTranspose2d():
            stride = _first(layer.stride)
            return Reach(Fraction(_first(layer.kernel_size) // 2, stride), Fraction(stride))
        case nn.PixelShuffle():
            return Reach(Fraction(0), Fraction(layer.upscale_factor))
        case GDN():
            return Reach(Fraction(0), Fraction(1))
        case ResidualBlock():
            return _chain(layer.conv1, layer.conv2)
        case ResidualBlockWithStride():
            return _chain(layer.conv1, layer.conv2)
        case ResidualBlockUpsample():
            return _chain(layer.subpel_conv, layer.conv)
        case AttentionBlock():
            # Three residual units, each a 3×3 convolution between two of 1×1.
            return Reach(Fraction(3), Fraction(1))
        case nn.Sequential():
            return _chain(*layer)
    raise TypeError(f"how far a {type(layer).__name__} reaches is not known")


def _chain(*layers: nn.Module) -> Reach:
    rows, scale = Fraction(0), Fraction(1)
    for layer in layers:
        own = reach(layer)
        rows, scale = rows + own.rows / scale, scale * own.scale
    return Reach(rows, scale)


def _first(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else size[0]


def analyze(g_a: nn.Sequential, picture: Picture, device: torch.device) -> Tensor:
    """The latent y, float32 [1, M, h, w], of a picture padded to multiples of 64."""
    whole = picture.box.outward(UNIT)
    y: Tensor | None = None
    for band in _bands(whole):
        seen = band.grown(_margin(g_a, CELL)).outward(CELL).within(whole)
        windows = (
            picture.window(Box(seen.left, top, seen.right, bottom)).to(device) for top, bottom in _cuts(seen)
        )
        at = 0
        for rows in in_strips(g_a, windows):
            rows = at_least_float32(rows)
            if y is None:
                y = rows.new_empty((1, rows.shape[1], whole.height // CELL, whole.width // CELL))
            inside = band.moved(-seen.left, 0).slices(CELL)[1]
            y[:, :, at : at + rows.shape[2], band.slices(CELL)[1]] = rows[..., inside]
            at += rows.shape[2]
    assert y is not None
    return y


def needed(g_s: nn.Sequential, region: Box, picture: Box) -> Box:
    """The pixels, to multiples of 16, on whose latents those of a region of a picture depend."""
    return region.grown(_margin(g_s, 1) * CELL).outward(CELL).within(picture.outward(UNIT))


def synthesize(
    g_s: nn.Sequential, latent: Tensor, seen: Box, region: Box, picture: Box
) -> Iterator[tuple[Box, Tensor]]:
    """The pixels of a region, piece by piece, from the latent [1, M, h, w] of the pixels `seen`.

    `seen` is what `needed` says of the region, or more. Yields (box, its float32 [3, height, width], not
    clamped).
    """
    for band in _bands(region):
        own = needed(g_s, band, picture)
        rows, columns = own.moved(-seen.left, -seen.top).slices(CELL)
        cells = latent[:, :, rows, columns]
        cuts = (
            cells[:, :, (top - own.top) // CELL : (bottom - own.top) // CELL] for top, bottom in _cuts(own)
        )
        top = own.top
        for pixels in in_strips(g_s, cuts):
            bottom = top + pixels.shape[2]
            box = band.within(Box(band.left, top, band.right, bottom))
            if box.height > 0:
                rows, columns = box.moved(-own.left, -top).slices()
                yield box, at_least_float32(pixels[0, :, rows, columns])
            top = bottom


def _margin(transform: nn.Sequential, step: int) -> int:
    """Rows of input, to multiples of `step`, that a row of output depends on to either side."""
    return ceil(reach(transform).rows / step) * step


def _bands(region: Box) -> list[Box]:
    """Side by side, none wider than `BAND`, their sides on multiples of 64 but for the outermost."""
    count = -(-region.width // BAND)
    inner = [region.left + region.width * i // count // UNIT * UNIT for i in range(1, count)]
    sides = [region.left, *inner, region.right]
    return [region._replace(left=left, right=right) for left, right in pairwise(sides)]


def _cuts(box: Box) -> list[tuple[int, int]]:
    """(top, bottom) of strips that hold no more than `STRIP_PIXELS`, or, if need be, of `THIN` rows."""
    rows = max(STRIP_PIXELS // box.width // CELL * CELL, THIN)
    if box.height <= rows:
        return [(box.top, box.bottom)]
    # The last strip is thin, for with it comes all that the layers have held back.
    sides = [*range(box.top, box.bottom - THIN, rows), box.bottom - THIN, box.bottom]
    return list(pairwise(sides))


def in_strips(layers: nn.Sequential, strips: Iterable[Tensor]) -> Iterator[Tensor]:
    """The rows of `layers(x)`, some at a time, from those of x.

    strips  x [1, C, H, W] cut into strips of rows, none of them empty, each but the last a multiple of what
            the layers divide sizes by in all
    yields  tensors [1, C', some rows, W']: all rows of the outcome, in order
    """
    stages = [_Stage(layer) for layer in layers]
    for strip, last in _with_last(strips):
        rows: Tensor | None = strip
        for stage in stages:
            if rows is not None:
                stage.feed(rows)
            elif not last:
                break
            # Not to be held while the next layer works on its copy.
            rows = None
            rows = stage.give(last)
        if rows is not None:
            yield rows


class _Stage:
    """A layer with the rows of its input that are still needed."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        rows, self.scale = reach(layer)
        self.step = max(1, int(1 / self.scale))
        self.reach = ceil(rows / self.step) * self.step
        self.seen: Tensor | None = None
        # Rows of input before those in `seen`, and those whose outcome has been given.
        self.start = self.done = 0

    def feed(self, rows: Tensor) -> None:
        """More rows of input."""
        self.seen = rows if self.seen is None else torch.cat((self.seen, rows), 2)

    def give(self, last: bool) -> Tensor | None:
        """The outcome of all rows that are sure now; None where that is none."""
        assert self.seen is not None
        stop = self.start + self.seen.shape[2]
        sure = stop if last else (stop - self.reach) // self.step * self.step
        if sure <= self.done:
            return None
        # The layer pads with zeros above and below: right at the picture's edges, out of reach elsewhere.
        outcome = self.layer(self.seen)
        first, end = (int((row - self.start) * self.scale) for row in (self.done, sure))
        start = max(sure - self.reach, self.start)
        self.seen = self.seen[:, :, start - self.start :].clone()
        self.start, self.done = start, sure
        return outcome[:, :, first:end]


def _with_last(strips: Iterable[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Each with whether it is the last."""
    before: Tensor | None = None
    for strip in strips:
        if before is not None:
            yield before, False
        before = strip
    if before is not None:
        yield before, True
