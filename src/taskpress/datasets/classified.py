"""Pictures with a class each: a folder for every class, or a list of files and labels."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskpress.coding.picture_files import read_image
from taskpress.datasets.dataset import Sample
from taskpress.datasets.folder import find_pictures, holds
from taskpress.detections import Category
from taskpress.errors import DataError
from taskpress.targets import ClassScores


class ClassifiedImages:
    """Pictures below a folder, each with the name of its class.

    folder: that holds the pictures
    labels: path below `folder` -> label, in the order of the pictures
    names:  label -> name of the class, where labels are no names (n02084071 -> dog)

    Raises DataError where pictures are not there.
    """

    def __init__(
        self, folder: str | Path, labels: Mapping[str, str], names: Mapping[str, str] | None = None
    ) -> None:
        self.folder = Path(folder)
        self.name = self.folder.resolve().name
        self._files = list(labels)
        known = sorted(set(labels.values()))
        self._classes = [known.index(label) for label in labels.values()]
        self.categories = tuple(
            Category(number, (names or {}).get(label, label)) for number, label in enumerate(known)
        )
        missing = [file for file in self._files if not holds(self.folder, file)]
        if missing:
            raise DataError(
                f"{self.folder}: {len(missing)} of {len(self._files)} labelled pictures are not there "
                f"(first: {missing[0]}); pass the folder that the labels were made for"
            )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        file = self._files[index]
        label = ClassScores.of_class(self._classes[index], len(self.categories))
        return Sample(index, file, read_image(self.folder / file), label)

    def coco_ground_truth(self) -> None:
        """Objects are not annotated."""
        return None


def labels_by_folder(folder: str | Path) -> dict[str, str]:
    """The label of each picture below a folder: the name of the top folder that it is in.

    DataError for a picture that lies in none.
    """
    root = Path(folder)
    files = [path.relative_to(root) for path in find_pictures(root)]
    loose = next((file for file in files if len(file.parts) < 2), None)
    if loose is not None:
        raise DataError(f"{root / loose}: lies in no folder of a class; expected {root}/CLASS/{loose}")
    return {str(file): file.parts[0] for file in files}


def read_labels(path: str | Path) -> dict[str, str]:
    """The labels in a file: JSON, an object of file -> label, or CSV, rows of file, label.

    A first row "file,label" is a heading. DataError where the file is no such list.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if path.suffix == ".json":
        try:
            content = json.loads(text, object_pairs_hook=_Rows)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON ({error})") from None
        if not isinstance(content, _Rows) or not all(isinstance(label, str) for _, label in content):
            raise DataError(f'{path}: expected an object of file and label, {{"a.jpg": "dog", …}}')
        rows = list(content)
    else:
        rows = []
        try:
            read = list(csv.reader(io.StringIO(text)))
        except csv.Error as error:
            raise DataError(f"{path}: not CSV ({error})") from None
        for number, row in enumerate(read, start=1):
            if not row or (number == 1 and [cell.strip().lower() for cell in row] == ["file", "label"]):
                continue
            if len(row) != 2:
                raise DataError(f"{path}: row {number} has {len(row)} cells; expected file,label")
            rows.append((row[0].strip(), row[1].strip()))
    if not rows:
        raise DataError(f"{path}: lists no picture")
    labels = dict(rows)
    if len(labels) < len(rows):
        raise DataError(f"{path}: lists a picture more than once ({len(rows)} rows, {len(labels)} pictures)")
    return labels


class _Rows(list[tuple[str, Any]]):
    """A JSON object as it stands in the file, doubles included."""
