"""Rate of real files against what a recognizer still sees in them: the one path every coder is measured on.

picture ─► resize ─┬─► encode ─► bytes (rate) ─► decode ─► recognizer ─► predictions ─► scores
                   └─► recognizer ─► predictions, pseudo-labels (`Reference`, once for all coders)
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from taskpress.coding.codec import Codec
from taskpress.coding.refinement import Refinement
from taskpress.datasets.dataset import Dataset
from taskpress.detections import Detections
from taskpress.errors import ConfigError, DataError
from taskpress.evaluation.encoder_size import MapUse, encoder_size, use_map
from taskpress.evaluation.fidelity import ms_ssim, psnr, summarize
from taskpress.evaluation.own_anchor import OwnAnchor
from taskpress.evaluation.pictures import Pixels, as_input, in_original_pixels, resized, samples
from taskpress.evaluation.result import (
    SAME,
    Picture,
    RefinedAs,
    Result,
    TrainedAs,
    level_of,
    same_level,
)
from taskpress.evaluation.scoring import Truth, open_truth
from taskpress.evaluation.stored import check_same
from taskpress.provenance import command_line, versions
from taskpress.recognition.device import device_of
from taskpress.recognition.protocol import Recognizer


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
    """A learned codec as a `Coder`; `tile` and `refinement` as in `Codec.encode`."""

    codec: Codec
    curve: str
    name: str
    tile: int | None = None
    refinement: Refinement | None = None

    def encode(self, image: Pixels) -> bytes:
        return self.codec.encode(image, self.tile, self.refinement)

    def decode(self, data: bytes) -> Pixels:
        pixels: Pixels = self.codec.decode(data, as_="numpy")
        return pixels


def default_curve(card: Mapping[str, object], name: str) -> str:
    """The arm a codec was trained as; else its name without the rate's -qN."""
    arm = card.get("arm")
    return arm if isinstance(arm, str) and arm else re.sub(r"-q\d+$", "", name)


def named_by_card(codec: Codec) -> CodecCoder:
    """A coder with the name on the codec's card; a codec without one is called by its architecture."""
    name = codec.card.get("name")
    name = name if isinstance(name, str) and name else codec.architecture
    return CodecCoder(codec, default_curve(codec.card, name), name)


def trained_as(codec: Codec) -> TrainedAs | None:
    """What the card of a codec says of its training; None where it tells of none of ours."""
    try:
        told: Any = codec.card["config"]
        return TrainedAs.model_validate({**told, "settings": codec.card.get("settings")})
    except (AttributeError, KeyError, TypeError, ValidationError):
        return None


def refined_as(refinement: Refinement | None) -> RefinedAs | None:
    """What a result says of how latents were refined; None where they were not."""
    if refinement is None:
        return None
    return RefinedAs(lmbda=refinement.lmbda, steps=refinement.steps, learning_rate=refinement.learning_rate)


@dataclass(frozen=True)
class Reference:
    """The recognizer on uncompressed pictures, computed once and shared by all coders of a run.

    levels: of the pictures, as `result.Picture` has them
    truth:  annotations (where there are any) and the teacher's labels of the original pictures
    scores: of its own predictions, by metric; None for what cannot be scored
    """

    dataset: str
    recognizer: str
    resize: int | None
    image_ids: tuple[int, ...]
    levels: tuple[float, ...]
    truth: Truth
    scores: dict[str, float | None]

    @property
    def labels(self) -> Sequence[Detections]:
        """The teacher's boxes in original pixels, one entry a picture; empty for tasks without boxes."""
        return self.truth.boxes


def make_reference(
    dataset: Dataset,
    recognizer: Recognizer,
    resize: int | None = None,
    limit: int | None = None,
    progress: bool = False,
) -> Reference:
    """Runs the recognizer over the first `limit` uncompressed pictures, their long side scaled to `resize`.

    Raises DataError for an empty data set or annotations that are not of the recognizer's task and
    categories, ImageError for a picture that cannot be read.
    """
    ids: list[int] = []
    levels: list[float] = []
    truth = open_truth(dataset, recognizer)
    judge = truth.judge()
    for sample in samples(dataset, limit, "uncompressed", progress):
        image = resized(sample.image, resize)
        tensor = as_input(image, recognizer)
        ids.append(sample.id)
        levels.append(level_of(image))
        truth.learn(sample, in_original_pixels(recognizer.pseudo_labels([tensor])[0], image, sample))
        judge.add(sample, in_original_pixels(recognizer.predict([tensor])[0], image, sample))
    return Reference(
        dataset=dataset.name,
        recognizer=recognizer.fingerprint,
        resize=resize,
        image_ids=tuple(ids),
        levels=tuple(levels),
        truth=truth,
        scores=numbers(judge.scores()),
    )


