"""`taskpress train`: all arms and rates of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskpress.provenance import command_line


def train(
    preset: Annotated[
        str, typer.Argument(help="A shipped preset (quick, scenes, coco-yolox, mse, paper) or a YAML file.")
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(help="Changes to it: key=value, e.g. optimizer.steps=500")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the experiment; resumed if it exists.")
    ] = ...,  # type: ignore[assignment]
    only: Annotated[
        list[str] | None,
        typer.Option(help="Train only this: start, an arm (task+aux) or one of its rates (aux-q2)."),
    ] = None,
    limit_steps: Annotated[
        int | None, typer.Option(min=1, help="Stop each training after so many steps.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of this process.")] = None,
) -> None:
    """Train the codecs of a preset: what all begin from, then each arm (way to train) at each λ.

    Trainings that are finished are kept, interrupted ones go on from their last checkpoint. The codecs end in
    OUTPUT/codecs, logs (CSV and TensorBoard) beside each training's checkpoints.
    """
    import torch

    from taskpress.training.presets import load_preset
    from taskpress.training.run import train_experiment

    if threads is not None:
        torch.set_num_threads(threads)
    command = command_line()
    for path in train_experiment(load_preset(preset, settings), output, only or (), limit_steps, command):
        typer.echo(path)
