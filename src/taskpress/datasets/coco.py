"""Pictures with COCO-format instance annotations (Lin et al., ECCV 2014)."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from taskpress.coding.errors import DataError
from taskpress.coding.images import read_image
from taskpress.datasets.dataset import Sample
from taskpress.detections import Category, Detections


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
        self.name = self.folder.name
        self._truth = _read_annotations(path)
        self.categories = tuple(Category(c["id"], c["name"]) for c in self._truth["categories"])
        self._index = {category.id: k for k, category in enumerate(self.categories)}
        self._by_image: dict[int, list[dict]] = {image["id"]: [] for image in self._truth["images"]}
        for annotation in self._truth["annotations"]:
            if annotation["image_id"] not in self._by_image:
                raise DataError(f"{path}: an annotation's image id {annotation['image_id']} is not listed")
            self._by_image[annotation["image_id"]].append(annotation)
        missing = [
            i["file_name"] for i in self._truth["images"] if not (self.folder / i["file_name"]).is_file()
        ]
        if missing:
            raise DataError(
                f"{path}: {len(missing)} of {len(self._truth['images'])} pictures it lists are not in "
                f"{self.folder} (first: {missing[0]}); pass the folder these annotations were made for"
            )

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
                f"say {entry['width']}x{entry['height']}; the pictures are not those annotated"
            )
        return Sample(
            entry["id"], entry["file_name"], image, Detections(boxes, labels, torch.ones(len(objects)))
        )

    def coco_ground_truth(self) -> dict:
        """The annotation file as parsed, crowds included."""
        return self._truth


def _read_annotations(path: Path) -> dict:
    try:
        truth = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a JSON annotation file ({error})") from None
    needed = {
        "images": {"id", "file_name", "width", "height"},
        "annotations": {"image_id", "bbox", "category_id"},
    }
    for part, keys in {**needed, "categories": {"id", "name"}}.items():
        rows = truth.get(part) if isinstance(truth, dict) else None
        if not isinstance(rows, list):
            raise DataError(f"{path}: has no list `{part}`; expected COCO's instances format")
        for row in rows:
            absent = keys - set(row) if isinstance(row, dict) else keys
            if absent:
                raise DataError(
                    f"{path}: an entry of `{part}` has no `{min(absent)}`; expected COCO's instances format"
                )
    for image in truth["images"]:
        if not isinstance(image["id"], int) or not isinstance(image["file_name"], str):
            raise DataError(
                f"{path}: image {image['id']!r}: ids are whole numbers and file names are strings"
            )
    for annotation in truth["annotations"]:
        box = annotation["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)):
            raise DataError(
                f"{path}: an annotation of image id {annotation['image_id']} has bbox {box!r}; "
                "expected [x, y, width, height] in pixels"
            )
    known = {category["id"] for category in truth["categories"]}
    for annotation in truth["annotations"]:
        if annotation["category_id"] not in known:
            raise DataError(
                f"{path}: category id {annotation['category_id']} is used but not listed in `categories`"
            )
    return truth
