"""One operating point of one coder, as a JSON file: written by `evaluate` and `anchor`, read by `compare`."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from taskpress.coding.files import atomic_write
from taskpress.errors import DataError
from taskpress.evaluation.encoder_size import EncoderSize
from taskpress.evaluation.fidelity import Fidelity
from taskpress.evaluation.matches import ClassMatches, Matches, PixelMatches
from taskpress.evaluation.matching import ObjectMatches
from taskpress.evaluation.stored import LAMBDA, Stored, StoredFile
from taskpress.targets import Task

SAME = 0.5
"""How far a recognizer's scores of uncompressed pictures may lie apart between machines."""
SAME_LEVEL = 0.5
"""How far the mean of one picture's values may lie apart between machines."""
BOX_SCORES = ("ap", "ap50", "teacher_ap", "teacher_ap50")
UNCOMPRESSED_BOX_SCORES = ("ap", "ap50", "teacher_ap")


class Picture(Stored):
    """One coded picture: its id in the data set, bits of its file, pixels that were coded.

    level: mean of the values that were coded, 0 ... 255, which tells pictures apart whatever they are called
        and decodes alike everywhere to less than `SAME_LEVEL`; None in older files
    """

    id: int = Field(ge=0, lt=2**63)
    bits: int = Field(ge=0, lt=2**63)
    pixels: int = Field(gt=0, lt=2**63)
    level: float | None = Field(default=None, ge=0, le=255)


def level_of(image: np.ndarray) -> float:
    """`Picture.level` of uint8 [H, W, 3]."""
    return round(float(image.mean()), 2)


def same_level(one: float | None, other: float | None) -> bool:
    """Whether two pictures may be the same one, as far as it is known."""
    return one is None or other is None or abs(one - other) <= SAME_LEVEL


class TrainedAs(Stored):
    """What tells repetitions of one training apart: its seed, and its λ.

    settings:   digest of all else that it was told, the same for repetitions; None in older files
    experiment: name of the preset; None in older files
    """

    seed: int
    lmbda: float = Field(validation_alias=LAMBDA)
    settings: str | None = None
    experiment: str | None = None


class RefinedAs(Stored):
    """How the encoder refined its latents (`coding.refinement`): λ, steps and learning rate."""

    lmbda: float = Field(validation_alias=LAMBDA)
    steps: int
    learning_rate: float


