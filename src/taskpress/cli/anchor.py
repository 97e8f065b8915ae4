"""`taskpress anchor`: the same evaluation for classical codecs."""

from __future__ import annotations

from typing import Annotated

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
    RecognizerSpec,
    Resize,
    WithFidelity,
)
from taskpress.cli.outcomes import Force, Skip
from taskpress.cli.results import How, checked_devices, measure
from taskpress.errors import ConfigError


def anchor(
    kind: Annotated[str, typer.Argument(help="jpeg, webp, avif, jpegxl, heic, or python:FILE.py:CLASS.")],
    quality: Annotated[
        str,
        typer.Option(
            "--quality",
            help='Qualities 0 to 100, e.g. "20,30,40"; one point each. A '
            "class of your own has its own scale.",
        ),
    ],
    images: Images,
    recognizer: RecognizerSpec,
    output: Output,
    annotations: Annotations = None,
    categories: Categories = None,
    resize: Resize = None,
    limit: Limit = None,
    curve: CurveName = None,
    fidelity: WithFidelity = True,
    device: Devices = "cpu",
    jobs: AtOnce = None,
    force: Force = False,
    skip: Skip = False,
    as_json: AsJson = False,
) -> None:
    """Measure a classical codec (JPEG, WebP, AVIF, …) in the way of `evaluate`.

    JPEG is written with fitted tables, progressive, 4:2:0; WebP with method 6;
    AVIF at speed 4, 4:2:0; JPEG XL with effort 7; HEIC (HEVC intra) by x265,
    preset slow, 4:2:0. Files carry no colour profile and no EXIF. The last two
    need packages of their own: pip install 'taskpress\\[anchors]'. A coder of your
    own is python:FILE.py:CLASS, e.g. VTM by docs/examples/vtm.py.

    Example: taskpress anchor avif --quality 20,30,40,50 --images val2017
    --annotations instances_val2017.json --recognizer onnx:yolox_nano.onnx
    --resize 416 -o results
    """
    from dataclasses import replace

    from taskpress.evaluation import anchors
    from taskpress.evaluation.own_anchor import OwnAnchor, own_anchors
    from taskpress.own_code import is_own

    devices, at_once = checked_devices(device, jobs)
    qualities = _qualities(quality)
    coders: list[anchors.Anchor | OwnAnchor] = []
    if is_own(kind):
        coders += own_anchors(kind, qualities)
    else:
        coders += [anchors.anchor(kind, value) for value in qualities]
    if curve:
        coders = [replace(coder, curve=curve) for coder in coders]
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


def _qualities(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found:
        raise ConfigError(f"--quality {text!r}: give whole numbers with commas between, e.g. 20,30,40")
    return found
