"""Pictures of every kind: those that are read as they look, and those that are refused by name."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taskpress.coding import picture_files
from taskpress.coding.images import open_picture, resize_long_side
from taskpress.coding.picture_files import read_image, size_of, write_image
from taskpress.errors import ImageError


def test_rgb_comes_back(tmp_path: Path, picture) -> None:
    array = picture(20, 30)
    write_image(tmp_path / "a.png", array)
    assert np.array_equal(read_image(tmp_path / "a.png"), array)


def test_a_tall_picture_is_read_in_parts(tmp_path: Path, picture) -> None:
    array = picture(600, 5)
    write_image(tmp_path / "a.png", array)
    assert np.array_equal(read_image(tmp_path / "a.png"), array)


def test_more_pixels_than_can_be_coded_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (65536, 1)).save(tmp_path / "wide.png")
    with pytest.raises(ImageError, match=r"wide\.png: 65536×1 pixels are too many"):
        read_image(tmp_path / "wide.png")
    monkeypatch.setattr(picture_files, "MAX_PIXELS", 100)
    Image.new("RGB", (101, 1)).save(tmp_path / "many.png")
    with pytest.raises(ImageError, match=r"many\.png: 101×1 pixels are too many"):
        read_image(tmp_path / "many.png")


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palette_are_converted(tmp_path: Path, picture, mode: str) -> None:
    image = Image.fromarray(picture(20, 30)).convert(mode)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_with_a_warning(tmp_path: Path, picture, mode: str) -> None:
    image = Image.fromarray(picture(20, 30)).convert(mode)
    image.putalpha(Image.linear_gradient("L").resize((30, 20)))
    image.save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=r"a\.png: alpha is dropped"):
        found = read_image(tmp_path / "a.png")
    bands = image.split()[:-1]
    assert np.array_equal(found, np.dstack([np.asarray(bands[i % len(bands)]) for i in range(3)]))


def test_transparent_palette_warns(tmp_path: Path, picture) -> None:
    image = Image.fromarray(picture(20, 30)).convert("P")
    image.save(tmp_path / "a.png", transparency=0)
    with pytest.warns(UserWarning, match="alpha"):
        assert np.array_equal(read_image(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("exif", [b"Exif\0\0hello world", b"\0" * 20, b"II*\0"])
def test_exif_that_cannot_be_read_does_not_cost_the_picture(tmp_path: Path, picture, exif: bytes) -> None:
    array = picture(9, 13)
    Image.fromarray(array).save(tmp_path / "a.png", exif=exif)
    with pytest.warns(UserWarning, match=r"a\.png: its EXIF cannot be read"):
        assert np.array_equal(read_image(tmp_path / "a.png"), array)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, picture, orientation: int) -> None:
    array = picture(16, 24)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(tmp_path / "a.png", exif=exif)
    # The eight orientations of the EXIF standard, as numpy turns.
    turned = {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.transpose(1, 0, 2),
        6: np.rot90(array, -1),
        7: array[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(array),
    }[orientation]
    assert np.array_equal(read_image(tmp_path / "a.png"), turned)


def test_a_phone_picture_with_a_second_one_behind_is_its_first(tmp_path: Path, picture) -> None:
    first, second = Image.fromarray(picture(32, 48)), Image.fromarray(picture(16, 24, 1))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    first.save(tmp_path / "b.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.n_frames == 2
    assert np.array_equal(read_image(tmp_path / "a.jpg"), read_image(tmp_path / "b.jpg"))


def png16(path: Path) -> None:
    """A 2×2 PNG of 16-bit RGB, written by hand: Pillow reads such files as 8 bits without a word."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(12)) * 2
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_refused_pictures(tmp_path: Path, picture) -> None:
    image = Image.fromarray(picture(64, 64))
    image.save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    image.save(tmp_path / "whole.png")
    png = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(png[: len(png) // 2])
    (tmp_path / "header.png").write_bytes(png[:20])
    (tmp_path / "flipped.png").write_bytes(png[:60] + bytes([png[60] ^ 255]) + png[61:])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    Image.new("I;16", (4, 4)).save(tmp_path / "grey16.png")
    png16(tmp_path / "rgb16.png")
    Image.new("F", (4, 4)).save(tmp_path / "float.tiff")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (64, 64))])
    image.save(tmp_path / "moving.webp", save_all=True, append_images=[Image.new("RGB", (64, 64))])
    for name, message in (
        ("absent.png", "cannot be read"),
        (".", "cannot be read"),
        ("empty.png", "empty"),
        ("cut.jpg", "truncated"),
        ("cut.png", "truncated"),
        ("header.png", "truncated|not a picture"),
        ("flipped.png", "damaged"),
        ("text.png", "not a picture"),
        ("grey16.png", "16-bit.*8 bits"),
        ("rgb16.png", "16-bit.*8 bits"),
        ("float.tiff", "floating-point"),
        ("cmyk.jpg", "CMYK.*RGB"),
        ("moving.gif", "holds 2 pictures"),
        ("moving.webp", "holds 2 pictures"),
    ):
        with pytest.raises(ImageError, match=message) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_writing_an_unknown_suffix(tmp_path: Path, picture) -> None:
    with pytest.raises(ImageError, match=r"\.xyz"):
        write_image(tmp_path / "a.xyz", picture(4, 4))
    assert not list(tmp_path.iterdir())


