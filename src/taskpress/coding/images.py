"""Pictures in and out: files, uint8 arrays [H, W, 3] in RGB, and float tensors [3, H, W] in [0, 1]."""

import math
import re
import struct
import warnings
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from taskpress.coding.bitstream import MAX_PIXELS, MAX_SIDE
from taskpress.coding.files import atomic_file
from taskpress.coding.grid import UNIT, Box
from taskpress.errors import ImageError

SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
CONVERTED_MODES = ("RGB", "L", "1", "P", "PA", "RGBA", "LA", "RGBX", "RGBa", "La")
# One way to match whatever there is: what could be matched in several would be tried in all of them.
PPM_HEADER = re.compile(rb"P[2356](?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+(\d{1,5})")
HEAD = 2**16
"""Bytes at the beginning of a file that tell its depth; a file is never held as a whole beside its pixels."""
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
ROUNDING = 1e-4
"""How far arithmetic in float32 may have led values out of [0, 1]."""
Source = str | Path | Image.Image | np.ndarray | Tensor
"""A picture as users have it: a file, or pixels; `Codec.encode` says in what layouts."""
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
    path = Path(path)
    with ExitStack() as opened:
        try:
            file = opened.enter_context(path.open("rb"))
            head = file.read(HEAD)
            file.seek(0)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ImageError(f"{path}: cannot be read ({reason})") from error
        if not head:
            raise ImageError(f"{path}: is empty (0 bytes)")
        if _is_deep(head):
            raise ImageError(f"{path}: 16-bit pictures are not coded; convert it to 8 bits first")
        try:
            return from_pil(_opened(_known(file, path)), str(path))
        except UnidentifiedImageError as error:
            raise ImageError(f"{path}: is not a picture that Pillow knows") from error
        except DAMAGE as error:
            raise ImageError(f"{path}: is damaged or truncated ({error or type(error).__name__})") from error


def size_of(path: str | Path, long_side: int | None = None) -> tuple[int, int]:
    """Width and height that `read_image` gives, scaled to a long side where there is one, by the header.

    (The EXIF of a PNG counts where it stands before the pixels, as it mostly does.) ImageError for what is no
    picture.
    """
    try:
        with Path(path).open("rb") as file, _opened(_known(file, Path(path))) as image:
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


def _known(file: BinaryIO, path: Path) -> BinaryIO:
    """The file, at its beginning, of a format that Pillow knows by now; ImageError where a package lacks."""
    head = file.read(12)
    file.seek(0)
    if head[4:8] == b"ftyp" and head[8:] in (*HEIC_BRANDS, *SHARED_BRANDS):
        try:
            import pillow_heif
        except ImportError:
            if head[8:] in SHARED_BRANDS:
                return file
            raise ImageError(f"{path}: HEIC takes a package of its own: pip install pillow-heif") from None
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
        warnings.warn(f"{name}: alpha is dropped", stacklevel=3)
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
        warnings.warn(f"{name}: its EXIF cannot be read ({error}); it is taken as upright", stacklevel=4)
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


def to_tensor(array: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] → float32 [3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(array)).permute(2, 0, 1).to(torch.float32).div_(255)


def to_array(tensor: Tensor) -> np.ndarray:
    """Float [3, H, W] → uint8 [H, W, 3]; values are clamped to [0, 1] and rounded to the nearest level."""
    levels = tensor.detach().clamp(0, 1).mul(255).round().to(torch.uint8)
    return levels.permute(1, 2, 0).cpu().contiguous().numpy()


def pad(x: Tensor) -> Tensor:
    """[B, 3, H, W] → multiples of 64, the last row and column repeated below and to the right."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % UNIT, 0, -height % UNIT), mode="replicate")


def resize_long_side(array: np.ndarray, long_side: int) -> np.ndarray:
    """uint8 [H, W, 3] scaled (bicubic) to a long side of exactly `long_side`, the other in proportion."""
    height, width = array.shape[:2]
    if max(height, width) == long_side:
        return array
    size = scaled(width, height, long_side)
    return np.array(Image.fromarray(array).resize(size, Image.Resampling.BICUBIC))


def scaled(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Width and height in proportion, the longer one `long_side`, none below 1."""
    scale = long_side / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


