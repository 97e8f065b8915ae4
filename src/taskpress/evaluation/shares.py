"""The share of bits inside the teacher's boxes over a whole data set, of several codecs: file and figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from taskpress.coding.codec import Codec
from taskpress.datasets.dataset import Dataset
from taskpress.errors import DataError
from taskpress.evaluation.allocation import dataset_share
from taskpress.evaluation.curve_drawing import draw_curve, places, rate_axis, verbatim
from taskpress.evaluation.figures import new_figure, to_png
from taskpress.evaluation.rate_accuracy import Reference, trained_as
from taskpress.evaluation.result import TrainedAs
from taskpress.evaluation.seeds import repeats
from taskpress.evaluation.stored import Stored, StoredFile
from taskpress.provenance import command_line, versions


@dataclass
class Unmeasured:
    """A codec whose share is yet to be measured: enough to see whether its curve can be drawn
    (`seeds.by_lambda_and_seed`)."""

    codec: str
    training: TrainedAs | None
    refined: None = None


class Share(Stored):
    """Where a codec's bits go over a data set.

    bpp:   by the codec's own probability model, all bits over all pixels
    share: of all bits, those inside the boxes, 0 ... 1
    area:  of all pixels, those inside the boxes; equal to `share` for a codec that is blind to objects
    """

    codec: str
    codec_fingerprint: str
    curve: str
    training: TrainedAs | None
    bpp: float = Field(gt=0)
    share: float
    area: float

    @property
    def refined(self) -> None:
        """None: shares are of g_a's own guess."""

    @property
    def scores(self) -> dict[str, float | None]:
        """The share in percent, as figures show it."""
        return {"share": 100 * self.share}


class Shares(StoredFile):
    """The shares of several codecs on one data set, with the boxes of one recognizer."""

    written_by = "taskpress allocation"

    recognizer: str
    recognizer_fingerprint: str
    dataset: str
    images: int = Field(ge=1)
    boxes: int
    resize: int | None
    shares: list[Share] = Field(min_length=1)
    command: str
    versions: dict[str, str]


def share_of(
    codec: Codec, curve: str, name: str, dataset: Dataset, reference: Reference, progress: bool = False
) -> Share:
    """Bits of a codec inside the reference's boxes, over the reference's pictures.

    Raises DataError where the recognizer saw no box in any of them.
    """
    if not any(len(found) for found in reference.labels):
        raise DataError(f"{reference.dataset}: the recognizer sees no box in these pictures; take others")
    found = dataset_share(codec, dataset, reference.labels, reference.resize, name if progress else None)
    return Share(
        codec=name,
        codec_fingerprint=codec.fingerprint,
        curve=curve,
        training=trained_as(codec),
        **found._asdict(),
    )


def collect(shares: Sequence[Share], reference: Reference, recognizer: str) -> Shares:
    """Shares of one reference, with what they were made of; `recognizer` is the name of the one it used."""
    return Shares(
        recognizer=recognizer,
        recognizer_fingerprint=reference.recognizer,
        dataset=reference.dataset,
        images=len(reference.image_ids),
        boxes=sum(len(found) for found in reference.labels),
        resize=reference.resize,
        shares=list(shares),
        command=command_line(),
        versions=versions(),
    )


def shares_figure(shares: Shares) -> bytes:
    """PNG: share of bits inside boxes over bits per pixel, a line per curve, share of area dashed."""
    figure = new_figure(5.8, 4.6)
    ax = figure.subplots()
    curves: dict[str, list[Share]] = {}
    for share in shares.shares:
        curves.setdefault(share.curve, []).append(share)
    looks = places(curves)
    for name, points in curves.items():
        draw_curve(ax, looks[name], name, repeats(name, points), "share")
    area = 100 * shares.shares[0].area
    ax.axhline(area, color="0.35", linestyle=(0, (5, 4)), linewidth=1, label="share of the area", zorder=0)
    rate_axis(ax, [share.bpp for share in shares.shares], "bits per pixel, by the codec's own model")
    ax.set_ylim(0, 1.15 * max(area, *(100 * share.share for share in shares.shares)))
    ax.set_ylabel("share of bits inside boxes, %")
    scaled = f", long side {shares.resize}" if shares.resize else ""
    ax.set_title(
        verbatim(
            f"{shares.images} pictures of {shares.dataset}{scaled}\n"
            f"recognizer {shares.recognizer}: {shares.boxes} boxes"
        ),
        fontsize=10,
    )
    ax.legend(frameon=False)
    return to_png(figure)
