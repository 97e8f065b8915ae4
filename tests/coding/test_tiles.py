"""Pictures in tiles: what comes back, tiles alone, regions alone, and what damage reaches."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpress.coding import bitstream, picture_coding
from taskpress.coding.codec import Codec
from taskpress.coding.grid import Box, Grid
from taskpress.coding.images import open_picture, to_array
from taskpress.coding.parallel import in_parallel
from taskpress.errors import BitstreamError, ConfigError

HEIGHT, WIDTH, SIDE = 150, 260, 128
LIMIT = Box(0, 0, WIDTH, HEIGHT)


def levels_apart(one: np.ndarray, other: np.ndarray) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max())


def alone(codec: Codec, data: bytes, number: int) -> torch.Tensor:
    """The latent of one tile, from its own bytes."""
    header, payload = bitstream.unpack(bitstream.extract_tile(data, number))
    rows, columns = (4 * -(-side // 64) for side in (header.height, header.width))
    return codec._freeze().coder.decode(payload, rows, columns)


def test_a_tiled_picture_is_the_synthesis_of_its_tiles_latents(codec: Codec, picture) -> None:
    array = picture(HEIGHT, WIDTH)
    data = codec.encode(array, tile=SIDE)
    header = bitstream.read_header(data)
    assert (header.version, header.side, len(header.tiles)) == (3, SIDE, 6)
    rows = [torch.cat([alone(codec, data, 3 * row + column) for column in range(3)], 2) for row in range(2)]
    with torch.inference_mode():
        expected = codec.model.g_s(torch.cat(rows, 1)[None])[0, :, :HEIGHT, :WIDTH]
    torch.testing.assert_close(codec.decode(data, "tensor"), expected.clamp(0, 1), rtol=0, atol=1e-5)
    assert levels_apart(codec.decode(data, "numpy"), to_array(expected)) <= 1


def test_every_tile_is_coded_from_the_whole_pictures_latent(codec: Codec, picture) -> None:
    """Not from that of the tile's pixels alone: there would be a seam."""
    array = picture(HEIGHT, WIDTH)
    data = codec.encode(array, tile=SIDE)
    with torch.inference_mode():
        y = codec.model.g_a(open_picture(array).window(LIMIT.outward(64)))[0]
    for number in range(6):
        box = Grid(WIDTH, HEIGHT, SIDE).box(number).outward(64)
        assert (alone(codec, data, number) - y[(..., *box.slices(16))]).abs().max() <= 0.5 + 1e-3


def test_one_piece_is_written_as_ever(codec: Codec, picture) -> None:
    array = picture(HEIGHT, WIDTH)
    coder = codec._freeze().coder
    with torch.inference_mode():
        y = codec.model.g_a(open_picture(array).window(LIMIT.outward(64)))
        payload = coder.encode(coder.quantize(y[0], codec.model.h_a(y)[0]))
    data = bitstream.pack(codec.fingerprint, WIDTH, HEIGHT, payload)
    assert codec.encode(array) == data
    assert codec.encode(array, tile=0) == data
    assert codec.encode(array, tile=320) == data, "one tile is no tile"


