"""`taskpress train-recognizer`: the recognizer of the embedded scenes, from nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from taskpress.provenance import command_line


def train_recognizer(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; resumed if it exists.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 2100,
    batch: Annotated[int, typer.Option(min=1, help="Scenes in a step.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the initial weights and of what is sampled.")] = 0,
    deeper: Annotated[
        int, typer.Option(min=1, max=32, help="Times as many residual blocks: 8 is 101 layers deep.")
    ] = 1,
    precision: Annotated[
        str, typer.Option(help="float32, or bfloat16 where the processor has it.")
    ] = "float32",
    images: Annotated[int, typer.Option(min=1, help="Held-out scenes it is tested on.")] = 300,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of this process.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Train the recognizer `scenes`: about 40 minutes on one core.

    An interrupted training goes on from its last checkpoint. OUTPUT/scenes-recognizer.safetensors is what
    the package ships in taskpress/weights, the JSON card beside it says how it was made and how good it is.
    """
    import torch

    from taskpress.training.recognizer import RecognizerTraining, export, train

    if threads is not None:
        torch.set_num_threads(threads)
    settings = RecognizerTraining(steps=steps, batch=batch, seed=seed, deeper=deeper, precision=precision)
    model = train(settings, output)
    card = export(model, settings, output, command_line(), images)
    if as_json:
        typer.echo(json.dumps(card, ensure_ascii=False))
    else:
        figures = card["figures"]
        typer.echo(
            f"AP {figures['ap']:.1f}, AP50 {figures['ap50']:.1f} on {images} held-out scenes: {output}"
        )
