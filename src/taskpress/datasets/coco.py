"""Pictures with COCO-format instance annotations (Lin et al., ECCV 2014)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from taskpress.coding.picture_files import read_image
from taskpress.datasets.dataset import Sample
from taskpress.datasets.folder import holds
from taskpress.detections import Category, Detections
from taskpress.errors import DataError

# Of ids and coordinates: beyond it no picture is, and the metric's own arithmetic ends.
FARTHEST = 2**31
# Of areas: COCO's metric leaves larger objects out, of "all", too.
LARGEST = 1e10


class Field(NamedTuple):
    """What an entry holds under a name: a test, in words, and whether it must be there."""

    fits: Callable[[Any], bool]
    what: str
    needed: bool = True


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < FARTHEST


def _is_number(value: Any) -> bool:
    # NaN is below nothing.
    return type(value) in (int, float) and abs(value) < FARTHEST


def _is_box(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))
    return numbers and min(value[2:]) >= 0


WHOLE = Field(_is_whole, "a whole number below 2³¹")
SIDE = Field(lambda value: _is_whole(value) and value > 0, "pixels, 1 or more")
TEXT = Field(lambda value: isinstance(value, str), "a string")
FIELDS = {
    "images": {"id": WHOLE, "file_name": TEXT, "width": SIDE, "height": SIDE},
    "annotations": {
        "image_id": WHOLE,
        "bbox": Field(_is_box, "[x, y, width, height] in pixels, none of the latter negative"),
        "category_id": WHOLE,
        "area": Field(
            lambda value: _is_number(value) and 0 <= value <= LARGEST,
            "square pixels, 0 to 10¹⁰",
            needed=False,
        ),
        "iscrowd": Field(lambda value: value in (0, 1), "0 or 1", needed=False),
    },
    "categories": {"id": WHOLE, "name": TEXT},
}
"""What is read of COCO's instances format; all else in it is left alone."""


class CocoImages:
    """The pictures an annotation file lists, read from a folder; crowds count only in the metric.

    images:      folder that holds the files named in the annotations
    annotations: `instances_*.json` in COCO's format
    Raises DataError when the file is no such file, or when it names pictures that are not in the folder.
    """

    def __init__(self, images: str | Path, annotations: str | Path) -> None:
        self.folder = Path(images)
        path = Path(annotations)
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder of pictures")
        self.name = self.folder.resolve().name
        self._truth = _read_annotations(path)
        self.categories = tuple(Category(c["id"], c["name"]) for c in self._truth["categories"])
        self._index = {category.id: k for k, category in enumerate(self.categories)}
        self._by_image: dict[int, list[dict]] = {image["id"]: [] for image in self._truth["images"]}
        for annotation in self._truth["annotations"]:
            if annotation["image_id"] not in self._by_image:
                raise DataError(f"{path}: an annotation's image id {annotation['image_id']} is not listed")
            self._by_image[annotation["image_id"]].append(annotation)
        missing = [i["file_name"] for i in self._truth["images"] if not holds(self.folder, i["file_name"])]
        if missing:
            raise DataError(
                f"{path}: {len(missing)} of {len(self._truth['images'])} pictures it lists are not in "
                f"{self.folder} (first: {missing[0]}); pass the folder these annotations were made for"
            )

    @property
    def names(self) -> list[str]:
        """The names of the files in order, as the annotations list them."""
        return [image["file_name"] for image in self._truth["images"]]

    def __len__(self) -> int:
        return len(self._truth["images"])

    def __getitem__(self, index: int) -> Sample:
        entry = self._truth["images"][index]
        objects = [a for a in self._by_image[entry["id"]] if not a.get("iscrowd", 0)]
        boxes = torch.tensor([a["bbox"] for a in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([self._index[a["category_id"]] for a in objects], dtype=torch.int64)
        image = read_image(self.folder / entry["file_name"])
        if image.shape[:2] != (entry["height"], entry["width"]):
            raise DataError(
                f"{self.folder / entry['file_name']}: is {image.shape[1]}x{image.shape[0]}, its annotations "
                f"say {entry['width']}x{entry['height']}; the pictures are not those annotated, or their "
                "EXIF turns them and the annotations are of what is stored: take the orientation out of them"
            )
        return Sample(
            entry["id"], entry["file_name"], image, Detections(boxes, labels, torch.ones(len(objects)))
        )

    def coco_ground_truth(self) -> dict:
        """The annotation file as parsed, crowds included."""
        return self._truth


def _read_annotations(path: Path) -> dict:
    try:
        truth = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON annotation file ({error})") from None
    for part, fields in FIELDS.items():
        rows = truth.get(part) if isinstance(truth, dict) else None
        if not isinstance(rows, list):
            raise DataError(f"{path}: has no list `{part}`; expected COCO's instances format")
        for row in rows:
            for name, field in fields.items():
                if not isinstance(row, dict) or (name not in row and field.needed):
                    raise DataError(
                        f"{path}: an entry of `{part}` has no `{name}`; expected COCO's instances format"
                    )
                if name in row and not field.fits(row[name]):
                    raise DataError(
                        f"{path}: an entry of `{part}` has {name} {_short(row[name])}; expected {field.what}"
                    )
    for part in ("images", "categories"):
        ids = [row["id"] for row in truth[part]]
        if not ids:
            raise DataError(f"{path}: lists no {part}")
        if len(set(ids)) < len(ids):
            raise DataError(f"{path}: an id of `{part}` is given twice")
    known = {category["id"] for category in truth["categories"]}
    for annotation in truth["annotations"]:
        if annotation["category_id"] not in known:
            raise DataError(
                f"{path}: category id {annotation['category_id']} is used but not listed in `categories`"
            )
    return truth


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
