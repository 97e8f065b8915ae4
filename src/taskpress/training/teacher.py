"""The teacher's labels: what the frozen recognizer sees in uncompressed pictures, once per picture."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taskpress.coding.files import atomic_write
from taskpress.coding.images import to_tensor
from taskpress.recognition.device import device_of
from taskpress.recognition.protocol import Recognizer
from taskpress.targets import TARGETS, Target

KEPT = 2**29
OBJECTS = 2000
"""Bytes that an entry's objects take in memory beside its numbers."""


def default_cache_dir() -> Path:
    """$TASKPRESS_CACHE, or ~/.cache/taskpress."""
    return Path(os.environ.get("TASKPRESS_CACHE") or Path.home() / ".cache" / "taskpress").expanduser()


class Teacher:
    """Pseudo-labels of uncompressed pictures, kept on disk and, up to `KEPT` bytes, in memory.

    Entries are keyed by the recognizer's fingerprint and a digest of the pixels, so that a changed picture,
    size or recognizer never meets old labels. A damaged entry is computed again.

    recognizer: frozen; runs where its parameters are
    cache_dir:  made when first written to; None for `default_cache_dir()`
    hits, misses: calls answered from the cache, and calls that ran the recognizer
    complete: data sets, in words, of which every picture has been labelled here
    """

    def __init__(self, recognizer: Recognizer, cache_dir: Path | None = None) -> None:
        self.recognizer = recognizer
        self.cache_dir = default_cache_dir() if cache_dir is None else Path(cache_dir)
        self.hits = 0
        self.misses = 0
        self.complete: set[str] = set()
        self._known: OrderedDict[str, tuple[Target, int]] = OrderedDict()
        self._bytes = 0

    def labels(self, image: NDArray[np.uint8]) -> Target:
        """What the recognizer sees in `image`, uint8 [H, W, 3] RGB; in its pixels, on the CPU."""
        digest = hashlib.sha256(
            repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()
        ).hexdigest()
        if digest in self._known:
            self.hits += 1
            self._known.move_to_end(digest)
            return self._known[digest][0]
        entry = self.cache_dir / self.recognizer.fingerprint[:32] / digest[:2] / f"{digest}.npz"
        labels = _read(entry, TARGETS[self.recognizer.task])
        if labels is None:
            self.misses += 1
            labels = self._recognize(image)
            _write(entry, labels)
        else:
            self.hits += 1
        self._keep(digest, labels)
        return labels

    def _keep(self, digest: str, labels: Target) -> None:
        """Keeps an entry in memory, and drops the longest unused: masks of many pictures would fill it."""
        size = OBJECTS + sum(array.nbytes for array in labels.arrays().values())
        self._known[digest] = labels, size
        self._bytes += size
        while self._bytes > KEPT:
            _, (_, freed) = self._known.popitem(last=False)
            self._bytes -= freed

    def _recognize(self, image: NDArray[np.uint8]) -> Target:
        tensor = to_tensor(image).to(device_of(self.recognizer))
        labels: Target = self.recognizer.pseudo_labels([tensor])[0]
        return labels.to("cpu")


def _read(entry: Path, kind: type[Target]) -> Target | None:
    try:
        with np.load(entry, allow_pickle=False) as stored:
            return kind.from_arrays(stored)
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error):
        # RuntimeError: a flipped bit that makes the archive look encrypted, or of a later version.
        return None


def _write(entry: Path, labels: Target) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **labels.arrays())  # type: ignore[arg-type] # not the keyword allow_pickle
    entry.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(entry, buffer.getvalue())
