"""`taskpress gradients`: how strongly L_task and L_aux pulled at the encoder over a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskpress.cli.measuring import AsJson, check_figure, write_with_figure

if TYPE_CHECKING:
    from taskpress.evaluation.gradients import Gradients


def gradients(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of `taskpress train`: experiments or trainings."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="PNG to write; its numbers go into a JSON beside it.")
    ],
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Steps that a median is taken of; else a twentieth of the training."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw how strongly task and auxiliary loss pull at the encoder over a training.

    Both are taken at the decoded latent, where they enter the encoder, with
    their weights, by the training's own log (every trainer.log_every steps):
    their norms, and the cosine between them. Above 0 the auxiliary loss asks
    for what the task asks for. A column for each λ, a colour for each arm; the
    seeds of an arm go together. Trainings may still be running.

    Example: taskpress gradients runs/scenes-seed1 runs/scenes-seed2 -o gradients.png
    """
    from taskpress.evaluation.gradients import gradients_figure
    from taskpress.training.logs import gradients_of

    check_figure(output, "pulls")
    found = gradients_of(runs, window)
    write_with_figure(found, gradients_figure(found), output, as_json, lambda: _print_table(found))


def _print_table(found: Gradients) -> None:
    """Medians of each training's last window."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{found.experiment}: gradients at Ẑ, medians of the last {found.window} steps")
    for column in ("arm", "λ", "α", "seeds", "steps", "task", "aux", "aux / task", "cosine"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for pull in found.pulls:
        last = pull.windows[-1]
        task, aux, cosine = (last.quartiles.get(name, (None,) * 3)[1] for name in ("task", "aux", "cosine"))
        ratio = aux / task if aux is not None and task else None
        table.add_row(
            pull.arm,
            f"{pull.lmbda:g}",
            f"{pull.alpha:g}",
            ", ".join(map(str, pull.seeds)),
            str(last.last),
            *("–" if value is None else f"{value:.3g}" for value in (task, aux, ratio)),
            "–" if cosine is None else f"{cosine:+.3f}",
        )
    Console().print(table)
