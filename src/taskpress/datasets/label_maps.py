"""Pictures with a map of classes each: a folder of PNGs whose pixel values are category ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from taskpress.coding.picture_files import DAMAGE, read_image
from taskpress.datasets.dataset import Sample
from taskpress.datasets.folder import find_pictures
from taskpress.detections import Category
from taskpress.errors import DataError
from taskpress.targets import UNCOUNTED, SemanticMap

MOST_IDS = 2**16
UNLABELLED_IDS = (0, 255)
"""What maps commonly say where nothing is known, unless a category has that id."""


class LabelMaps:
    """The pictures that have a label map of the same stem in another folder, sorted by it.

    images:     folder of pictures, not walked; those without a map are left out
    maps:       folder of PNGs, grey (8 or 16 bit) or palette, each of its picture's size; a pixel's value
                (in a palette PNG: its index) is a category's id, or 0 or 255 where it is not counted
    categories: what the ids mean, 255 at most

    Raises DataError for a folder that is not there, a map without its picture, an id that no map can hold,
    and, when it is read, a map that is no such PNG, has another size or an id that is no category's.
    """

    def __init__(self, images: str | Path, maps: str | Path, categories: Sequence[Category]) -> None:
        if not 0 < len(categories) <= UNCOUNTED:
            raise DataError(f"{maps}: {len(categories)} categories; a map holds 1 to {UNCOUNTED}")
        for category in categories:
            if not 0 <= category.id < MOST_IDS:
                raise DataError(
                    f"{maps}: category id {category.id}; pixels of a map hold 0 to {MOST_IDS - 1}"
                )
        self.folder, self.maps = Path(images), Path(maps)
        self.name = self.folder.resolve().name
        self.categories = tuple(categories)
        self._maps = sorted(path for path in self.maps.glob("*.png"))
        maps_too = {path.resolve() for path in self._maps}
        pictures: dict[str, Path] = {}
        for path in find_pictures(self.folder):
            if path.parent != self.folder or path.resolve() in maps_too:
                continue
            if (other := pictures.setdefault(path.stem, path)) is not path:
                raise DataError(f"{other} and {path.name}: which of them has the label map? Keep one of both")
        if not self._maps:
            raise DataError(f"{self.maps}: holds no label map (*.png)")
        alone = [path.name for path in self._maps if path.stem not in pictures]
        if alone:
            raise DataError(
                f"{self.maps}: {len(alone)} of {len(self._maps)} label maps have no picture of their name in "
                f"{self.folder} (first: {alone[0]}); pass the folder these maps were made for"
            )
        self._pictures = [pictures[path.stem] for path in self._maps]
        self._index = np.full(MOST_IDS, -1, np.int16)
        self._index[list(UNLABELLED_IDS)] = UNCOUNTED
        for k, category in enumerate(self.categories):
            self._index[category.id] = k

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, index: int) -> Sample:
        picture, path = self._pictures[index], self._maps[index]
        image, ids = read_image(picture), _read_ids(path)
        if ids.shape != image.shape[:2]:
            raise DataError(
                f"{path}: is {ids.shape[1]}x{ids.shape[0]}, its picture {image.shape[1]}x{image.shape[0]}; "
                "label maps have their picture's size"
            )
        labels = self._index[ids]
        if labels.min() < 0:
            unknown = ids[labels < 0].min()
            raise DataError(f"{path}: id {unknown} is no category's; list it among the categories")
        return Sample(index, picture.name, image, SemanticMap(torch.from_numpy(labels.astype(np.uint8))))

    def coco_ground_truth(self) -> None:
        """Objects are not told apart."""
        return None


def _read_ids(path: Path) -> NDArray[np.uint16]:
    try:
        with Image.open(path) as file:
            mode, packed, values = file.mode, _is_packed(file), np.array(file)
    except (*DAMAGE, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: is no PNG that can be read ({error})") from None
    if mode not in ("L", "P", "I;16", "I") or values.min() < 0 or values.max() >= MOST_IDS:
        raise DataError(f"{path}: a label map is grey or has a palette, of 8 or 16 bits; this is {mode}")
    if packed:
        raise DataError(f"{path}: a grey label map has 8 or 16 bits a pixel, this has fewer; write it with 8")
    return values.astype(np.uint16)


def _is_packed(file: Image.Image) -> bool:
    """Whether grey values have fewer than 8 bits: Pillow spreads those over 0 to 255."""
    return file.mode == "L" and any(
        mark in str(tile.args) for tile in getattr(file, "tile", ()) for mark in (";2", ";4")
    )
