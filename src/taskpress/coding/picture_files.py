"""Picture files: what is read as uint8 [H, W, 3] in RGB, and written from it."""

import re
import struct
import warnings
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from taskpress.coding.bitstream import MAX_PIXELS, MAX_SIDE
from taskpress.coding.files import atomic_file
from taskpress.errors import ImageError

SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
CONVERTED_MODES = ("RGB", "L", "1", "P", "PA", "RGBA", "LA", "RGBX", "RGBa", "La")
# One way to match whatever there is: what could be matched in several would be tried in all of them.
PPM_HEADER = re.compile(rb"P[2356](?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+(\d{1,5})")
HEAD = 2**16
"""Bytes at the beginning of a file that tell its depth; it is not read as a whole beside its pixels."""
ROWS = 256
# What Pillow's readers raise on damaged files.
DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    RuntimeError,
    MemoryError,
    OverflowError,
    LookupError,
    struct.error,
)
_PILLOWS_LIMIT = Lock()
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
SHARED_BRANDS = (b"mif1", b"msf1")
"""Of HEIC and AVIF alike."""


def read_image(path: str | Path) -> np.ndarray:
    """Reads a picture file as uint8 [H, W, 3], RGB, upright by its EXIF orientation.

    Grey and palette pictures are converted; alpha is dropped with a warning; a colour profile is not applied,
    as recognizers read values as they stand. ImageError names file and remedy where the file is missing,
    empty, truncated, no picture, 16 bit, CMYK or animated.
    """
    try:
        with Path(path).open("rb") as file:
            return read_picture(file, str(path))
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def read_picture(file: BinaryIO, name: str) -> np.ndarray:
    """What `read_image` gives, of an open file that can be rewound; `name` begins error messages."""
    head = file.read(HEAD)
    file.seek(0)
    if not head:
        raise ImageError(f"{name}: is empty (0 bytes)")
    if _is_deep(head):
        raise ImageError(f"{name}: 16-bit pictures are not coded; convert it to 8 bits first")
    try:
        return from_pil(_opened(_known(file, name)), name)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: is not a picture that Pillow knows") from error
    except DAMAGE as error:
        raise ImageError(f"{name}: is damaged or truncated ({error or type(error).__name__})") from error


def size_of(path: str | Path, long_side: int | None = None) -> tuple[int, int]:
    """Width and height that `read_image` gives, scaled to a long side where there is one, by the header.

    (The EXIF of a PNG counts where it stands before the pixels, as it mostly does.) ImageError for what is no
    picture.
    """
    try:
        with Path(path).open("rb") as file, _opened(_known(file, str(path))) as image:
            width, height = image.size
            # Pillow gives the size of a TIFF as it is upright.
            if image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info):
                turned = 5 <= _orientation(image, str(path)) <= 8
                width, height = (height, width) if turned else (width, height)
    except DAMAGE as error:
        raise ImageError(f"{path}: is not a picture that Pillow knows ({error})") from error
    return (width, height) if long_side is None else scaled(width, height, long_side)


def _opened(file: BinaryIO) -> Image.Image:
    """A picture of which nothing but the header is read, of any size: `from_pil` says which are too large.

    Pillow takes more than 179 million pixels for an attack.
    """
    with _PILLOWS_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _known(file: BinaryIO, name: str) -> BinaryIO:
    """The file, at its beginning, of a format that Pillow knows by now; ImageError where a package lacks."""
    head = file.read(12)
    file.seek(0)
    if head[4:8] == b"ftyp" and head[8:] in (*HEIC_BRANDS, *SHARED_BRANDS):
        try:
            import pillow_heif
        except ImportError:
            if head[8:] in SHARED_BRANDS:
                return file
            raise ImageError(f"{name}: HEIC takes a package of its own: pip install pillow-heif") from None
        pillow_heif.register_heif_opener()
    return file


def _is_deep(head: bytes) -> bool:
    """Whether a PNG or PPM of this beginning has more than 8 bits a channel; Pillow reduces them silently."""
    if head.startswith(PNG_SIGNATURE):
        return len(head) > 24 and head[24] == 16
    header = PPM_HEADER.match(head)
    return header is not None and int(header[1]) > 255


def _bits(image: Image.Image) -> int:
    """Bits a channel of a picture from a TIFF or PNG, 8 for others: Pillow reduces 16-bit RGB here too."""
    if image.format == "PNG" and (tile := getattr(image, "tile", None)):
        return 16 if ";16" in str(tile[0].args) else 8
    if image.format != "TIFF":
        return 8
    bits = image.tag_v2.get(258, 8)  # type: ignore[attr-defined]
    return max(bits) if isinstance(bits, tuple) else int(bits)


def from_pil(image: Image.Image, name: str = "image") -> np.ndarray:
    """uint8 [H, W, 3] of a Pillow picture, by the rules of `read_image`; `name` begins error messages."""
    frames = getattr(image, "n_frames", 1)
    # Cameras and phones write JPEGs with a second picture (preview, gain map) behind the first: MPO.
    if frames > 1 and image.format != "MPO":
        raise ImageError(
            f"{name}: holds {frames} pictures (an animation, or pages); take one: convert('RGB') of its frame"
        )
    if image.mode == "F":
        raise ImageError(
            f"{name}: pictures of floating-point numbers are not coded; convert it to 8 bits first"
        )
    if image.mode in SIXTEEN_BIT_MODES or _bits(image) > 8:
        raise ImageError(f"{name}: 16-bit pictures are not coded; convert it to 8 bits first")
    if image.mode not in CONVERTED_MODES:
        raise ImageError(f"{name}: {image.mode} pictures are not coded; convert it to RGB first")
    if max(image.size) > MAX_SIDE or image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{name}: {image.width}×{image.height} pixels are too many; split or scale it first")
    # Before its EXIF is looked for, which reads pixels first: damaged ones are reported once only.
    image.load()
    # Only where there is something to do: it makes a copy even where there is not.
    if _orientation(image, name) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        warnings.warn(f"{name}: alpha is dropped", stacklevel=4)
    if image.mode in ("P", "PA") or "transparency" in image.info:
        # Through RGBA: Pillow's direct way would treat the transparent colour differently per mode.
        image = image.convert("RGBA")
    elif image.mode in ("RGBa", "La"):
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    return _pixels(image if image.mode == "RGB" else image.convert("RGB"))


def _orientation(image: Image.Image, name: str) -> int:
    """The EXIF orientation; 1, upright, where there is none or it cannot be read: the pixels may be sound."""
    try:
        orientation: int = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGE as error:
        warnings.warn(f"{name}: its EXIF cannot be read ({error}); it is taken as upright", stacklevel=5)
        return 1
    return orientation


def _pixels(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3] of an RGB picture, some rows at a time: as a whole it would pass through a copy."""
    array = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for top in range(0, image.height, ROWS):
        bottom = min(top + ROWS, image.height)
        array[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return array


def write_image(path: str | Path, array: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] in the format that the path's suffix names, atomically.

    ImageError for a suffix that Pillow does not write.
    """
    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise ImageError(
            f"{path}: pictures are not written as {path.suffix or 'files without suffix'!r}; use .png"
        )
    try:
        with atomic_file(path) as file:
            Image.fromarray(array).save(file, format=kind)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: cannot be written ({reason})") from error


def as_png(array: np.ndarray) -> bytes:
    """A PNG file of uint8 [H, W, 3]."""
    file = BytesIO()
    Image.fromarray(array).save(file, format="PNG")
    return file.getvalue()


def scaled(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Width and height in proportion, the longer one `long_side`, none below 1."""
    scale = long_side / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))
