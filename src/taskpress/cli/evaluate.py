"""`taskpress evaluate`: rate and accuracy of learned codecs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from taskpress.cli.measuring import (
    Annotations,
    AsJson,
    Asked,
    AtOnce,
    Categories,
    CurveName,
    Devices,
    Images,
    Limit,
    Output,
    Precision,
    RecognizerSpec,
    Resize,
    TileSide,
    WithFidelity,
)
from taskpress.cli.outcomes import Force, Skip
from taskpress.cli.refining import Refine, RefineLambda, RefineRecognizer, refinements
from taskpress.cli.results import How, checked_devices, measure, told_apart
from taskpress.coding.files import codec_name
from taskpress.errors import ConfigError

if TYPE_CHECKING:
    from taskpress.coding.codec import Codec


def evaluate(
    codecs: Annotated[list[str], typer.Argument(metavar="CODEC...", help="Codec files or shipped names.")],
    images: Images,
    recognizer: RecognizerSpec,
    output: Output,
    annotations: Annotations = None,
    categories: Categories = None,
    resize: Resize = None,
    limit: Limit = None,
    tile: TileSide = None,
    curve: CurveName = None,
    fidelity: WithFidelity = True,
    refine: Refine = None,
    refine_lambda: RefineLambda = None,
    refine_recognizer: RefineRecognizer = None,
    precision: Precision = "float32",
    device: Devices = "cpu",
    jobs: AtOnce = None,
    force: Force = False,
    skip: Skip = False,
    as_json: AsJson = False,
) -> None:
    """Measure codecs: bits of real files, and what a recognizer still sees in them.

    Rate is all bits of the files over all pixels coded. Accuracy is the metric
    of the recognizer's task (COCO AP, mask AP, mIoU, top-1; 0 to 100) against
    the annotations, and against the recognizer's own labels on the uncompressed
    pictures. A codec's curve is the arm it was trained as, or its name without
    a trailing -qN. Codecs of one name and several seeds are told apart by -sSEED.
    Results that are there already are never replaced unasked: --skip goes on where
    an evaluation ended, --force measures anew.

    Example: taskpress evaluate run/codecs/*.safetensors --images val2017
    --annotations instances_val2017.json --recognizer onnx:yolox_nano.onnx
    --resize 416 -o results
    """
    from taskpress.coding.codec import Codec
    from taskpress.evaluation.rate_accuracy import CodecCoder, default_curve

    devices, at_once = checked_devices(device, jobs)
    at_once = min(at_once, len(codecs))
    if refine is not None and at_once > 1:
        raise ConfigError("--refine: takes one codec after another; leave out --jobs, and name one --device")
    loaded = [Codec.load(source, precision) for source in codecs]
    if at_once == 1:
        loaded = [codec.to(devices[0]) for codec in loaded]
    names = names_by_seed(codecs, loaded)
    refined = refinements(loaded, codecs, refine, refine_lambda, refine_recognizer)
    coders = []
    for source, codec, name, refinement in zip(codecs, loaded, names, refined, strict=True):
        line = default_curve(codec.card, codec_name(source))
        if refinement is not None:
            line, name = f"{line}, refined", f"{name}-refined-{refinement.steps}-{refinement.lmbda:g}"
        coders.append(CodecCoder(codec, curve or line, name, tile, refinement))
    measure(
        coders,
        Asked(recognizer, images, annotations, categories, limit),
        How(resize, fidelity),
        devices=devices,
        jobs=at_once,
        output=output,
        force=force,
        skip=skip,
        as_json=as_json,
    )


def names_by_seed(sources: Sequence[str], codecs: Sequence[Codec]) -> list[str]:
    """What codecs are called in results: by their files; those of one name by their seeds too."""
    from taskpress.evaluation.rate_accuracy import trained_as

    trainings = [trained_as(codec) for codec in codecs]
    seeds = [None if training is None else training.seed for training in trainings]
    return told_apart([codec_name(source) for source in sources], seeds)
