"""What a data set is to the rest of TaskPress: numbered pictures, with annotations where there are any."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from taskpress.detections import Category
from taskpress.targets import Target


@dataclass(frozen=True)
class Sample:
    """One picture.

    id:          its number in annotation files
    name:        a file name, with or without a file behind it
    image:       [H, W, 3] uint8, RGB
    annotations: in this picture's pixels, classes as indices into the data set's `categories`, scores 1;
                 None where the data set is unlabelled
    """

    id: int
    name: str
    image: NDArray[np.uint8]
    annotations: Target | None


@runtime_checkable
class Dataset(Protocol):
    """Pictures in a fixed order; picture i is the same whoever asks and however often."""

    @property
    def name(self) -> str: ...

    @property
    def categories(self) -> tuple[Category, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def coco_ground_truth(self) -> dict[str, Any] | None:
        """COCO's `{"images", "annotations", "categories"}` for exactly these pictures; None where objects
        are not annotated."""
        ...


class Unlabelled:
    """The pictures of a data set, without what is known of them."""

    categories: tuple[Category, ...] = ()

    def __init__(self, dataset: Dataset) -> None:
        self.name, self._dataset = dataset.name, dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        return replace(self._dataset[index], annotations=None)

    def coco_ground_truth(self) -> None:
        return None
