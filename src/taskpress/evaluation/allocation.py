"""Where a codec spends its bits, by its own probability model, and how many of them fall on objects.

The map is -log2 of the likelihoods that the entropy coder codes with, summed over a latent position's
channels; each position stands for the stride × stride pixels it covers, as in the paper's figure 2(b).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taskpress.boxes import covered_areas
from taskpress.coding.codec import Codec
from taskpress.coding.images import resize_long_side, to_tensor
from taskpress.datasets.dataset import Dataset
from taskpress.detections import Detections
from taskpress.progress import tracked

STRIDE = 16


class Allocation(NamedTuple):
    """Bits of one picture.

    cells: [h, w] float64 bits per latent position
    size: (height, width) of the picture in pixels
    """

    cells: NDArray[np.float64]
    size: tuple[int, int]

    @property
    def bpp(self) -> float:
        """Estimated bits per pixel of the whole picture."""
        return float(self.cells.sum()) / (self.size[0] * self.size[1])


class DatasetShare(NamedTuple):
    """Bits inside boxes over all pictures of a data set.

    share: of all bits, those inside the boxes, 0 ... 1
    area: of all pixels, those inside the boxes; a codec blind to objects has share ≈ area
    bpp: estimated bits per pixel over all pictures
    """

    share: float
    area: float
    bpp: float


@torch.no_grad()
def allocate(codec: Codec, image: NDArray[np.uint8]) -> Allocation:
    """Bits per latent position of a picture, uint8 RGB [H, W, 3], with rounding as in real coding."""
    device, training = next(codec.parameters()).device, codec.training
    try:
        estimate = codec.eval().estimate(to_tensor(image)[None].to(device))
    finally:
        codec.train(training)
    cells = estimate.rate_map[0].double().cpu().numpy()
    return Allocation(cells, (image.shape[0], image.shape[1]))


def bits_per_pixel(allocation: Allocation, stride: int = STRIDE) -> NDArray[np.float64]:
    """The map over the picture's pixels, [H, W]; its mean is `allocation.bpp`.

    A position at the edge spreads its bits over the pixels it has; one wholly in the padding (pictures
    are padded to multiples of 64) shares them evenly among all, for they pay for the picture as a whole.
    """
    rows, columns = _cell_edges(allocation, stride)
    density, outside = _density(allocation, rows, columns)
    spread = np.repeat(np.repeat(density, np.diff(rows), 0), np.diff(columns), 1)
    return spread + outside / (allocation.size[0] * allocation.size[1])


def share_in_boxes(
    rate_map: NDArray[np.float64], boxes: Tensor, size: tuple[int, int], stride: int = STRIDE
) -> float:
    """Share 0 ... 1 of a picture's bits that falls inside the union of boxes.

    rate_map: [h, w] bits per latent position; boxes: [n, 4] x0 y0 x1 y1 in pixels, clipped to the picture;
    size: (height, width) in pixels. A cell cut by a box counts by the exact share of its area.
    NaN where the map holds no bits.
    """
    total = float(rate_map.sum())
    return bits_in_boxes(Allocation(rate_map, size), boxes, stride) / total if total > 0 else float("nan")


def bits_in_boxes(allocation: Allocation, boxes: Tensor, stride: int = STRIDE) -> float:
    """Bits of a picture inside the union of boxes; see `share_in_boxes`."""
    rows, columns = _cell_edges(allocation, stride)
    density, outside = _density(allocation, rows, columns)
    areas = covered_areas(boxes, torch.from_numpy(rows), torch.from_numpy(columns)).numpy()
    return float((areas * density).sum()) + outside * float(areas.sum()) / math.prod(allocation.size)


def area_in_boxes(boxes: Tensor, size: tuple[int, int]) -> float:
    """Pixels, exactly, inside the union of boxes [n, 4] clipped to a picture of (height, width)."""
    rows, columns = (torch.tensor([0, side]) for side in size)
    return covered_areas(boxes, rows, columns).item()


def dataset_share(
    codec: Codec,
    dataset: Dataset,
    labels: Sequence[Detections],
    resize: int | None = None,
    progress: str | None = None,
) -> DatasetShare:
    """Share of bits inside boxes over the first len(labels) pictures of a data set.

    labels: boxes in the pixels of the original pictures, e.g. `Reference.labels` or annotations;
    resize: long side that is coded; progress: title of a bar, None for none.
    """
    inside = bits = area = pixels = 0.0
    for index, found in enumerate(tracked(labels, progress)):
        original = dataset[index].image
        image = original if resize is None else resize_long_side(original, resize)
        allocation = allocate(codec, image)
        boxes = found.scaled(image.shape[1] / original.shape[1], image.shape[0] / original.shape[0]).boxes
        inside += bits_in_boxes(allocation, boxes, codec.stride)
        bits += float(allocation.cells.sum())
        area += area_in_boxes(boxes, allocation.size)
        pixels += allocation.size[0] * allocation.size[1]
    return DatasetShare(inside / bits, area / pixels, bits / pixels)


def _cell_edges(allocation: Allocation, stride: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where rows and columns of cells begin and end in pixels, cropped to the picture: [h + 1], [w + 1]."""
    (h, w), (height, width) = allocation.cells.shape, allocation.size
    return np.minimum(np.arange(h + 1) * stride, height), np.minimum(np.arange(w + 1) * stride, width)


def _density(
    allocation: Allocation, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """Bits per pixel of every cell, and the bits of those that have no pixel."""
    areas = np.diff(rows)[:, None] * np.diff(columns)[None, :]
    density = np.divide(allocation.cells, areas, out=np.zeros(areas.shape), where=areas > 0)
    return density, float(allocation.cells[areas == 0].sum())