class Picture:
    """A picture as it came, uint8 [H, W, 3] or float32 [3, H, W], of which windows become tensors.

    So that a large picture is never held as floats as a whole.
    """

    def __init__(self, pixels: np.ndarray | Tensor) -> None:
        self._pixels = pixels
        shape = pixels.shape[:2] if isinstance(pixels, np.ndarray) else pixels.shape[1:]
        self.height, self.width = int(shape[0]), int(shape[1])

    @property
    def box(self) -> Box:
        return Box(0, 0, self.width, self.height)

    def window(self, box: Box) -> Tensor:
        """float32 [1, 3, h, w] in [0, 1] of a box that begins at 0 or right and below of it.

        Below and to the right of the picture its last row and column are repeated.
        """
        left, top = min(box.left, self.width - 1), min(box.top, self.height - 1)
        rows, columns = Box(left, top, box.right, box.bottom).within(self.box).slices()
        if isinstance(self._pixels, np.ndarray):
            inside = to_tensor(self._pixels[rows, columns])
        else:
            inside = self._pixels[:, rows, columns]
        missing = (0, box.width - inside.shape[2], 0, box.height - inside.shape[1])
        return F.pad(inside[None], missing, mode="replicate")


def open_picture(image: Source) -> Picture:
    """Whatever `Codec.encode` takes; ImageError for anything else."""
    if isinstance(image, str | Path):
        image = read_image(image)
    elif isinstance(image, Image.Image):
        try:
            image = from_pil(image)
        except DAMAGE as error:
            raise ImageError(f"the picture is damaged ({error or type(error).__name__})") from error
    if isinstance(image, np.ndarray):
        picture = Picture(_array(image))
    elif isinstance(image, Tensor):
        picture = Picture(_tensor(image))
    else:
        raise ImageError(
            f"a picture is a path, a PIL.Image, a numpy array or a torch tensor, not {type(image).__name__}"
        )
    height, width = picture.height, picture.width
    if not height * width:
        raise ImageError(f"the picture has no pixels ({width}×{height})")
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise ImageError(f"{width}×{height} pixels are too many for one bitstream; split the picture")
    return picture


def _array(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of a colour or grey picture."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,)):
        raise ImageError(
            f"an array must be uint8 [H, W, 3], or [H, W] for grey, not {pixels.dtype} {list(pixels.shape)}"
        )
    return pixels if pixels.shape[2:] == (3,) else np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)


def _tensor(pixels: Tensor) -> np.ndarray | Tensor:
    """float32 [3, H, W] in [0, 1], or uint8 [H, W, 3] of a tensor in bytes."""
    whole = pixels.dtype == torch.uint8
    if not (whole or pixels.is_floating_point()) or pixels.dim() != 3 or pixels.shape[0] != 3:
        raise ImageError(
            f"a tensor must be float [3, H, W] in [0, 1], or uint8, not {pixels.dtype} {list(pixels.shape)}"
        )
    if whole:
        return pixels.permute(1, 2, 0).cpu().numpy()
    return in_range(pixels.detach().to(torch.float32), "tensor")


def checked_batch(batch: Tensor) -> Tensor:
    """[B, 3, H, W] in float32; ImageError where it is not floats of that layout."""
    if batch.dim() != 4 or batch.shape[1] != 3 or not batch.is_floating_point() or not batch.numel():
        raise ImageError(f"a batch is a float tensor [B, 3, H, W], not {batch.dtype} {tuple(batch.shape)}")
    return batch.to(torch.float32)


def in_range(pixels: Tensor, name: str) -> Tensor:
    """The floats, clamped to [0, 1] where they pass it by their last bits.

    ImageError with values and remedy for what lies further out, and for NaN.
    """
    if not pixels.numel():
        return pixels
    low, high = (limit.item() for limit in pixels.detach().aminmax())
    if low >= 0 and high <= 1:
        return pixels
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return pixels.clamp(0, 1)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError(f"the {name} holds values that are not finite")
    remedy = "divide it by 255" if low >= 0 and 2 < high <= 255 else "clamp(0, 1) where that is meant"
    raise ImageError(f"the {name}'s values must lie in [0, 1], not {low:g} to {high:g}; {remedy}")
