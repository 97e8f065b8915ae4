"""`taskpress gradient-signal`: what of each term's gradient is signal, and what is a batch's noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskpress.cli.measuring import AsJson, Device, check_figure, checked_device, write_with_figure

if TYPE_CHECKING:
    from taskpress.evaluation.gradient_signal import GradientSignals


def gradient_signal(
    trainings: Annotated[
        list[Path],
        typer.Argument(metavar="TRAINING...", help="Folders of trainings with a branch, e.g. runs/x/aux-q2."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="PNG to write; its numbers go into a JSON beside it.")
    ],
    batches: Annotated[int, typer.Option(min=3, help="Batches that are looked at.")] = 128,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Estimate how much of each loss term's gradient is signal, and how much a batch's noise.

    Codec and branch come from TRAINING/checkpoints/last.ckpt; the batches are
    those that the training would have seen next, each clipped as there. Of each
    term's gradient at the encoder's weights: the norm of its expectation (signal,
    and how far it is known), how far one batch lies from it (noise), and the
    cosine between the expectations of two terms. Above 0 the auxiliary loss asks,
    in the long run, for what the task asks for. Where intervals begin at 0, more
    --batches are needed: noise falls by their root.

    Example: taskpress gradient-signal runs/scenes/aux-q1 runs/heads/aux-q1 -o signal.png
    """
    from taskpress.evaluation.gradient_signal import GradientSignals, signal_figure
    from taskpress.provenance import command_line, versions
    from taskpress.training.expected_gradients import signals
    from taskpress.training.restore import restore

    check_figure(output, "trainings")
    device = checked_device(device)
    restored = [restore(folder, device) for folder in trainings]
    found = GradientSignals(
        trainings=[signals(one, batches) for one in restored], command=command_line(), versions=versions()
    )
    write_with_figure(found, signal_figure(found), output, as_json, lambda: _print_table(found))


def _print_table(found: GradientSignals) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Gradients at the encoder's weights: signal, its interval, and noise of one batch")
    names = list(dict.fromkeys(name for one in found.trainings for name in one.terms))
    for column in ("training", "branch", "α", *names, "cosine task, aux"):
        table.add_column(column, justify="left" if column in ("training", "branch") else "right")
    for one in found.trainings:
        cosine = one.cosines.get("task aux")
        table.add_row(
            one.training,
            one.auxiliary,
            f"{one.alpha:g}",
            *(
                f"{term.signal:.2g} [{term.low:.2g}, {term.high:.2g}] · {term.noise:.2g}"
                for term in (one.terms[name] for name in names)
            ),
            "–" if cosine is None or cosine.value is None else f"{cosine.value:+.2f} ± {cosine.error:.2f}",
        )
    Console().print(table)
