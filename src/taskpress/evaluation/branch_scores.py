"""What an auxiliary branch itself finds in Ẑ: scored as its recognizer is, and beside it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torchvision.ops import nms

from taskpress.auxiliary.detection import DetectionBranch
from taskpress.coding.codec import Codec
from taskpress.coding.images import to_array
from taskpress.datasets.dataset import Dataset
from taskpress.detections import Detections
from taskpress.evaluation.detections_figure import Found, judged
from taskpress.evaluation.object_scores import ObjectTruth
from taskpress.evaluation.pictures import Pixels, as_input, in_original_pixels, resized, samples
from taskpress.evaluation.rate_accuracy import numbers
from taskpress.evaluation.result import TrainedAs
from taskpress.evaluation.stored import StoredFile
from taskpress.recognition.protocol import Recognizer

VIEWS = ("latent", "decoded", "uncompressed")


class BranchResult(StoredFile):
    """Scores of one training's branch, 0 ... 100, with the keys of a detection `Result`.

    step:   of the checkpoint that codec and branch are from
    bpp:    by the codec's own probability model, all bits over all pixels
    scores: by who looked where: "latent", the branch at Ẑ; "decoded", the recognizer at X̂; "uncompressed",
            the recognizer at X
    """

    written_by = "taskpress evaluate-branch"

    name: str
    arm: str
    training: TrainedAs
    alpha: float
    step: int
    recognizer: str
    recognizer_fingerprint: str
    dataset: str
    images: int
    resize: int | None
    bpp: float
    scores: dict[str, dict[str, float | None]]
    command: str
    versions: dict[str, str]


class Seen(NamedTuple):
    """images: how many; bpp: of all; scores: as in `BranchResult`; shown: rows for `detections_figure`."""

    images: int
    bpp: float
    scores: dict[str, dict[str, float | None]]
    shown: list[list[Found]]


@torch.no_grad()
def look_at_latents(
    codec: Codec,
    branch: DetectionBranch,
    dataset: Dataset,
    recognizer: Recognizer,
    *,
    resize: int | None = None,
    limit: int | None = None,
    show: int = 0,
    progress: str | None = None,
) -> Seen:
    """Lets the branch look at Ẑ as a decoder finds it, and the recognizer at X̂ of the same Ẑ and at X.

    codec, branch: in evaluation mode, of one training; recognizer: its teacher, which finds boxes
    resize: as in `evaluate`, which scores the same pictures and labels by the same metric
    show:   how many of the first pictures come back to be drawn, of the branch as many of its best boxes as
            there are labels; progress: title of a bar, None for none

    Raises DataError for an empty data set and annotations of other categories.
    """
    truth = ObjectTruth(dataset.coco_ground_truth(), recognizer.categories)
    judges = {view: truth.judge() for view in VIEWS}
    bits = pixels = 0.0
    shown: list[list[Found]] = []
    for sample in samples(dataset, limit, progress or "", progress is not None):
        image = resized(sample.image, resize)
        original = as_input(image, recognizer)
        estimate = codec.estimate(original[None].to(next(codec.parameters()).device))
        decoded = to_array(estimate.x_hat[0])
        size = image.shape[0] * image.shape[1]
        bits, pixels = bits + float(estimate.rate[0]) * size, pixels + size
        seen = {
            "latent": _within(branch.predict(branch(estimate.latent))[0], image),
            "decoded": _boxes(recognizer.predict([as_input(decoded, recognizer)])[0]),
            "uncompressed": _boxes(recognizer.predict([original])[0]),
        }
        labels = _boxes(recognizer.pseudo_labels([original])[0])
        truth.learn(sample, in_original_pixels(labels, image, sample))
        for view, found in seen.items():
            judges[view].add(sample, in_original_pixels(found, image, sample))
        if len(shown) < show:
            again = _boxes(recognizer.pseudo_labels([as_input(decoded, recognizer)])[0])
            best = _best(seen["latent"], len(labels))
            shown.append(
                [
                    Found(f"{sample.name}: labels of the recognizer", image, labels.to("cpu")),
                    judged("decoded: recognizer", decoded, again.to("cpu"), labels),
                    judged(f"decoded: branch at the latent, best {len(best)}", decoded, best, labels),
                ]
            )
    scores = {view: numbers(judge.scores()) for view, judge in judges.items()}
    return Seen(len(truth.ids), bits / pixels, scores, shown)


def _best(found: Detections, count: int) -> Detections:
    """The likeliest, one class a place: confidence of an early branch is low everywhere, so none decides."""
    return found.where(nms(found.boxes, found.scores, 0.5)[:count])


def _boxes(found: Detections) -> Detections:
    """The boxes of what was found, without masks, of which a branch has none."""
    return Detections(found.boxes, found.labels, found.scores)


def _within(found: Detections, image: Pixels) -> Detections:
    """Boxes clipped to the picture: cells of the padding and beside it may say more."""
    height, width = image.shape[:2]
    limit = found.boxes.new_tensor([width, height, width, height])
    return Detections(found.boxes.clamp(min=0).minimum(limit), found.labels, found.scores)