def tiff_rgb16() -> bytes:
    """A 2×2 RGB TIFF of 16 bits a channel, written out from the format: Pillow does not write it."""
    pixels = struct.pack("<12H", *range(0, 60000, 5000))
    entries = [
        (256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, 8 + len(pixels)), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 8), (277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    bits = struct.pack("<3H", 16, 16, 16)
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    start = 8 + len(pixels) + len(bits)
    return struct.pack("<2sHI", b"II", 42, start) + pixels + bits + directory + bytes(4)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("deep.tif", tiff_rgb16()),
        ("deep.ppm", b"P6\n# by hand\n2 1\n65535\n" + bytes(12)),
        ("deep.pgm", b"P5 2 1 1023\n" + bytes(4)),
    ],
)
def test_deep_pictures_that_pillow_would_reduce_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError, match=rf"{name}: .*16-bit"):
        read_image(tmp_path / name)


def test_shallow_ppm_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6\n2 1\n255\n" + bytes(range(6)))
    assert read_image(tmp_path / "a.ppm").ravel().tolist() == list(range(6))


def test_an_altered_avif_is_a_picture_or_an_image_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "AVIF", quality=50)
    whole, refused = buffer.getvalue(), 0
    for position in range(0, len(whole), max(1, len(whole) // 120)):
        (tmp_path / "a.avif").write_bytes(
            whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :]
        )
        try:
            read_image(tmp_path / "a.avif")
        except ImageError as error:
            refused += 1
            assert "a.avif" in str(error)
    assert refused > 10


def png_rgb16() -> bytes:
    """A 1×1 RGB PNG of 16 bits a channel; Pillow does not write it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    return (
        picture_files.PNG_SIGNATURE
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(7)))
        + chunk(b"IEND", b"")
    )


def test_a_picture_of_pillow_is_refused_as_its_file_is(tmp_path: Path, picture) -> None:
    with pytest.raises(ImageError, match="16-bit"):
        open_picture(Image.open(io.BytesIO(png_rgb16())))
    write_image(tmp_path / "a.png", picture(40, 40))
    half = (tmp_path / "a.png").read_bytes()[:2000]
    with pytest.raises(ImageError, match="is damaged"):
        open_picture(Image.open(io.BytesIO(half)))


def test_a_header_of_blanks_takes_no_time(tmp_path: Path) -> None:
    """Matched in more than one way, as many blanks would take days."""
    (tmp_path / "a.png").write_bytes(b"P6" + b"\n" * 60 + b"x")
    with pytest.raises(ImageError):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("error", [MemoryError, TypeError, KeyError, RuntimeError])
def test_whatever_a_reader_raises_is_an_image_error(
    tmp_path: Path, picture, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    write_image(tmp_path / "a.png", picture(4, 4))

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "crop", fails)
    with pytest.raises(ImageError, match=r"a\.png: is damaged"):
        read_image(tmp_path / "a.png")


def test_pillows_limit_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(tmp_path / "a.png").shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_what_cannot_be_read_twice_or_has_no_name_is_refused(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"P6 1 1 255\n123")
    os.close(write)
    try:
        with pytest.raises(ImageError, match="cannot be read"):
            read_image(f"/dev/fd/{read}")
    finally:
        os.close(read)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image("a\0b.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 9])
def test_sizes_are_told_as_pictures_are_read(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (100, 70), "red").save(path, exif=exif)
    assert size_of(path) == read_image(path).shape[1::-1]
    assert size_of(path, 50) == resize_long_side(read_image(path), 50).shape[1::-1]
