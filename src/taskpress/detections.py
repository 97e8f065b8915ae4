"""Objects in pictures: what data sets annotate, recognizers find and auxiliary branches learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SMALLEST_SIDE = 4.0
"""Pixels; of a thinner remainder of a box at a crop's border nothing can be recognized."""

Size = tuple[int, int]
"""Height and width in pixels."""


class Category(NamedTuple):
    """A class a recognizer knows: its id in annotation files (COCO skips numbers) and its name."""

    id: int
    name: str


class Crop(NamedTuple):
    """A window in a picture, in whole pixels from its top left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Detections:
    """Objects in one image: a prediction, a pseudo-label or an annotation.

    boxes:  [n, 4] float32, x0 y0 x1 y1 in pixels of the image they belong to
    labels: [n] int64, index into the recognizer's `categories`
    scores: [n] float32 in [0, 1]; 1 for annotations
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor

    @staticmethod
    def empty(device: torch.device | str = "cpu") -> Detections:
        return Detections(
            torch.zeros(0, 4, device=device),
            torch.zeros(0, dtype=torch.int64, device=device),
            torch.zeros(0, device=device),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Self:
        return self._with(
            boxes=self.boxes.to(device), labels=self.labels.to(device), scores=self.scores.to(device)
        )

    def where(self, keep: Tensor) -> Self:
        """The objects that a boolean mask [n] or an index tensor selects."""
        return self._with(boxes=self.boxes[keep], labels=self.labels[keep], scores=self.scores[keep])

    def scaled(self, x: float, y: float) -> Self:
        """The same objects after the image was scaled by these factors."""
        return self._with(boxes=self.boxes * self.boxes.new_tensor([x, y, x, y]))

    def resized(self, old: Size, new: Size) -> Self:
        """The same objects after the image was scaled from (height, width) `old` to `new`."""
        return self.scaled(new[1] / old[1], new[0] / old[0])

    def cropped(self, crop: Crop, flip: bool, min_visible: float = 0.25) -> Self:
        """What is left of the objects after the picture was cut to `crop`, then mirrored left to right.

        Boxes are clipped to the crop. One goes where less than `min_visible` of its area is left, or where
        what is left of it was cut thinner than 4 pixels (a box that is thin by itself stays while that side
        is whole).
        """
        x, y, width, height = crop
        boxes = self.boxes - self.boxes.new_tensor([x, y, x, y])
        clipped = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))
        sides, old_sides = clipped[:, 2:] - clipped[:, :2], boxes[:, 2:] - boxes[:, :2]
        enough = sides.prod(dim=1) >= min_visible * old_sides.prod(dim=1)
        thick = (sides >= old_sides.clamp(max=SMALLEST_SIDE)).all(dim=1)
        if flip:
            x0, y0, x1, y1 = clipped.unbind(dim=1)
            clipped = torch.stack([width - x1, y0, width - x0, y1], dim=1)
        return self._with(boxes=clipped).where(enough & thick & (sides > 0).all(dim=1))

    def arrays(self) -> dict[str, NDArray]:
        """Everything as plain arrays, for a file without pickle."""
        return {
            "boxes": self.boxes.cpu().numpy().astype(np.float32),
            "labels": self.labels.cpu().numpy().astype(np.int64),
            "scores": self.scores.cpu().numpy().astype(np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> Self:
        """The inverse of `arrays`. Raises KeyError or ValueError for anything else."""
        return cls(*_checked(arrays))

    def _with(self, **changes: Tensor) -> Self:
        return type(self)(**{**vars(self), **changes})


@dataclass(frozen=True)
class Instances(Detections):
    """Objects with their exact extent.

    masks: [n, H, W] bool, the object's pixels, at the size of the image; boxes enclose them about, as a
        model predicts both
    """

    masks: Tensor

    def to(self, device: torch.device | str) -> Self:
        return super().to(device)._with(masks=self.masks.to(device))

    def where(self, keep: Tensor) -> Self:
        return super().where(keep)._with(masks=self.masks[keep])

    def scaled(self, x: float, y: float) -> Self:
        height, width = self.masks.shape[1:]
        new = round(height * y), round(width * x)
        masks = self.masks if new == (height, width) else nearest(self.masks, new)
        return super().scaled(x, y)._with(masks=masks)

    def cropped(self, crop: Crop, flip: bool, min_visible: float = 0.25) -> Self:
        """Boxes and masks of a window; objects of which no pixel is left go. Padding belongs to no object."""
        x, y, width, height = crop
        masks = self.masks[:, y : y + height, x : x + width]
        masks = F.pad(masks, (0, width - masks.shape[2], 0, height - masks.shape[1]))
        cut = self._with(masks=masks.flip(2) if flip else masks)
        cut = super(Instances, cut).cropped(crop, flip, min_visible)
        return cut.where(cut.masks.flatten(1).any(dim=1))

    def arrays(self) -> dict[str, NDArray]:
        masks = self.masks.cpu().numpy()
        bits = np.packbits(masks.reshape(-1))
        return {**super().arrays(), "mask_bits": bits, "mask_shape": np.array(masks.shape, np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> Self:
        boxes, labels, scores = _checked(arrays)
        shape, bits = tuple(int(side) for side in arrays["mask_shape"]), arrays["mask_bits"]
        if len(shape) != 3 or shape[0] != len(labels) or min(shape) < 0 or bits.dtype != np.uint8:
            raise ValueError("masks are bits of [objects, height, width]")
        count = int(np.prod(shape))
        if bits.shape != (-(-count // 8),):
            raise ValueError(f"{bits.size} bytes hold no masks of {shape}")
        masks = np.unpackbits(bits, count=count).astype(bool).reshape(shape)
        return cls(boxes, labels, scores, torch.from_numpy(masks))


def nearest(planes: Tensor, size: Size) -> Tensor:
    """Planes [n, H, W] of bool or uint8 at another size: each pixel takes the value at its centre."""
    rows, columns = (
        ((torch.arange(new, device=planes.device) + 0.5) * (old / new)).long().clamp(max=old - 1)
        for old, new in zip(planes.shape[1:], size, strict=True)
    )
    return planes[:, rows[:, None], columns[None, :]]


def _checked(arrays: Mapping[str, NDArray]) -> tuple[Tensor, Tensor, Tensor]:
    boxes, labels, scores = arrays["boxes"], arrays["labels"], arrays["scores"]
    count = len(labels) if labels.ndim == 1 else -1
    if boxes.shape != (count, 4) or scores.shape != (count,):
        raise ValueError("boxes, labels and scores are of different objects")
    if (boxes.dtype, labels.dtype, scores.dtype) != (np.float32, np.int64, np.float32):
        raise ValueError("boxes and scores are float32, labels int64")
    return torch.from_numpy(boxes), torch.from_numpy(labels), torch.from_numpy(scores)
