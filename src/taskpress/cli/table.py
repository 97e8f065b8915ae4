"""`taskpress table`: results side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskpress.errors import ConfigError


def table(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT...", help="Result files of evaluate or anchor, or folders of them."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write, .md or .csv; else Markdown is printed."),
    ] = None,
    means: Annotated[
        bool, typer.Option("--means", help="Average codecs of one curve and λ over their seeds.")
    ] = False,
) -> None:
    """Put results into one table: a row for each codec, a column for each recognizer.

    Beside the rate stand PSNR and MS-SSIM, for people's eyes. Results by several
    recognizers show whether a codec serves one that it was not trained for.

    Example: taskpress evaluate run/codecs/*.safetensors --images scenes
    --recognizer scenes:other/scenes-recognizer.safetensors -o run/other-eyes
    and then taskpress table run/results run/other-eyes -o transfer.md
    """
    from taskpress.coding.files import atomic_write
    from taskpress.evaluation.comparison import find_results
    from taskpress.evaluation.result import Result
    from taskpress.evaluation.side_by_side import side_by_side

    if output is not None and output.suffix.lower() not in (".md", ".csv"):
        raise ConfigError(f"{output}: a table is written as .md or .csv")
    found = side_by_side([Result.read(path) for path in find_results(results)], means)
    text = found.csv() if output is not None and output.suffix.lower() == ".csv" else found.markdown()
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(output, text.encode())
        typer.echo(output)
    for note in found.notes:
        typer.echo(note, err=True)
