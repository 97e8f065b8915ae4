"""`taskpress allocation`: where codecs spend their bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from taskpress.cli.measuring import AsJson, Device, Resize, checked_device, open_recognizer


def allocation(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="CODEC... IMAGE", help="Codec files or shipped names; last, the picture."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="PNG to write; figures go into a JSON beside it.")
    ],
    recognizer: Annotated[
        str | None,
        typer.Option("--recognizer", help="Draws its boxes and counts the bits inside; e.g. onnx:FILE."),
    ] = None,
    resize: Resize = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Draw where codecs spend their bits, side by side on one scale.

    Bits are those of the codec's own probability model, per latent position.
    Codecs that code a map of quantization levels show it too.
    With --recognizer, the share of bits inside the boxes it sees in the
    uncompressed picture is written under each map.

    Example: taskpress allocation scenes-task-q3 scenes-aux-q3 street.jpg
    --recognizer scenes -o bits.png
    """
    from taskpress.cli.evaluate import codec_name
    from taskpress.coding.codec import Codec
    from taskpress.coding.errors import ConfigError
    from taskpress.coding.files import atomic_write
    from taskpress.coding.images import read_image, resize_long_side, to_tensor
    from taskpress.detections import Detections
    from taskpress.evaluation.allocation import allocate, area_in_boxes, share_in_boxes
    from taskpress.evaluation.allocation_figure import Drawn, allocation_figure

    if len(sources) < 2:
        raise ConfigError(
            "allocation needs a codec and a picture: taskpress allocation CODEC... IMAGE -o PNG"
        )
    if output.suffix.lower() != ".png":
        raise ConfigError(f"{output}: the figure is a PNG; give a name that ends in .png")
    *names, picture = sources
    device = checked_device(device)
    codecs = [Codec.load(name).to(device).eval() for name in names]
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
