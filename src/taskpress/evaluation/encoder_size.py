"""What a learned encoder weighs in use: parameters, multiply-adds, milliseconds; an allocator's share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskpress.coding.codec import Codec
from taskpress.coding.grid import CELL, UNIT, Box
from taskpress.coding.level_map import write_levels
from taskpress.coding.picture_coding import cut
from taskpress.coding.refinement import Refinement
from taskpress.evaluation.stored import Stored


class AllocatorSize(Stored):
    """An allocator's share of an encoder: parameters, multiply-adds per pixel, milliseconds a picture to
    choose and to code its map; and what its map costs in the files, bits per pixel of all pictures."""

    parameters: int
    macs_per_pixel: float
    ms: float
    map_bpp: float


class EncoderSize(Stored):
    """What a sender carries: parameters, multiply-adds per pixel, milliseconds of `encode` a picture.

    ms is null in older results; allocator is null where the codec has none, else its share of the whole.
    besides: what refining runs, which only ms counts; null where latents are not refined.
    """

    parameters: int
    macs_per_pixel: float
    ms: float | None = None
    allocator: AllocatorSize | None = None
    besides: str | None = None


class MapUse(NamedTuple):
    """Seconds to choose and code one picture's level map, and bits it takes in the file."""

    seconds: float
    bits: int


def use_map(codec: Codec, image: NDArray[np.uint8], tile: int | None = None) -> MapUse | None:
    """Chooses and codes a picture's level map once more, by itself; None for a codec without allocator.

    tile: as in `Codec.encode`; every tile has a map of its own
    """
    if codec.allocator is None:
        return None
    started = time.perf_counter()
    levels = codec.level_map(image, tile)
    assert levels is not None
    grid = cut(Box(0, 0, image.shape[1], image.shape[0]), tile)
    tiles = [levels[grid.box(number).outward(UNIT).slices(CELL)] for number in range(len(grid))]
    sections = [write_levels(one, codec.allocator.settings.levels) for one in tiles]
    return MapUse(time.perf_counter() - started, 8 * sum(map(len, sections)))


def encoder_size(
    codec: Codec,
    seconds: float,
    pixels: int,
    pictures: int,
    maps: Sequence[MapUse],
    refinement: Refinement | None,
) -> EncoderSize:
    """What an encoder is and costs; `pictures` pictures with `pixels` in all took it `seconds`."""
    cost, share = codec.encoder_cost(), codec.allocator_cost()
    allocator = None
    if share is not None:
        allocator = AllocatorSize(
            parameters=share.parameters,
            macs_per_pixel=share.macs_per_pixel,
            ms=1e3 * sum(one.seconds for one in maps) / pictures,
            map_bpp=sum(one.bits for one in maps) / pixels,
        )
    return EncoderSize(
        parameters=cost.parameters,
        macs_per_pixel=cost.macs_per_pixel,
        ms=1e3 * seconds / pictures,
        allocator=allocator,
        besides=refinement and f"{refinement.steps} times g_s and {refinement.judge}, forward and backward",
    )


def mean_size(sizes: Sequence[EncoderSize | None]) -> EncoderSize | None:
    """The mean over a curve's operating points, whose encoders differ in their times alone.

    None where none is known.
    """
    known = [size for size in sizes if size is not None]
    if not known:
        return None
    times = [size.ms for size in known if size.ms is not None]
    shares = [size.allocator for size in known if size.allocator is not None]
    first = known[0].model_copy(update={"ms": sum(times) / len(times) if times else None})
    if shares:
        means = {name: sum(getattr(s, name) for s in shares) / len(shares) for name in ("ms", "map_bpp")}
        first = first.model_copy(update={"allocator": shares[0].model_copy(update=means)})
    return first
