"""Pictures to files and back, in one piece or tile by tile.

    picture ──► g_a ──► y ──► cut into tiles ──► each: allocator, h_a, entropy coding ──► payloads
    payloads ──► each: entropy coding ──► ŷ of the tile ──► joined ──► g_s ──► pixels

Only the latent is cut. Both transforms run over the picture as if it were in one piece (strips.py), so there
is no seam in the pixels. A tile's latent needs no other tile to be decoded; the price is a hyper-latent and a
context that begin anew. Its pixels depend on its neighbours' latents as they would without tiles.
"""

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import SupportsIndex, overload

import numpy as np
import torch
from torch import Tensor

from taskpress.coding import bitstream
from taskpress.coding.allocation import Allocator, Decision
from taskpress.coding.bitstream import Header
from taskpress.coding.entropy_coding import EntropyCoder
from taskpress.coding.grid import CELL, MAX_TILE_UNITS, UNIT, Box, Grid
from taskpress.coding.hyperprior import HyperpriorModel
from taskpress.coding.images import Picture, to_array
from taskpress.coding.level_map import read_levels, split_section, write_levels
from taskpress.coding.memory import give_back
from taskpress.coding.parallel import in_parallel
from taskpress.coding.refinement import Refinement, refine
from taskpress.coding.strips import analyze, needed, synthesize
from taskpress.coding.transforms import Transforms
from taskpress.errors import BitstreamError, ConfigError

UNTILED_PIXELS = 2**23
"""The largest picture that is not cut unasked: 3840×2160 and less."""
REFINED_VALUES = 2**28
"""Pixels times N of the largest picture that is refined: 22 bytes each are kept for a backward pass."""
SIDES = range(1024, 1600, 64)
"""Side of tiles where nobody asked for one. Larger ones cost fewer bits, and more memory."""


