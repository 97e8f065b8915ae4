"""Pictures in a ZIP archive, as TaskPress can train on and measure without unpacking it.

taskpress train coco-yolox "data.sources=[python:docs/examples/zipped.py:Zip:pictures.zip]" -o runs/zipped
"""

from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


class Zip:
    """All JPEGs and PNGs of an archive, sorted by name; `path` is the archive."""

    def __init__(self, path: str) -> None:
        self.path = path
        with ZipFile(path) as archive:
            names = archive.namelist()
        self.names = sorted(name for name in names if name.lower().endswith((".jpg", ".jpeg", ".png")))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """uint8 RGB [H, W, 3]. The archive is opened anew: worker processes must not share an open file."""
        with ZipFile(self.path) as archive, archive.open(self.names[index]) as file:
            return np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
