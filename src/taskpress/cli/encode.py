"""`taskpress encode`: pictures to .tpc files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskpress.cli.batch import Jobs, Row, planned, run_all
from taskpress.cli.measuring import AsJson, Device, Precision, TileSide, checked_device
from taskpress.cli.outcomes import Force, Skip
from taskpress.cli.refining import Refine, RefineLambda, RefineRecognizer, refinements
from taskpress.cli.standard import STANDARD, called, piped, write_outcome
from taskpress.coding.bitstream import MAX_SIDE
from taskpress.errors import ConfigError, ImageError

if TYPE_CHECKING:
    import numpy as np


def encode(
    codec: Annotated[str, typer.Argument(help="A shipped codec's name or a codec file.")],
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Pictures, or folders of them; -: standard input."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="Folder for the .tpc files; or, of one picture, its name; -: standard output.",
        ),
    ],
    resize: Annotated[
        int | None,
        typer.Option(min=16, max=MAX_SIDE, help="Scale the long side to this many pixels first, up or down."),
    ] = None,
    tile: TileSide = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(
            "--max-bytes", min=1, help="No file is larger: a picture that needs more takes the next --or."
        ),
    ] = None,
    alternatives: Annotated[
        list[str] | None,
        typer.Option("--or", metavar="CODEC", help="A codec of a lower rate, for --max-bytes; repeatable."),
    ] = None,
    refine: Refine = None,
    refine_lambda: RefineLambda = None,
    refine_recognizer: RefineRecognizer = None,
    precision: Precision = "float32",
    device: Device = "cpu",
    force: Force = False,
    skip: Skip = False,
    jobs: Jobs = None,
    as_json: AsJson = False,
) -> None:
    """Code pictures into .tpc files, several at once; a bad picture is reported and does not stop the others.

    One picture alone is coded on all cores too, if it is large enough for tiles.
    Of folders, hidden files and what is no picture by its name are left out. --skip
    codes anew what was changed since; else it knows a file by codec, size and tiles.
    Where a channel takes so many bytes a picture and no more, --max-bytes and --or
    find the best codec that fits; decoding finds it by the file.

    Examples: taskpress encode coco-yolox-slow-q1 photos -o coded --resize 416
    camera | taskpress encode coco-yolox-slow-q1 - -o - --resize 416 | send
    taskpress encode coco-yolox-long-q2 --or coco-yolox-slow-q1 photos -o coded --resize 416 --max-bytes 4000
    """
    from taskpress.cli.bitstreams import check_left_out
    from taskpress.coding.codec import Codec
    from taskpress.coding.images import resize_long_side
    from taskpress.coding.picture_coding import check_tile
    from taskpress.coding.picture_files import read_image, read_picture
    from taskpress.datasets.folder import find_pictures, other_files

    pairs = []
    for path in images:
        if path != STANDARD and path.is_dir():
            pairs += [(file, file.relative_to(path)) for file in find_pictures(path)]
            if others := other_files(path):
                kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in others.items())
                typer.echo(f"taskpress: {path}: left out, as no pictures by their names: {kinds}", err=True)
        else:
            pairs.append((path, Path(path.name)))
    check_tile(tile)
    names = [codec, *(alternatives or [])]
    if alternatives and max_bytes is None:
        raise ConfigError(f"--or {alternatives[0]}: is for what exceeds --max-bytes; give that, too")
    models = [Codec.load(name, precision).to(checked_device(device)) for name in names]
    refined = refinements(models, names, refine, refine_lambda, refine_recognizer)

    def fitting(image: np.ndarray, source: str) -> tuple[str, bytes]:
        sizes = []
        for name, model, refinement in zip(names, models, refined, strict=True):
            data = model.encode(image, tile, refinement)
            if max_bytes is None or len(data) <= max_bytes:
                return name, data
            sizes.append(f"{len(data)} bytes with {name}")
        raise ImageError(
            f"{source}: takes {', '.join(sizes)}, more than --max-bytes {max_bytes}; name a codec of a lower "
            "rate by --or, or a smaller --resize"
        )

    def work(path: Path, target: Path) -> Row:
        image = read_picture(BytesIO(given), called(path)) if path == STANDARD else read_image(path)
        if resize is not None:
            image = resize_long_side(image, resize)
        name, data = fitting(image, called(path))
        write_outcome(target, data)
        height, width = image.shape[:2]
        return {
            "source": called(path),
            "file": called(target, "standard output"),
            "codec": name,
            "width": width,
            "height": height,
            "bytes": len(data),
            "bpp": 8 * len(data) / (width * height),
        }

    def line(row: Row) -> str:
        size = f"{row['width']}x{row['height']}  {row['bytes']} bytes  {row['bpp']:.3f} bpp"
        return f"{row['file']}  {size}" + (f"  {row['codec']}" if alternatives else "")

    outcomes, wanted = planned(pairs, output, ".tpc", (".tpc",), force, skip, as_json)
    begun = set(wanted)
    for source, target in (pair for pair in outcomes if pair not in begun):
        check_left_out(target, [model.fingerprint for model in models], source, resize, tile)
    given = piped(wanted)
    # Losses that sample draw from torch's one random state: pictures are refined one after another.
    at_once = jobs if refine is None else 1
    run_all(work, wanted, "encoding", at_once, line, as_json)
