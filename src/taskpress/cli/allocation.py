"""`taskpress allocation`: where codecs spend their bits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskpress.cli.evaluate import names_by_seed
from taskpress.cli.measuring import (
    AsJson,
    Device,
    Limit,
    Resize,
    check_figure,
    checked_device,
    open_dataset,
    open_recognizer,
    write_with_figure,
)
from taskpress.coding.files import atomic_write, codec_name
from taskpress.errors import ConfigError

if TYPE_CHECKING:
    from taskpress.evaluation.shares import Shares


def allocation(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="CODEC... IMAGES",
            help="Codec files or shipped names; last, a picture, a folder of pictures, or `scenes`.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="PNG to write; figures go into a JSON beside it.")
    ],
    recognizer: Annotated[
        str | None,
        typer.Option("--recognizer", help="Draws its boxes and counts the bits inside; e.g. onnx:FILE."),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations", help="COCO instances JSON: of a folder, only the pictures that it lists."
        ),
    ] = None,
    resize: Resize = None,
    limit: Limit = None,
    curve: Annotated[
        str | None, typer.Option("--curve", help="Name of the curve, in place of a codec's arm.")
    ] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Draw where codecs spend their bits: in one picture, or over a whole set of them.

    Bits are those of the codec's own probability model, per latent position.
    Of one picture, maps are drawn side by side on one scale, with those of
    codecs that code a map of quantization levels; with --recognizer, the share
    of bits inside the boxes it sees in the uncompressed picture stands below.

    Of a folder or `scenes`, --recognizer is needed: the share of all bits
    inside its boxes is drawn over the rate, a curve for each arm, beside the
    boxes' share of the area.

    Example: taskpress allocation coco-yolox-task-q2 coco-yolox-aux-q2 street.jpg
    --recognizer onnx:yolox_nano.onnx --resize 416 -o bits.png

    Example: taskpress allocation run/codecs/*.safetensors val2017
    --recognizer onnx:yolox_nano.onnx --resize 416 -o shares.png
    """
    if len(sources) < 2:
        raise ConfigError("allocation needs codecs and pictures: taskpress allocation CODEC... IMAGES -o PNG")
    *names, pictures = sources
    several = pictures == "scenes" or Path(pictures).is_dir()
    check_figure(output, "shares" if several else "boxes")
    if several:
        if recognizer is None:
            raise ConfigError(f"--recognizer: name the one whose boxes in {pictures} count, e.g. onnx:FILE")
        _over_a_set(names, pictures, output, recognizer, annotations, resize, limit, curve, device, as_json)
        return
    if annotations is not None or limit is not None or curve is not None:
        raise ConfigError(f"--annotations, --limit and --curve are for several pictures; {pictures} is one")
    _of_a_picture(names, pictures, output, recognizer, resize, device, as_json)


