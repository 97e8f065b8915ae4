"""`taskpress finish`: one part of trained codecs goes on alone, on latents as files hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskpress.provenance import command_line


def finish(
    codecs: Annotated[
        list[str], typer.Argument(metavar="CODEC...", help="Codecs of `taskpress train`: files or names.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for NAME.safetensors; resumed if it exists.")
    ],
    part: Annotated[
        str, typer.Option(help="What goes on: entropy (the entropy model) or synthesis (the decoder).")
    ] = "entropy",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps; default: 600, of the synthesis 300.")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="At the beginning, it falls by a cosine; default: 5e-4, of the synthesis 1e-4."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="Pictures in place of those on the card: a folder, or scenes:COUNT."),
    ] = None,
    recognizer: Annotated[
        str | None, typer.Option("--recognizer", help="In place of the (first) one on the card.")
    ] = None,
    run_code: Annotated[
        bool,
        typer.Option(
            "--run-code", help="Run Python code that cards name (python:FILE.py:…); trust them first."
        ),
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of this process.")] = None,
) -> None:
    """Train one part of trained codecs a little further, on the latents that files hold.

    Where latents carried noise in training, neither entropy model nor synthesis
    has seen what is coded. `--part entropy` lets all but encoder and decoder learn
    the rate of rounded latents: fewer bits for nearly the same picture. `--part
    synthesis` lets the decoder go on by the loss it was trained with, at no bit.
    Recognizer, pictures and loss are those on the codec's card, or lie elsewhere on
    this machine: --data, --recognizer. One device does it. What comes out is
    another codec, by another fingerprint: it does not decode files of the one it
    was made of. For both, begin with the entropy model, which moves latents.

    Example: taskpress finish runs/scenes/codecs/*.safetensors -o runs/scenes/finished
    """
    import torch
    from pydantic import ValidationError

    from taskpress.errors import ConfigError
    from taskpress.training.finishing import DEFAULTS, FinishConfig, finish
    from taskpress.training.section import explain

    if threads is not None:
        torch.set_num_threads(threads)
    if part not in DEFAULTS:
        raise ConfigError(f"--part {part}: no such part; choose entropy or synthesis")
    try:
        settings = FinishConfig.of(part, steps, learning_rate)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    command = command_line()
    for path in finish(codecs, output, settings, command, data or (), recognizer, run_code):
        typer.echo(path)
