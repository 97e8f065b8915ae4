"""Rate of real files against what a recognizer still sees in them: the one path every coder is measured on.

picture ─► resize ─┬─► encode ─► bytes (rate) ─► decode ─► recognizer ─► boxes ─► AP
                   └─► recognizer ─► predictions, pseudo-labels (`Reference`, once for all coders)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from taskpress.coding.codec import Codec
from taskpress.coding.errors import ConfigError, DataError
from taskpress.coding.images import resize_long_side, to_tensor
from taskpress.datasets.dataset import Dataset, Sample
from taskpress.detections import Detections
from taskpress.evaluation.detection_metric import coco_metrics, teacher_ground_truth
from taskpress.evaluation.result import EncoderSize, Picture, Result, command_line, versions
from taskpress.recognition.protocol import Recognizer, Task

Pixels = NDArray[np.uint8]


class Coder(Protocol):
    """Anything that turns pictures into files and back."""

    @property
    def curve(self) -> str:
        """Operating points of one curve share this name."""
        ...

    @property
    def name(self) -> str: ...

    def encode(self, image: Pixels) -> bytes:
        """uint8 RGB [H, W, 3] to a complete file."""
        ...

    def decode(self, data: bytes) -> Pixels: ...


@dataclass(frozen=True)
class CodecCoder:
    """A learned codec as a `Coder`."""

    codec: Codec
    curve: str
    name: str

    def encode(self, image: Pixels) -> bytes:
        return self.codec.encode(image)

    def decode(self, data: bytes) -> Pixels:
        pixels: Pixels = self.codec.decode(data, as_="numpy")
        return pixels


@dataclass(frozen=True)
class Reference:
    """The recognizer on uncompressed pictures, computed once and shared by all coders of a run.

    image_ids, sizes (height, width) and predictions belong to the original pictures; `truth` are
    their annotations (None if unlabelled), `teacher` the pseudo-labels in the same format.
    """

    dataset: str
    recognizer: str
    resize: int | None
    image_ids: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    truth: dict[str, Any] | None
    teacher: dict[str, Any]
    labels: tuple[Detections, ...]
    ap: float | None
    ap50: float | None
    teacher_ap: float | None


def make_reference(
    dataset: Dataset,
    recognizer: Recognizer,
    resize: int | None = None,
    limit: int | None = None,
    progress: bool = False,
) -> Reference:
    """Runs the recognizer over the first `limit` uncompressed pictures, their long side scaled to `resize`.

    Raises DataError for an empty data set, annotations of other categories than the recognizer's, ImageError
    for a picture that cannot be read, ConfigError for a recognizer of another task.
    """
    if recognizer.task is not Task.DETECTION:
        raise ConfigError(
            f"recognizer {recognizer.name!r} does {recognizer.task}: rate-accuracy scores detection only"
        )
    ids: list[int] = []
    sizes: list[tuple[int, int]] = []
    predictions: list[Detections] = []
    labels: list[Detections] = []
    for sample in _samples(dataset, limit, "uncompressed", progress):
        height, width = sample.image.shape[:2]
        image = _tensor(_resized(sample.image, resize), recognizer)
        x, y = width / image.shape[2], height / image.shape[1]
        ids.append(sample.id)
        sizes.append((height, width))
        predictions.append(recognizer.predict([image])[0].to("cpu").scaled(x, y))
        labels.append(recognizer.pseudo_labels([image])[0].to("cpu").scaled(x, y))
    truth = dataset.coco_ground_truth()
    teacher = teacher_ground_truth(labels, ids, recognizer.categories, sizes)
    annotated = coco_metrics(truth, predictions, ids, recognizer.categories) if truth else {}
    own = coco_metrics(teacher, predictions, ids, recognizer.categories)
    return Reference(
        dataset=dataset.name,
        recognizer=recognizer.fingerprint,
        resize=resize,
        image_ids=tuple(ids),
        sizes=tuple(sizes),
        truth=truth,
        teacher=teacher,
        labels=tuple(labels),
        ap=_number(annotated.get("ap")),
        ap50=_number(annotated.get("ap50")),
        teacher_ap=_number(own["ap"]),
    )


def evaluate(
    coder: Coder,
    dataset: Dataset,
    recognizer: Recognizer,
    *,
    resize: int | None = None,
    limit: int | None = None,
    reference: Reference | None = None,
    progress: bool = False,
) -> Result:
    """Codes the first `limit` pictures to real files, decodes them and scores the recognizer on the outcome.

    resize: the long side is scaled to this before coding, up or down; boxes are scored in original pixels
    reference: from `make_reference` with the same data set, recognizer, resize and limit; made here if None

    Seconds per megapixel are of `encode` and `decode` alone, after one untimed picture. Raises what
    `make_reference` raises, and ConfigError for a reference of another run.
    """
    if reference is None:
        reference = make_reference(dataset, recognizer, resize, limit, progress)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    made_for = (reference.dataset, reference.recognizer, reference.resize, len(reference.image_ids))
    if made_for != (dataset.name, recognizer.fingerprint, resize, count):
        raise ConfigError(
            "the reference was made for another data set, recognizer, resize or number of pictures"
        )

    predictions: list[Detections] = []
    pictures: list[Picture] = []
    encoding = decoding = 0.0
    for sample in _samples(dataset, limit, coder.name, progress):
        image = _resized(sample.image, resize)
        if not pictures:
            # First calls build tables and caches, which belong to no picture.
            coder.decode(coder.encode(image))
        started = time.perf_counter()
        data = coder.encode(image)
        encoded = time.perf_counter()
        decoded = coder.decode(data)
        encoding, decoding = encoding + encoded - started, decoding + time.perf_counter() - encoded
        if decoded.shape != image.shape:
            raise DataError(f"{sample.name}: {coder.name} decoded {decoded.shape} from {image.shape}")
        height, width = sample.image.shape[:2]
        found = recognizer.predict([_tensor(decoded, recognizer)])[0].to("cpu")
        predictions.append(found.scaled(width / image.shape[1], height / image.shape[0]))
        pictures.append(Picture(id=sample.id, bits=8 * len(data), pixels=image.shape[0] * image.shape[1]))

    ids, categories = reference.image_ids, recognizer.categories
    annotated = coco_metrics(reference.truth, predictions, ids, categories) if reference.truth else {}
    against_teacher = coco_metrics(reference.teacher, predictions, ids, categories)
    pixels = sum(picture.pixels for picture in pictures)
    return Result(
        curve=coder.curve,
        codec=coder.name,
        codec_fingerprint=coder.codec.fingerprint if isinstance(coder, CodecCoder) else None,
        recognizer=recognizer.name,
        recognizer_fingerprint=recognizer.fingerprint,
        dataset=dataset.name,
        images=len(pictures),
        resize=resize,
        bpp=sum(picture.bits for picture in pictures) / pixels,
        ap=_number(annotated.get("ap")),
        ap50=_number(annotated.get("ap50")),
        teacher_ap=_number(against_teacher["ap"]),
        teacher_ap50=_number(against_teacher["ap50"]),
        uncompressed_ap=reference.ap,
        uncompressed_ap50=reference.ap50,
        uncompressed_teacher_ap=reference.teacher_ap,
        encode_s_per_mp=encoding / (pixels / 1e6),
        decode_s_per_mp=decoding / (pixels / 1e6),
        encoder=_encoder_size(coder),
        command=command_line(),
        versions=versions(),
        pictures=pictures,
    )


def _samples(dataset: Dataset, limit: int | None, title: str, progress: bool) -> Iterator[Sample]:
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if count < 1:
        raise DataError(
            f"data set {dataset.name!r}: no picture to evaluate (it has {len(dataset)}, limit {limit})"
        )
    indices: Iterable[int] = range(count)
    if progress:
        from rich.console import Console
        from rich.progress import track

        indices = track(indices, title, total=count, console=Console(stderr=True), transient=True)
    for index in indices:
        yield dataset[index]


def _resized(image: Pixels, resize: int | None) -> Pixels:
    return image if resize is None else resize_long_side(image, resize)


def _tensor(image: Pixels, recognizer: Recognizer) -> torch.Tensor:
    parameters = recognizer.parameters() if isinstance(recognizer, nn.Module) else iter(())
    parameter = next(parameters, None)
    return to_tensor(image).to("cpu" if parameter is None else parameter.device)


def _encoder_size(coder: Coder) -> EncoderSize | None:
    if not isinstance(coder, CodecCoder):
        return None
    cost = coder.codec.encoder_cost()
    return EncoderSize(parameters=cost.parameters, macs_per_pixel=cost.macs_per_pixel)


def _number(value: float | None) -> float | None:
    """JSON knows no NaN: what cannot be scored is null."""
    return None if value is None or math.isnan(value) else value