def measurement(
    coder: Coder,
    dataset: Dataset,
    recognizer: Recognizer,
    resize: int | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """What tells a measurement from others, as `Result` has it by name: coder, pictures, recognizer."""
    learned = coder if isinstance(coder, CodecCoder) else None
    return {
        "curve": coder.curve,
        "codec": coder.name,
        "codec_fingerprint": None if learned is None else learned.codec.fingerprint,
        "refined": None if learned is None else refined_as(learned.refinement),
        "precision": None if learned is None else learned.codec.precision,
        "tile": None if learned is None else learned.tile,
        "code": coder.code if isinstance(coder, OwnAnchor) else None,
        "recognizer": recognizer.name,
        "recognizer_fingerprint": recognizer.fingerprint,
        "dataset": dataset.name,
        "images": len(dataset) if limit is None else min(limit, len(dataset)),
        "resize": resize,
    }


def check_measurement(
    path: Path, wanted: dict[str, Any], levels: Sequence[float], reference: Reference | None
) -> None:
    """ConfigError where the result in `path` is of another `measurement`, of other pictures (`levels`, of the
    first ones), or scored the uncompressed pictures otherwise than `reference`: by other annotations or
    categories. DataError for none at all."""
    there = Result.read(path)
    # Older results do not say them.
    untold = {"precision"} if there.precision is None else set()
    untold |= {"tile"} if there.device is None else set()
    check_same(path, there, {name: value for name, value in wanted.items() if name not in untold})
    for picture, level in zip(there.pictures, levels, strict=False):
        if not same_level(picture.level, level):
            raise ConfigError(
                f"{path}: is of other pictures (the values of picture {picture.id} have a mean of "
                f"{picture.level}, not {level}); choose another folder with -o, or measure anew with --force"
            )
    for name, score in ({} if reference is None else reference.scores).items():
        known = there.uncompressed_scores.get(name, score)
        if (known is None) != (score is None) or abs((known or 0) - (score or 0)) > SAME:
            raise ConfigError(
                f"{path}: is of another measurement (uncompressed, its {name} is {_told(known)}, not "
                f"{_told(score)}: by other annotations or categories); choose another folder with -o, or "
                "measure anew with --force"
            )


def _told(score: float | None) -> str:
    return "not known" if score is None else f"{score:.1f}"


def evaluate(
    coder: Coder | Codec,
    dataset: Dataset,
    recognizer: Recognizer,
    *,
    resize: int | None = None,
    limit: int | None = None,
    reference: Reference | None = None,
    fidelity: bool = True,
    progress: bool = False,
) -> Result:
    """Codes the first `limit` pictures to real files, decodes them and scores the recognizer on the outcome.

    coder: a codec is called as its card calls it; a `CodecCoder` says how else, and takes tiles or refinement
    resize: the long side is scaled to this before coding, up or down; scored is in original pixels
    reference: from `make_reference` with the same data set, recognizer, resize and limit; made here if None
    fidelity: whether PSNR and MS-SSIM are measured too, a tenth of a second for a small picture

    Seconds per megapixel are of `encode` and `decode` alone, after one untimed picture. Raises what
    `make_reference` raises, and ConfigError for a reference of another run.
    """
    if isinstance(coder, Codec):
        coder = named_by_card(coder)
    if reference is None:
        reference = make_reference(dataset, recognizer, resize, limit, progress)
    told = measurement(coder, dataset, recognizer, resize, limit)
    made_for = (reference.dataset, reference.recognizer, reference.resize, len(reference.image_ids))
    if made_for != (told["dataset"], told["recognizer_fingerprint"], resize, told["images"]):
        raise ConfigError(
            "the reference was made for another data set, recognizer, resize or number of pictures"
        )

    judge = reference.truth.judge()
    pictures: list[Picture] = []
    maps: list[MapUse] = []
    psnrs: list[float] = []
    ms_ssims: list[float | None] = []
    codec, tile = (coder.codec, coder.tile) if isinstance(coder, CodecCoder) else (None, None)
    encoding = decoding = 0.0
    for sample in samples(dataset, limit, coder.name, progress):
        image = resized(sample.image, resize)
        with _naming(sample.name):
            if not pictures:
                # First calls build tables and caches, which belong to no picture.
                coder.decode(coder.encode(image))
            started = time.perf_counter()
            data = coder.encode(image)
            encoded = time.perf_counter()
            decoded = coder.decode(data)
        encoding, decoding = encoding + encoded - started, decoding + time.perf_counter() - encoded
        if codec is not None and (use := use_map(codec, image, tile)) is not None:
            maps.append(use)
        if decoded.shape != image.shape:
            raise DataError(f"{sample.name}: {coder.name} decoded {decoded.shape} from {image.shape}")
        if fidelity:
            psnrs.append(psnr(image, decoded))
            ms_ssims.append(ms_ssim(image, decoded))
        found = recognizer.predict([as_input(decoded, recognizer)])[0]
        judge.add(sample, in_original_pixels(found, decoded, sample))
        pictures.append(
            Picture(
                id=sample.id,
                bits=8 * len(data),
                pixels=image.shape[0] * image.shape[1],
                level=level_of(image),
            )
        )

    scores = numbers(judge.scores())
    matches = judge.matches()
    pixels = sum(picture.pixels for picture in pictures)
    result = Result.of_scores(
        **told,
        training=trained_as(codec) if codec is not None else None,
        bpp=sum(picture.bits for picture in pictures) / pixels,
        task=recognizer.task,
        scores=scores,
        uncompressed_scores=reference.scores,
        fidelity=summarize(psnrs, ms_ssims) if fidelity else None,
        encode_s_per_mp=encoding / (pixels / 1e6),
        decode_s_per_mp=decoding / (pixels / 1e6),
        encoder=encoder_size(coder.codec, encoding, pixels, len(pictures), maps, coder.refinement)
        if isinstance(coder, CodecCoder)
        else None,
        device=str(device_of(recognizer)),
        command=command_line(),
        versions=versions(),
        pictures=pictures,
    )
    result.matches = matches
    return result


@contextmanager
def _naming(picture: str) -> Iterator[None]:
    """Says which picture a coder failed on."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{picture}: {error}") from error


def numbers(scores: dict[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN: what cannot be scored is null."""
    return {name: None if math.isnan(score) else score for name, score in scores.items()}
