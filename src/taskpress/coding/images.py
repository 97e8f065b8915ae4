"""Pictures as arrays and tensors: uint8 [H, W, 3] in RGB, float [3, H, W] in [0, 1], and windows of them."""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from taskpress.coding.bitstream import MAX_PIXELS, MAX_SIDE
from taskpress.coding.grid import UNIT, Box
from taskpress.coding.picture_files import DAMAGE, from_pil, read_image, scaled
from taskpress.errors import ImageError

ROUNDING = 1e-4
"""How far arithmetic in float32 may have led values out of [0, 1]."""
Source = str | Path | Image.Image | np.ndarray | Tensor
"""A picture as users have it: a file, or pixels; `Codec.encode` says in what layouts."""


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
