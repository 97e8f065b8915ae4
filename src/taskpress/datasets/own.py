"""Pictures of a user's own, by file and class: archives, databases, videos, whatever is no folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskpress.datasets.dataset import Sample
from taskpress.detections import Category
from taskpress.errors import DataError
from taskpress.own_code import run_own


class OwnPictures:
    """What `python:FILE.py:CLASS[:ARGUMENT]` has: CLASS(), or CLASS(argument), with `len()` and `[index]`.

    That gives picture `index` as uint8 RGB [H, W, 3], the same one each time. No annotations, no categories.

    Worker processes of a training each have a copy of it, so it opens what it reads from when it reads.

    Raises DataError, naming the file and what is amiss, for a file or class that is not there, one that
    cannot be made, has no pictures, or gives anything else.
    """

    categories: tuple[Category, ...] = ()

    def __init__(self, spec: str) -> None:
        code = run_own(spec, DataError)
        self.spec, self._pictures = spec, code.make()
        self.name = code.name if code.argument is None else f"{code.name}-{Path(code.argument).name}"
        missing = [name for name in ("__len__", "__getitem__") if not hasattr(self._pictures, name)]
        if missing:
            raise DataError(f"{spec}: {code.name} has no {' and no '.join(missing)}")
        if len(self) == 0:
            raise DataError(f"{spec}: holds no picture")
        # Not of what the argument names, as a recognizer's: it may be as large as all pictures.
        told = code.text + repr((code.argument, len(self))).encode()
        self.digest = hashlib.sha256(told).hexdigest()[:16]

    def __len__(self) -> int:
        return int(self._call(len, self._pictures))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        image: NDArray[np.uint8] = self._call(self._pictures.__getitem__, index)
        if not (
            isinstance(image, np.ndarray)
            and image.dtype == np.uint8
            and image.ndim == 3
            and image.shape[2] == 3
            and image.size
        ):
            found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise DataError(f"{self.spec}: picture {index} must be uint8 RGB [H, W, 3], not {found}")
        return Sample(index, f"{self.name}-{index}", image, None)

    def coco_ground_truth(self) -> None:
        """Nothing is known about what the pictures show."""
        return None

    def _call(self, method: Any, given: object) -> Any:
        try:
            return method(given)
        except Exception as error:  # whatever a user's class raises
            raise DataError(f"{self.spec}: {type(error).__name__}: {error}") from error
