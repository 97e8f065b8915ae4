"""The teacher's labels: what the frozen recognizer sees in uncompressed pictures, once per picture."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from taskpress.coding.files import atomic_write
from taskpress.coding.images import to_tensor
from taskpress.detections import Detections
from taskpress.recognition.protocol import Recognizer

SMALLEST_SIDE = 4.0
"""Pixels; of a thinner remainder of a box at a crop's border nothing can be recognized."""


def default_cache_dir() -> Path:
    """$TASKPRESS_CACHE, or ~/.cache/taskpress."""
    return Path(os.environ.get("TASKPRESS_CACHE") or Path.home() / ".cache" / "taskpress").expanduser()


class Teacher:
    """Pseudo-labels of uncompressed pictures, kept in memory and on disk.

    Entries are keyed by the recognizer's fingerprint and a digest of the pixels, so that a changed picture,
    size or recognizer never meets old labels. A damaged entry is computed again.

    recognizer: frozen; runs where its parameters are
    cache_dir:  made when first written to; None for `default_cache_dir()`
    hits, misses: calls answered from the cache, and calls that ran the recognizer
    """

    def __init__(self, recognizer: Recognizer, cache_dir: Path | None = None) -> None:
        self.recognizer = recognizer
        self.cache_dir = default_cache_dir() if cache_dir is None else Path(cache_dir)
        self.hits = 0
        self.misses = 0
        self._known: dict[str, Detections] = {}

    def labels(self, image: NDArray[np.uint8]) -> Detections:
        """What the recognizer sees in `image`, uint8 [H, W, 3] RGB; boxes in pixels, on the CPU."""
        digest = hashlib.sha256(
            repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()
        ).hexdigest()
        labels = self._known.get(digest)
        if labels is None:
            entry = self.cache_dir / self.recognizer.fingerprint[:32] / digest[:2] / f"{digest}.npz"
            labels = _read(entry)
            if labels is None:
                self.misses += 1
                labels = self._recognize(image)
                _write(entry, labels)
            else:
                self.hits += 1
            self._known[digest] = labels
        else:
            self.hits += 1
        return labels

    def _recognize(self, image: NDArray[np.uint8]) -> Detections:
        tensor = to_tensor(image)
        if isinstance(self.recognizer, nn.Module):
            tensor = tensor.to(next(self.recognizer.parameters()).device)
        return self.recognizer.pseudo_labels([tensor])[0].to("cpu")


def transform_labels(
    labels: Detections, crop: tuple[int, int, int, int], flip: bool, min_visible: float = 0.25
) -> Detections:
    """The labels of a picture after it was cropped to (x0, y0, width, height), then mirrored left to right.

    Boxes are clipped to the crop. One goes where less than `min_visible` of its area is left, or where what
    is left of it was cut thinner than 4 pixels (a box that is thin by itself stays while that side is whole).
    """
    x0, y0, width, height = crop
    boxes = labels.boxes - labels.boxes.new_tensor([x0, y0, x0, y0])
    clipped = torch.stack(
        [
            boxes[:, 0].clamp(0, width),
            boxes[:, 1].clamp(0, height),
            boxes[:, 2].clamp(0, width),
            boxes[:, 3].clamp(0, height),
        ],
        dim=1,
    )
    sides, old_sides = clipped[:, 2:] - clipped[:, :2], boxes[:, 2:] - boxes[:, :2]
    enough = sides.prod(dim=1) >= min_visible * old_sides.prod(dim=1)
    thick = (sides >= old_sides.clamp(max=SMALLEST_SIDE)).all(dim=1)
    if flip:
        clipped = torch.stack(
            [width - clipped[:, 2], clipped[:, 1], width - clipped[:, 0], clipped[:, 3]], dim=1
        )
    return Detections(clipped, labels.labels, labels.scores).where(enough & thick & (sides > 0).all(dim=1))


def _read(entry: Path) -> Detections | None:
    try:
        with np.load(entry, allow_pickle=False) as stored:
            boxes, labels, scores = stored["boxes"], stored["labels"], stored["scores"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    count = len(labels) if labels.ndim == 1 else -1
    if boxes.shape != (count, 4) or scores.shape != (count,):
        return None
    if (boxes.dtype, labels.dtype, scores.dtype) != (np.float32, np.int64, np.float32):
        return None
    return Detections(torch.from_numpy(boxes), torch.from_numpy(labels), torch.from_numpy(scores))


def _write(entry: Path, labels: Detections) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        boxes=labels.boxes.numpy().astype(np.float32),
        labels=labels.labels.numpy().astype(np.int64),
        scores=labels.scores.numpy().astype(np.float32),
    )
    entry.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(entry, buffer.getvalue())
