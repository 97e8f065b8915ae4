"""`taskpress decode`: .tpc files back to pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskpress.cli.batch import Jobs, Row, is_one_file, planned, run_all
from taskpress.cli.measuring import AsJson, Device, Precision, checked_device
from taskpress.cli.outcomes import Force, Skip
from taskpress.cli.standard import STANDARD, called, piped, write_outcome
from taskpress.errors import ConfigError, TaskPressError, UnknownCodecError

LOSSLESS = frozenset({".png", ".tif", ".tiff", ".bmp", ".ppm"})


def decode(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help=".tpc files; or folders of them; -: standard input."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="Folder for the PNG files; or, of one file, the picture's name (.png, .tif, .bmp, .ppm); "
            "-: a PNG on standard output.",
        ),
    ],
    codecs: Annotated[
        list[str] | None,
        typer.Option("--codec", help="Codec file the pictures were coded with, if it is not a shipped one."),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="Only the pixels from (X0, Y0) to before (X1, Y1), without decoding the rest.",
        ),
    ] = None,
    precision: Precision = "float32",
    device: Device = "cpu",
    force: Force = False,
    skip: Skip = False,
    jobs: Jobs = None,
    as_json: AsJson = False,
) -> None:
    """Decode .tpc files into PNGs; which codec a file needs is found by the fingerprint in it.

    Example: taskpress decode coded -o decoded --codec run/codecs/my-codec.safetensors
    """
    from taskpress.cli.bitstreams import find_bitstreams, read_bitstream
    from taskpress.coding.finder import CodecFinder
    from taskpress.coding.picture_files import as_png, write_image
    from taskpress.datasets.folder import PICTURE_SUFFIXES

    finder = CodecFinder(codecs or (), precision, checked_device(device))
    box = None if region is None else parse_region(region)

    def work(path: Path, target: Path) -> Row:
        data = given if path == STANDARD else read_bitstream(path)
        try:
            name, codec = finder.find(data)
            image = codec.decode(data, as_="numpy", region=box)
        except UnknownCodecError as error:
            raise UnknownCodecError(f"{called(path)}: {error}; name it with --codec") from None
        except TaskPressError as error:
            raise type(error)(f"{called(path)}: {error}") from None
        if target == STANDARD:
            write_outcome(target, as_png(image))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, image)
        height, width = image.shape[:2]
        written = called(target, "standard output")
        return {"source": called(path), "file": written, "width": width, "height": height, "codec": name}

    def line(row: Row) -> str:
        return f"{row['file']}  {row['width']}x{row['height']}  {row['codec']}"

    if is_one_file(output, PICTURE_SUFFIXES - LOSSLESS):
        raise ConfigError(f"-o {output}: pictures are written without further loss; name a .png, or a folder")
    _, wanted = planned(find_bitstreams(files), output, ".png", LOSSLESS, force, skip, as_json)
    given = piped(wanted)
    run_all(work, wanted, "decoding", jobs, line, as_json)


def parse_region(text: str) -> tuple[int, int, int, int]:
    """`left,top,right,bottom` in pixels; ConfigError for anything else."""
    try:
        left, top, right, bottom = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--region {text}: four whole numbers, left,top,right,bottom, e.g. 0,0,640,480"
        ) from None
    return left, top, right, bottom
