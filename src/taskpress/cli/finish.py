"""`taskpress finish`: the synthesis of trained codecs goes on alone, on latents as files hold them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def finish(
    codecs: Annotated[
        list[str], typer.Argument(metavar="CODEC...", help="Codecs of `taskpress train`: files or names.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for NAME.safetensors; resumed if it exists.")
    ],
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 300,
    learning_rate: Annotated[float, typer.Option(help="At the beginning; it falls by a cosine.")] = 1e-4,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of this process.")] = None,
) -> None:
    """Train the decoder of finished codecs a little further, at no bit.

    Where latents carried noise in training, the synthesis has never seen what
    files hold. Here it learns that, by the loss it was trained with; the encoder
    and all that decides a file's length stay as they are. Recognizer, pictures
    and loss are those on the codec's card. What comes out is another codec, by
    another fingerprint: it does not decode files of the one it was made of.

    Example: taskpress finish runs/scenes/codecs/*.safetensors -o runs/scenes/finished
    """
    import torch
    from pydantic import ValidationError

    from taskpress.coding.errors import ConfigError
    from taskpress.training.finish import FinishConfig, finish
    from taskpress.training.section import explain

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        settings = FinishConfig(steps=steps, learning_rate=learning_rate)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    for path in finish(codecs, output, settings, shlex.join(["taskpress", *sys.argv[1:]])):
        typer.echo(path)
