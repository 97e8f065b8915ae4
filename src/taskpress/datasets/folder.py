"""A folder of pictures without labels: all that distillation needs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from taskpress.coding.files import files_below
from taskpress.coding.picture_files import read_image
from taskpress.datasets.dataset import Sample
from taskpress.detections import Category
from taskpress.errors import DataError

PICTURE_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".jp2", ".bmp", ".tif",
        ".tiff", ".ppm",
    }
)  # fmt: skip
"""What is a picture in a folder, by name; named alone, a file of any suffix is read."""


def find_pictures(folder: str | Path) -> list[Path]:
    """Every picture file below a folder, sorted by path; DataError where there is none."""
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of pictures")
    paths = files_below(root, PICTURE_SUFFIXES)
    if not paths:
        raise DataError(f"{root}: holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return paths


def other_files(folder: str | Path) -> Counter[str]:
    """How many files below a folder are no pictures by their names, by suffix; hidden ones do not count."""
    return Counter(
        path.suffix.lower()
        for path in files_below(Path(folder))
        if path.suffix.lower() not in PICTURE_SUFFIXES
    )


def holds(folder: Path, name: str) -> bool:
    """Whether a folder holds a file of the name that a list gives; never one that no file can have."""
    try:
        return (folder / name).is_file()
    except OSError:
        return False


class ImageFolder:
    """The pictures below a folder, sorted by path; no annotations, no categories."""

    categories: tuple[Category, ...] = ()

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = self.folder.resolve().name
        self._paths = find_pictures(folder)

    @property
    def names(self) -> list[str]:
        """The names of the files in order, relative to the folder."""
        return [path.relative_to(self.folder).as_posix() for path in self._paths]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        path = self._paths[index]
        return Sample(index, str(path.relative_to(self.folder)), read_image(path), None)

    def coco_ground_truth(self) -> None:
        """Nothing is known about what the pictures show."""
        return None
