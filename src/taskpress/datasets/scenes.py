"""The embedded data set: scenes drawn by our own generator, labelled exactly, with no file behind them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from taskpress.datasets.dataset import Sample
from taskpress.datasets.run_lengths import run_lengths
from taskpress.datasets.scene_painting import Scene, paint
from taskpress.datasets.scene_shapes import CLASSES
from taskpress.detections import Category, Detections, Instances
from taskpress.errors import DataError
from taskpress.targets import SemanticMap, Task

CATEGORIES = tuple(Category(number, name) for number, name in enumerate(CLASSES, start=1))
WITH_BACKGROUND = (Category(0, "background"), *CATEGORIES)
"""What pixels of a scene are: shadows and distractors are background."""
Split = Literal["train", "test", "validation"]
SPLITS: dict[Split, int] = {"train": 0, "test": 1, "validation": 2}
CACHED = 128
"""Scenes kept in memory, 330 KB each: whoever goes over a test set again does not draw it again."""


class Scenes:
    """`count` scenes of one split, `size` pixels square: two to six objects of ten classes amid clutter.

    Scene i depends on (split, i, size) alone, so "train" has as many scenes as are asked for and shares none
    with "test" or "validation".

    task: what is annotated: boxes that enclose the visible part of an object; with their visible pixels; or
        the class of every pixel. None: nothing.
    shapes: the ten classes as a recognizer numbers them; None: 1 to 10

    Raises DataError for an unknown split, a count below 1, a size below 64, or classification: a scene shows
    many things.
    """

    def __init__(
        self,
        split: Split,
        count: int,
        size: int = 256,
        task: Task | None = Task.DETECTION,
        shapes: Sequence[Category] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise DataError(f"scenes: no split {split!r}; there are {', '.join(SPLITS)}")
        if count < 1:
            raise DataError(f"scenes: cannot draw {count} pictures; ask for 1 or more")
        if size < 64:
            raise DataError(f"scenes: objects do not fit into {size} pixels; ask for a size of 64 or more")
        if task is Task.CLASSIFICATION:
            raise DataError("scenes: show several classes each and are annotated for no classifier")
        self.split, self.count, self.size, self.task = split, count, size, task
        self.name = f"scenes-{split}"
        self.categories: tuple[Category, ...] = CATEGORIES if shapes is None else tuple(shapes)
        if task in (Task.SEGMENTATION, None):
            self.categories = WITH_BACKGROUND if task else ()
        self._recent: OrderedDict[int, Scene] = OrderedDict()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        scene = self._scene(index)
        return Sample(index, f"{self.split}-{index:06d}.png", scene.image.copy(), self._annotations(scene))

    def masks(self, index: int) -> NDArray[np.bool_]:
        """The visible pixels of each annotated object of scene `index`, [n, size, size]."""
        return _masks(self._scene(index))

    def coco_ground_truth(self) -> dict[str, Any] | None:
        """These scenes' objects in COCO's format, areas counted over visible pixels, with run lengths of them
        where masks are annotated; None where objects are not."""
        if self.task not in (Task.DETECTION, Task.INSTANCE_SEGMENTATION):
            return None
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(self.count):
            scene = self._scene(index)
            masks = _masks(scene)
            images.append(
                {
                    "id": index,
                    "file_name": f"{self.split}-{index:06d}.png",
                    "width": self.size,
                    "height": self.size,
                }
            )
            for mask, (x0, y0, x1, y1), label in zip(
                masks, _boxes(masks).tolist(), scene.labels, strict=True
            ):
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": self.categories[label].id,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                }
                if self.task is Task.INSTANCE_SEGMENTATION:
                    annotation["segmentation"] = run_lengths(mask[None])[0]
                annotations.append(annotation)
        categories = [{"id": c.id, "name": c.name} for c in self.categories]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _annotations(self, scene: Scene) -> Detections | SemanticMap | None:
        if self.task is None:
            return None
        labels = torch.tensor(scene.labels, dtype=torch.int64)
        if self.task is Task.SEGMENTATION:
            # Owner -1, nobody, takes the last entry.
            classes = np.array([*(label + 1 for label in scene.labels), 0], np.uint8)
            return SemanticMap(torch.from_numpy(classes[scene.owner]))
        masks = _masks(scene)
        boxes, scores = torch.from_numpy(_boxes(masks)), torch.ones(len(labels))
        if self.task is Task.INSTANCE_SEGMENTATION:
            return Instances(boxes, labels, scores, torch.from_numpy(masks))
        return Detections(boxes, labels, scores)

    def _scene(self, index: int) -> Scene:
        scene = self._recent.get(index)
        if scene is None:
            seed = np.random.SeedSequence([SPLITS[self.split], index, self.size])
            scene = self._recent[index] = paint(np.random.Generator(np.random.PCG64(seed)), self.size)
            if len(self._recent) > CACHED:
                self._recent.popitem(last=False)
        return scene


def _masks(scene: Scene) -> NDArray[np.bool_]:
    return scene.owner[None] == np.arange(len(scene.labels), dtype=np.int16)[:, None, None]


def _boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The tightest boxes, x0 y0 x1 y1 with x1 and y1 exclusive, [n, 4]."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