def _of_a_picture(
    names: Sequence[str],
    picture: str,
    output: Path,
    recognizer: str | None,
    resize: int | None,
    device: str,
    as_json: bool,
) -> None:
    from taskpress.coding.codec import Codec
    from taskpress.coding.images import resize_long_side, to_tensor
    from taskpress.coding.picture_files import read_image
    from taskpress.detections import Detections
    from taskpress.evaluation.allocation import allocate, area_in_boxes, share_in_boxes
    from taskpress.evaluation.allocation_figure import Drawn, allocation_figure

    device = checked_device(device)
    codecs = [Codec.load(name).to(device) for name in names]
    image = read_image(picture)
    if resize is not None:
        image = resize_long_side(image, resize)
    found = Detections.empty()
    if recognizer is not None:
        seen = open_recognizer(recognizer, device).pseudo_labels([to_tensor(image).to(device)])[0].to("cpu")
        if not isinstance(seen, Detections):
            raise ConfigError(f"--recognizer {recognizer}: has no boxes to draw; name a detector")
        found = seen

    panels = [
        Drawn(codec_name(name), allocate(codec, image), codec.stride, codec.level_map(image))
        for name, codec in zip(names, codecs, strict=True)
    ]
    size = (image.shape[0], image.shape[1])
    shares = [
        share_in_boxes(panel.allocation.cells, found.boxes, size, panel.stride) if len(found) else None
        for panel in panels
    ]
    covered = area_in_boxes(found.boxes, size) / (size[0] * size[1])
    summary = {
        "image": Path(picture).name,
        "size": size,
        "recognizer": recognizer,
        "boxes": found.boxes.tolist(),
        "area_in_boxes": covered,
        "codecs": [
            {"codec": panel.title, "bpp": panel.allocation.bpp, "share_in_boxes": share}
            for panel, share in zip(panels, shares, strict=True)
        ],
    }
    figure = allocation_figure(image, found.boxes, panels)
    output.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(output, figure)
    atomic_write(output.with_suffix(".json"), (json.dumps(summary, indent=1) + "\n").encode())
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
        return
    for panel, share in zip(panels, shares, strict=True):
        inside = "" if share is None else f", {100 * share:.1f} % of bits inside the boxes"
        typer.echo(f"{panel.title}: {panel.allocation.bpp:.3f} bpp{inside}")
    if len(found):
        typer.echo(f"boxes: {len(found)}, {100 * covered:.1f} % of the picture")
    typer.echo(output)


def _over_a_set(
    names: Sequence[str],
    images: str,
    output: Path,
    recognizer: str,
    annotations: Path | None,
    resize: int | None,
    limit: int | None,
    curve: str | None,
    device: str,
    as_json: bool,
) -> None:
    from taskpress.coding.codec import Codec
    from taskpress.datasets.dataset import Unlabelled
    from taskpress.evaluation.rate_accuracy import default_curve, make_reference, trained_as
    from taskpress.evaluation.seeds import by_lambda_and_seed
    from taskpress.evaluation.shares import Unmeasured, collect, share_of, shares_figure

    judge = open_recognizer(recognizer, device)
    if not judge.task.has_boxes:
        raise ConfigError(f"--recognizer {recognizer}: sees no boxes; name a detector")
    codecs = [Codec.load(name).to(device) for name in names]
    curves = [
        curve or default_curve(one.card, codec_name(name)) for name, one in zip(names, codecs, strict=True)
    ]
    titles = names_by_seed(names, codecs)
    told = [Unmeasured(title, trained_as(codec)) for title, codec in zip(titles, codecs, strict=True)]
    for line in dict.fromkeys(curves):
        by_lambda_and_seed(line, [one for one, own in zip(told, curves, strict=True) if own == line])
    dataset = Unlabelled(open_dataset(images, annotations, None, limit, judge))
    reference = make_reference(dataset, judge, resize, limit, progress=True)
    shares = [
        share_of(codec, line, title, dataset, reference, progress=True)
        for codec, line, title in zip(codecs, curves, titles, strict=True)
    ]
    collected = collect(shares, reference, judge.name)
    write_with_figure(collected, shares_figure(collected), output, as_json, lambda: _print_shares(collected))


def _print_shares(collected: Shares) -> None:
    from rich.console import Console
    from rich.table import Table

    scaled = f", long side {collected.resize}" if collected.resize else ""
    table = Table(
        title=f"{collected.images} pictures of {collected.dataset}{scaled} · "
        f"{collected.boxes} boxes of {collected.recognizer}"
    )
    for column in ("codec", "curve", "λ", "seed", "bpp", "bits in boxes", "area in boxes", "ratio"):
        table.add_column(column, justify="left" if column in ("codec", "curve") else "right")
    for share in collected.shares:
        told = share.training
        table.add_row(
            share.codec,
            share.curve,
            "–" if told is None else f"{told.lmbda:g}",
            "–" if told is None else str(told.seed),
            f"{share.bpp:.3f}",
            f"{100 * share.share:.1f} %",
            f"{100 * share.area:.1f} %",
            f"{share.share / share.area:.2f}",
        )
    Console(markup=False).print(table)