class Result(StoredFile):
    """Rate and accuracy of one coder on one data set. Scores are 0 ... 100, null where nothing is annotated.

    bpp is all bits of all files over all pixels coded (after `resize`), headers included. `scores` hold every
    metric of the task (`evaluation.metrics`): teacher_* against what the recognizer itself saw in the
    uncompressed pictures, the others against the annotations. uncompressed_* is the recognizer on the resized
    pictures without any coding. ap, ap50, teacher_ap, teacher_ap50 and their uncompressed_* repeat box AP,
    where the task has it: files of before there was a second task hold nothing else. `training` is null for
    coders that were not trained here, `fidelity` where it was not measured, and both in older files.
    `refined` is null where an encoder took its first guess. `precision` is what a learned codec's transforms
    computed in, `device` where the recognizer computed, both null in older files; `tile` is the side of tiles
    where one was asked for; `code` a digest of the code of an anchor of the user's own, else null.
    """

    written_by = "taskpress evaluate` or `anchor"

    curve: str
    codec: str
    codec_fingerprint: str | None = None
    training: TrainedAs | None = None
    refined: RefinedAs | None = None
    precision: str | None = None
    tile: int | None = None
    device: str | None = None
    code: str | None = None
    recognizer: str
    recognizer_fingerprint: str | None = None
    dataset: str
    images: int = Field(ge=1)
    resize: int | None
    bpp: float = Field(gt=0)
    task: Task = Task.DETECTION
    ap: float | None = None
    ap50: float | None = None
    teacher_ap: float | None = None
    teacher_ap50: float | None = None
    uncompressed_ap: float | None = None
    uncompressed_ap50: float | None = None
    uncompressed_teacher_ap: float | None = None
    scores: dict[str, float | None]
    uncompressed_scores: dict[str, float | None]
    fidelity: Fidelity | None = None
    encode_s_per_mp: float
    decode_s_per_mp: float
    encoder: EncoderSize | None
    command: str
    versions: dict[str, str]
    pictures: list[Picture] = Field(default_factory=list)
    _matches: dict[str, Matches] = PrivateAttr(default_factory=dict)

    @property
    def learned(self) -> bool:
        """Whether this is a codec's result, not a classical coder's."""
        return self.codec_fingerprint is not None

    @property
    def matches(self) -> dict[str, Matches]:
        """What predictions matched, by the keys of scores, for bootstrap intervals.

        Kept in a file of its own, NAME.matches.npz beside NAME.json; empty where that is missing.
        """
        return self._matches

    @matches.setter
    def matches(self, matches: dict[str, Matches]) -> None:
        self._matches = matches

    @model_validator(mode="after")
    def _pictures_are_those_counted(self) -> Result:
        if self.pictures and len(self.pictures) != self.images:
            raise ValueError(f"counts {self.images} pictures and lists {len(self.pictures)}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _scores_of_old_files(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "scores" in content:
            return content
        absent = {key for key in ("ap", "teacher_ap") if key not in content}
        if absent:
            raise ValueError(f"has neither `scores` nor `{min(absent)}`")
        return {
            **content,
            "scores": {key: content.get(key) for key in BOX_SCORES},
            "uncompressed_scores": {
                key: content.get(f"uncompressed_{key}") for key in UNCOMPRESSED_BOX_SCORES
            },
        }

    @classmethod
    def of_scores(
        cls,
        *,
        scores: dict[str, float | None],
        uncompressed_scores: dict[str, float | None],
        **fields: Any,
    ) -> Result:
        """A result whose fields of box AP are those among its scores."""
        return cls(
            scores=scores,
            uncompressed_scores=uncompressed_scores,
            **{key: scores.get(key) for key in BOX_SCORES},
            **{f"uncompressed_{key}": uncompressed_scores.get(key) for key in UNCOMPRESSED_BOX_SCORES},
            **fields,
        )

    def summary(self) -> dict[str, Any]:
        """The result as JSON-able values, without the list of pictures."""
        return self.model_dump(mode="json", by_alias=True, exclude={"pictures"})

    def content(self) -> str:
        """The file's text; a picture a line keeps it short and easy to compare."""
        head = json.dumps(self.summary(), indent=1).removesuffix("\n}")
        pictures = ",\n  ".join(picture.model_dump_json() for picture in self.pictures)
        return f'{head},\n "pictures": [\n  {pictures}\n ]\n}}\n'

    def write(self, path: str | Path) -> None:
        """Writes the JSON, and beside it the matches where there are any, each whole or not at all."""
        path = Path(path)
        if self._matches:
            arrays = {
                f"{key}.{name}": array
                for key, matches in self._matches.items()
                for name, array in matches.arrays().items()
            }
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type] # not the keyword allow_pickle
            atomic_write(_matches_path(path), buffer.getvalue())
        else:
            _matches_path(path).unlink(missing_ok=True)
        super().write(path)

    @classmethod
    def read(cls, path: str | Path) -> Result:
        """Raises DataError naming the file and the first field that does not fit."""
        path = Path(path)
        result = super().read(path)
        result.matches = _read_matches(_matches_path(path))
        if any(found.pictures != len(result.pictures) for found in result.matches.values()):
            raise DataError(f"{_matches_path(path)}: is of other pictures than {path.name}; remove it")
        for key, found in result.matches.items():
            stated = result.scores.get(key)
            if stated is not None and abs(found.accuracy - stated) > 0.01:
                raise DataError(
                    f"{_matches_path(path)}: makes {key} {found.accuracy:.2f} where {path.name} says "
                    f"{stated:.2f}, so it is of another measurement; remove it to do without intervals, or "
                    "measure anew"
                )
        return result


def _matches_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.matches.npz")


def _read_matches(path: Path) -> dict[str, Matches]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = {name.partition(".")[0] for name in stored.files}
            return {
                key: _of_any_kind(
                    {n.partition(".")[2]: stored[n] for n in stored.files if n.startswith(f"{key}.")}
                )
                for key in sorted(names)
            }
    # RuntimeError: a flag in the archive that says it were encrypted, or packed as zipfile does not know.
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged ({error}); remove it to do without intervals") from None


def _of_any_kind(arrays: dict[str, np.ndarray]) -> Matches:
    for kind in (ObjectMatches, PixelMatches, ClassMatches):
        if set(kind.names()) == arrays.keys():
            return kind.from_arrays(arrays)
    raise KeyError(f"no matches: {', '.join(arrays)}")