def test_tiles_of_64_to_any_side(lively, picture) -> None:
    codec = lively("cheng2020-anchor")

    @settings(max_examples=15, deadline=None)
    @given(height=st.integers(1, 200), width=st.integers(1, 200), units=st.integers(1, 4))
    def check(height: int, width: int, units: int) -> None:
        array = picture(height, width)
        data = codec.encode(array, tile=64 * units)
        header = bitstream.read_header(data)
        count = -(-width // (64 * units)) * -(-height // (64 * units))
        assert (header.width, header.height, header.size) == (width, height, len(data))
        assert len(header.tiles) == (count if count > 1 else 0)
        assert codec.decode(data, "numpy").shape == array.shape

    check()


def test_a_region_is_the_crop_of_the_whole(lively, picture) -> None:
    codec = lively("cheng2020-attention", 8)
    array = picture(HEIGHT, WIDTH)
    files = [codec.encode(array, tile=tile) for tile in (0, 64)]
    wholes = [codec.decode(data, "tensor") for data in files]
    side = st.tuples(st.integers(0, 259), st.integers(1, 260)).filter(lambda pair: pair[0] < pair[1])

    @settings(max_examples=5, deadline=None)
    @given(columns=side, rows=side.map(lambda pair: (pair[0] // 2, -(-pair[1] // 2))))
    def check(columns: tuple[int, int], rows: tuple[int, int]) -> None:
        box = Box(columns[0], rows[0], columns[1], rows[1])
        for data, whole in zip(files, wholes, strict=True):
            found = codec.decode(data, "tensor", region=box)
            torch.testing.assert_close(found, whole[(..., *box.slices())], rtol=0, atol=1e-5)
            crop = to_array(whole)[box.slices()]
            assert levels_apart(np.asarray(codec.decode(data, region=box)), crop) <= 1

    check()


def test_only_what_a_region_needs_is_decoded(lively, picture) -> None:
    """Damage elsewhere is not even seen; damage in what is needed names the tile."""
    codec = lively("mean-scale-hyperprior")
    array = picture(64, 640)
    data = codec.encode(array, tile=64)
    damaged = bytearray(data)
    damaged[-1] ^= 1
    region = (0, 0, 300, 64)
    expected = codec.decode(data, "numpy", region=region)
    assert np.array_equal(codec.decode(bytes(damaged), "numpy", region=region), expected)
    with pytest.raises(BitstreamError, match=r"tile 9 \(column 9, row 0\)"):
        codec.decode(bytes(damaged))
    # The last tile's latents reach into the last columns of the one before.
    with pytest.raises(BitstreamError, match="tile 9"):
        codec.decode(bytes(damaged), region=(560, 0, 576, 64))


@pytest.mark.parametrize("region", [(0, 0, 0, 5), (5, 5, 4, 9), (-1, 0, 5, 5), (0, 0, WIDTH + 1, 5)])
def test_regions_outside_are_refused(lively, picture, region: tuple[int, int, int, int]) -> None:
    codec = lively("mean-scale-hyperprior")
    data = codec.encode(picture(HEIGHT, WIDTH), tile=SIDE)
    with pytest.raises(ConfigError, match=f"{region[0]},{region[1]}.*{WIDTH}×{HEIGHT}"):
        codec.decode(data, region=region)


def test_regions_of_numpys_integers_and_of_no_integers(lively, picture) -> None:
    codec = lively("mean-scale-hyperprior")
    data = codec.encode(picture(HEIGHT, WIDTH), tile=np.uint16(SIDE))
    expected = codec.decode(data, "numpy", region=(8, 9, 100, 90))
    for kind in (np.uint8, np.int8, np.uint64):
        corners = tuple(kind(side) for side in (8, 9, 100, 90))
        assert np.array_equal(codec.decode(data, "numpy", region=corners), expected)
    for wrong in ((8.0, 9, 100, 90), (8, 9, 100)):
        with pytest.raises(ConfigError, match="region"):
            codec.decode(data, region=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("tile", [-64, 1, 100, 65600])
def test_sides_that_tiles_cannot_have(lively, picture, tile: int) -> None:
    with pytest.raises(ConfigError, match=f"side {tile}: a multiple of 64"):
        lively("mean-scale-hyperprior").encode(picture(10, 10), tile=tile)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_tiles_are_coded_in_parallel(lively, picture, three_threads: None) -> None:
    codec = lively("cheng2020-attention")
    array = picture(HEIGHT, WIDTH)
    data = codec.encode(array, tile=64)
    together = codec.decode(data, "numpy")
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    assert levels_apart(codec.decode(data, "numpy"), together) <= 1
    damaged = bytearray(data)
    damaged[-40] ^= 1
    torch.set_num_threads(3)
    with pytest.raises(BitstreamError, match="tile"):
        codec.decode(bytes(damaged))
    assert torch.get_num_threads() == 3


def test_tiles_decode_in_inference_mode(lively, picture) -> None:
    codec = lively("cheng2020-anchor")
    data = codec.encode(picture(150, 100), tile=64)
    with torch.inference_mode():
        found = codec.decode(data)
    assert np.array_equal(found, codec.decode(data))


def test_large_pictures_are_cut_unasked(lively, picture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_coding, "SIDES", range(64, 193, 64))
    monkeypatch.setattr(picture_coding, "UNTILED_PIXELS", 200 * 130)
    codec = lively("mean-scale-hyperprior")
    assert bitstream.read_header(codec.encode(picture(130, 200))).side == 0
    # Where several sides make as few borders, the smallest, whose tiles are most alike.
    assert bitstream.read_header(codec.encode(picture(131, 200))).side == 192
    assert bitstream.read_header(codec.encode(picture(128, 256))).side == 128


def test_a_short_payload_cannot_claim_a_large_tile(lively) -> None:
    codec = lively("mean-scale-hyperprior")
    grid = Grid(16384, 16384, 16320)
    data = bitstream.pack_tiles(codec.fingerprint, grid, [b"\x01\x00\x00\x00"] * 4)
    with pytest.raises(BitstreamError, match="too short"):
        codec.decode(data)


def test_a_payload_that_is_no_tiles(lively, picture) -> None:
    """Honest checksums over payloads of other sizes."""
    codec = lively("cheng2020-anchor")
    payloads = [bitstream.unpack(codec.encode(picture(64, side)))[1] for side in (64, 256)]
    data = bitstream.pack_tiles(codec.fingerprint, Grid(128, 64, 64), payloads)
    with pytest.raises(BitstreamError, match=r"tile 1 \(column 1, row 0\): the payload"):
        codec.decode(data)


def test_threads_of_others_keep_their_number(three_threads: None) -> None:
    def in_a_new_thread() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    found = in_parallel(lambda _: (torch.get_num_threads(), in_a_new_thread()), range(6))
    assert found == [(1, 3)] * 6
    assert in_a_new_thread() == 3


def test_an_error_in_parallel_work_is_raised(three_threads: None) -> None:
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda item: 1 // item, [1, 0, 2])
    assert in_parallel(str, [1, 2]) == ["1", "2"]
