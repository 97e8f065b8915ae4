"""The way of a picture through an evaluation: read, scaled, shown, what was seen brought back to its size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from taskpress.coding.images import resize_long_side, to_tensor
from taskpress.datasets.dataset import Dataset, Sample
from taskpress.errors import DataError
from taskpress.progress import tracked
from taskpress.recognition.device import device_of
from taskpress.recognition.protocol import Recognizer
from taskpress.targets import Target

Pixels = NDArray[np.uint8]
Seen = TypeVar("Seen", bound=Target)


def samples(dataset: Dataset, limit: int | None, title: str, progress: bool) -> Iterator[Sample]:
    """The first `limit` pictures, under a bar of that title; DataError where there is none."""
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if count < 1:
        raise DataError(
            f"data set {dataset.name!r}: no picture to evaluate (it has {len(dataset)}, limit {limit})"
        )
    for index in tracked(range(count), title if progress else None):
        yield dataset[index]


def resized(image: Pixels, resize: int | None) -> Pixels:
    """The picture with its long side scaled to `resize`; as it is for None."""
    return image if resize is None else resize_long_side(image, resize)


def as_input(image: Pixels, recognizer: Recognizer) -> torch.Tensor:
    """Float [3, H, W] in [0, 1], where the recognizer computes."""
    return to_tensor(image).to(device_of(recognizer))


def in_original_pixels(target: Seen, coded: Pixels, sample: Sample) -> Seen:
    """A prediction for a picture as it was coded, in the pixels of the picture as it came."""
    sizes = [(image.shape[0], image.shape[1]) for image in (coded, sample.image)]
    return target.to("cpu").resized(*sizes)
