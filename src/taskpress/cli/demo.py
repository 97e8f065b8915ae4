"""`taskpress demo`: the main job on the embedded default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskpress.cli.measuring import AsJson


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the report and the results.")
    ] = Path("demo"),
    scenes: Annotated[int, typer.Option(min=4, help="Held-out scenes to code.")] = 64,
    jobs: Annotated[
        int | None, typer.Option("-j", "--jobs", min=1, help="Processes; all cores by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Code held-out scenes with the shipped codecs, with and without auxiliary loss, and compare them.

    Every scene becomes a real file, is decoded and shown to the detector. Prints rates, accuracies and
    BD-rate, and writes OUTPUT/report.html, comparison.json, rd.png and results/*.json. Takes minutes.
    """
    import json

    from taskpress.cli.compare import print_comparison
    from taskpress.evaluation.demo import run_demo
    from taskpress.evaluation.report import headline

    comparison = run_demo(output, scenes, jobs)
    if as_json:
        typer.echo(json.dumps(comparison.as_json(), indent=1))
        return
    print_comparison(comparison)
    typer.echo(headline(comparison))
    typer.echo(output / "report.html")