@dataclass(frozen=True)
class PictureCoder:
    """Codes by the weights as they were when it was made; to be used only while they are the same."""

    fingerprint: str
    model: HyperpriorModel
    allocator: Allocator | None
    coder: EntropyCoder
    transforms: Transforms

    def encode(self, picture: Picture, tile: int | None, refinement: Refinement | None = None) -> bytes:
        """The bitstream; `tile` is a side in pixels, 0 for one piece, None for what suits the size.

        ConfigError for a side that tiles cannot have, and for a refinement of a picture in several tiles or
        of too many pixels.
        """
        grid = cut(picture.box, tile)
        if refinement is not None:
            self._check_refinable(refinement, picture, grid)
        with torch.inference_mode():
            y = analyze(self.transforms.analysis, picture, self.model.N, self._device)
        if is_large(picture.box):
            give_back()

        def piece(number: int) -> bytes:
            box = grid.box(number).outward(UNIT)
            with torch.inference_mode():
                part, decision = self._allocated(y[(..., *box.slices(CELL))], picture, box)
            if refinement is not None:
                gain = None if decision is None else decision.gain
                part = refine(self, picture.window(picture.box).to(self._device), part, gain, refinement)
            data = self.payload(part)
            if decision is None:
                return data
            return write_levels(decision.levels[0].cpu().numpy(), self._levels) + data

        payloads = in_parallel(piece, range(len(grid)))
        if len(grid) == 1:
            return bitstream.pack(self.fingerprint, picture.width, picture.height, payloads[0])
        return bitstream.pack_tiles(self.fingerprint, grid, payloads)

    def _check_refinable(self, refinement: Refinement, picture: Picture, grid: Grid) -> None:
        _, lmbda, steps, learning_rate, _ = refinement
        if not (steps >= 1 and 0 < lmbda < math.inf and 0 < learning_rate < math.inf):
            raise ConfigError(
                f"a refinement of {steps} steps, λ {lmbda} and learning_rate {learning_rate}: all are above 0"
            )
        if (pixels := picture.width * picture.height) > (most := REFINED_VALUES // self.model.N):
            raise ConfigError(
                f"a picture of {pixels} pixels is not refined with N = {self.model.N}: more than {most} take "
                "6 GB and more; scale it down first (--resize)"
            )
        if len(grid) > 1:
            raise ConfigError(
                f"a picture in {len(grid)} tiles is not refined, since a recognizer sees it whole; code it "
                "in one piece (--tile 0)"
            )

    @torch.no_grad()
    def payload(self, y: Tensor) -> bytes:
        """What a file holds of a latent [1, M, h, w]."""
        return self.coder.encode(self.coder.quantize(y[0], self.model.h_a(y)[0]))

    @torch.no_grad()
    def quantized(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """ŷ [B, M, h, w] and ẑ [B, N, h/4, w/4], as files hold them, of latents y [B, M, h, w]."""
        coded = [self.coder.quantize(*pair) for pair in zip(y, self.model.h_a(y), strict=True)]
        y_hat, z_hat = [one.y_hat for one in coded], [one.z_hat for one in coded]
        return torch.stack(y_hat).to(y.device), torch.stack(z_hat).to(y.device)

    def level_map(self, picture: Picture, tile: int | None) -> np.ndarray:
        """int64 [h, w], as `encode` chooses the levels. The codec has an allocator."""
        assert self.allocator is not None
        grid = cut(picture.box, tile)
        padded = picture.box.outward(UNIT)
        levels = np.empty((padded.height // CELL, padded.width // CELL), dtype=np.int64)
        for number in range(len(grid)):
            box = grid.box(number).outward(UNIT)
            with torch.inference_mode():
                decision = self.allocator(picture.window(box).to(self._device))
            levels[box.slices(CELL)] = decision.levels[0].cpu().numpy()
        return levels

    def decode_to_array(self, data: bytes, region: tuple[int, int, int, int] | None) -> np.ndarray:
        """uint8 [H, W, 3] of the picture, or of a region (left, top, right, bottom) of it."""
        header, payloads = self._opened(data)
        box = region_of(header, region)
        array = np.empty((box.height, box.width, 3), dtype=np.uint8)
        for piece, pixels in self._pixels(header, payloads, box):
            array[piece.moved(-box.left, -box.top).slices()] = to_array(pixels)
        return array

    def decode_to_tensor(self, data: bytes, region: tuple[int, int, int, int] | None) -> Tensor:
        """float32 [3, H, W] in [0, 1], on the model's device."""
        header, payloads = self._opened(data)
        box = region_of(header, region)
        tensor = torch.empty(3, box.height, box.width, dtype=torch.float32, device=self._device)
        for piece, pixels in self._pixels(header, payloads, box):
            tensor[(..., *piece.moved(-box.left, -box.top).slices())] = pixels.clamp(0, 1)
        return tensor

    def _opened(self, data: bytes) -> tuple[Header, bytes]:
        header, payloads = bitstream.unpack(data)
        if header.fingerprint != self.fingerprint:
            raise BitstreamError(
                f"the bitstream was written by codec {header.fingerprint}, this one is {self.fingerprint}"
            )
        return header, payloads

    @torch.no_grad()
    def _pixels(self, header: Header, payloads: bytes, region: Box) -> Iterator[tuple[Box, Tensor]]:
        """What `synthesize` yields, of a region."""
        picture = Box(0, 0, header.width, header.height)
        seen = needed(self.transforms.synthesis, region, picture)
        latent = self._latent(header, payloads, seen)
        if is_large(seen):
            give_back()
        yield from synthesize(self.transforms.synthesis, latent, seen, region, picture, self.model.N)
        if is_large(seen):
            give_back()

    def _latent(self, header: Header, payloads: bytes, seen: Box) -> Tensor:
        """The decoded latent, float32 [1, M, h, w], of the pixels `seen`."""
        grid = cut(Box(0, 0, header.width, header.height), header.side)
        sections: dict[int, bytes] = {}
        coded: dict[int, bytes] = {}
        # Every payload has to be long enough for its tile before anything of the picture's size is allocated.
        for number in grid.touched(seen):
            payload = bitstream.tile_payload(header, payloads, number) if header.side else payloads
            if self.allocator is not None:
                sections[number], payload = split_section(payload)
            box = grid.box(number).outward(UNIT)
            self.coder.check_length(len(payload), box.height // CELL, box.width // CELL)
            coded[number] = payload
        latent = torch.empty(
            (1, self.model.M, seen.height // CELL, seen.width // CELL),
            dtype=torch.float32,
            device=self._device,
        )

        # The caller's mode does not reach other threads.
        @torch.inference_mode()
        def fill(number: int) -> None:
            box = grid.box(number).outward(UNIT)
            try:
                tile = self._tile(coded[number], sections.get(number), box)
            except BitstreamError as error:
                if not header.side:
                    raise
                raise BitstreamError(f"{grid.name(number)}: {error}") from error
            shared = box.within(seen)
            source, target = (shared.moved(-b.left, -b.top).slices(CELL) for b in (box, seen))
            latent[(..., *target)] = tile[(..., *source)]

        in_parallel(fill, list(coded))
        return latent

    def _tile(self, payload: bytes, section: bytes | None, box: Box) -> Tensor:
        """The decoded latent [1, M, h, w] of a tile that fills a box."""
        rows, columns = box.height // CELL, box.width // CELL
        latent = self.coder.decode(payload, rows, columns)[None].to(self._device)
        if self.allocator is None or section is None:
            return latent
        levels = torch.from_numpy(read_levels(section, rows, columns, self._levels))
        return latent / self.allocator.gains(levels[None].to(self._device))

    def _allocated(self, y: Tensor, picture: Picture, box: Box) -> tuple[Tensor, Decision | None]:
        """A tile's latent as it is quantized, and what the allocator decided of it."""
        if self.allocator is None:
            return y, None
        decision = self.allocator(picture.window(box).to(self._device))
        return self.allocator.attend(y) * decision.gain, decision

    @property
    def _levels(self) -> int:
        assert self.allocator is not None
        return self.allocator.settings.levels

    @property
    def _device(self) -> torch.device:
        return self.model.entropy_bottleneck.quantiles.device


def cut(picture: Box, tile: int | None) -> Grid:
    """The tiles of a picture: of this side, of what suits the picture where it is None, or one (0).

    ConfigError for a side that tiles cannot have.
    """
    if tile is None:
        tile = min(SIDES, key=lambda side: borders(picture, side)) if is_large(picture) else 0
    tile = check_tile(tile)
    whole = max(picture.outward(UNIT))
    return Grid(picture.width, picture.height, tile or whole)


@overload
def check_tile(tile: None) -> None: ...
@overload
def check_tile(tile: SupportsIndex) -> int: ...
def check_tile(tile: SupportsIndex | None) -> int | None:
    """The side, as it came; ConfigError for one that tiles cannot have."""
    if tile is None:
        return None
    tile = _whole(tile, "tiles of side")
    if tile < 0 or tile % UNIT or tile > UNIT * MAX_TILE_UNITS:
        raise ConfigError(
            f"tiles of side {tile}: a multiple of {UNIT} from {UNIT} to {UNIT * MAX_TILE_UNITS}, "
            "or 0 for a picture in one piece"
        )
    return tile


def _whole(number: SupportsIndex, what: str) -> int:
    """The number as Python's own integer, which does not wrap around; ConfigError for what is none."""
    try:
        return operator.index(number)
    except TypeError:
        raise ConfigError(f"{what} {number!r}: whole numbers of pixels are wanted") from None


def is_large(box: Box) -> bool:
    return box.width * box.height > UNTILED_PIXELS


def borders(picture: Box, side: int) -> int:
    """Pixels along the borders between tiles of this side, where bits are lost."""
    grid = Grid(picture.width, picture.height, side)
    return (grid.columns - 1) * picture.height + (grid.rows - 1) * picture.width


def region_of(header: Header, region: tuple[int, int, int, int] | None) -> Box:
    """The region, or the whole picture for None. ConfigError for what is empty or not within the picture."""
    picture = Box(0, 0, header.width, header.height)
    if region is None:
        return picture
    try:
        left, top, right, bottom = region
    except (TypeError, ValueError):
        raise ConfigError(f"region {region}: it takes left, top, right and bottom") from None
    box = Box(*(_whole(side, "region") for side in (left, top, right, bottom)))
    if box.width < 1 or box.height < 1 or box.within(picture) != box:
        raise ConfigError(
            f"region {','.join(map(str, box))}: left, top, right and bottom with left < right and top < "
            f"bottom have to lie within the picture's {header.width}×{header.height} pixels"
        )
    return box
