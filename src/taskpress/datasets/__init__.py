"""Data sets: pictures, and annotations where there are any."""

from typing import TYPE_CHECKING

from taskpress.exports import exporting

if TYPE_CHECKING:
    from taskpress.datasets.classified import ClassifiedImages
    from taskpress.datasets.coco import CocoImages
    from taskpress.datasets.dataset import Dataset, Sample
    from taskpress.datasets.folder import ImageFolder
    from taskpress.datasets.label_maps import LabelMaps
    from taskpress.datasets.scenes import Scenes

__all__ = [
    "ClassifiedImages",
    "CocoImages",
    "Dataset",
    "ImageFolder",
    "LabelMaps",
    "Sample",
    "Scenes",
]

__getattr__ = exporting(
    __name__,
    ClassifiedImages="classified",
    CocoImages="coco",
    Dataset="dataset",
    ImageFolder="folder",
    LabelMaps="label_maps",
    Sample="dataset",
    Scenes="scenes",
)
