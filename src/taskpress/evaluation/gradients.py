"""How the gradients of L_task and L_aux compare at Ẑ, where both enter the encoder, over a training.

Logged are the norms of the weighted terms' gradients at Ẑ and their cosine, of one batch every few steps:
noisy values of several magnitudes, so a window of steps is told by its median and quartiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from taskpress.evaluation.curve_drawing import COLOURS, places
from taskpress.evaluation.figures import new_figure, to_png
from taskpress.evaluation.stored import LAMBDA, Stored, StoredFile

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

QUANTITIES = ("task", "aux", "cosine")
Quartiles = tuple[float, float, float]


class Window(Stored):
    """Logged batches of some steps.

    first, last: steps, counted from 1; the last one that was logged
    quartiles:   lower quartile, median and upper quartile of `task`, `aux` and `cosine`, where logged
    """

    first: int
    last: int
    batches: int
    quartiles: dict[str, Quartiles]


class Pull(Stored):
    """Gradients of an arm at one λ, all seeds together."""

    arm: str
    lmbda: float = Field(gt=0, validation_alias=LAMBDA)
    alpha: float
    seeds: list[int]
    windows: list[Window] = Field(min_length=1)


class Gradients(StoredFile):
    """Gradients of an experiment. dimensions: of Ẑ of a batch, None where trainings differ."""

    written_by = "taskpress gradients"

    experiment: str
    window: int = Field(ge=1)
    dimensions: int | None
    pulls: list[Pull] = Field(min_length=1)


def windows(rows: Iterable[Mapping[str, float]], length: int) -> list[Window]:
    """Logged rows (`step` from 0, `gradient/…`) of one or several seeds, in windows of so many steps."""
    grouped: dict[int, list[Mapping[str, float]]] = {}
    for row in sorted(rows, key=lambda row: row["step"]):
        grouped.setdefault(int(row["step"]) // length, []).append(row)
    found = []
    for index, inside in grouped.items():
        quartiles = {}
        for name in QUANTITIES:
            values = [row[f"gradient/{name}"] for row in inside if f"gradient/{name}" in row]
            if values:
                low, middle, high = np.percentile(values, [25, 50, 75]).tolist()
                quartiles[name] = (low, middle, high)
        if quartiles:
            found.append(
                Window(
                    first=index * length + 1,
                    last=int(inside[-1]["step"]) + 1,
                    batches=len(inside),
                    quartiles=quartiles,
                )
            )
    return found


def gradients_figure(gradients: Gradients) -> bytes:
    """PNG: a column for each λ, above the norms of both gradients, below their cosine; a colour an arm."""
    lambdas = sorted({pull.lmbda for pull in gradients.pulls})
    looks = places(dict.fromkeys(pull.arm for pull in gradients.pulls))
    figure = new_figure(max(6.4, 3.6 * len(lambdas) + 0.8), 6.4)
    grid = figure.subplots(2, len(lambdas), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 2))
    for column, lmbda in enumerate(lambdas):
        norms, cosine = grid[:, column]
        for pull in gradients.pulls:
            if pull.lmbda != lmbda:
                continue
            colour = COLOURS[looks[pull.arm] % len(COLOURS)]
            _draw(norms, pull, "task", colour, f"{pull.arm}: λ L_task", "-")
            _draw(norms, pull, "aux", colour, f"{pull.arm}: λ α L_aux", "--")
            _draw(cosine, pull, "cosine", colour, None, "-")
        norms.set_yscale("log")
        norms.set_title(f"λ = {lmbda:g}", fontsize=10)
        cosine.axhline(0, color="0.35", linewidth=0.8)
        if gradients.dimensions:
            # The cosine of two random directions in d dimensions has a standard deviation of 1/√d.
            chance = 1.96 / math.sqrt(gradients.dimensions)
            cosine.axhspan(-chance, chance, color="0.9", zorder=0, label="95 % of random directions")
        cosine.set_xlabel("optimizer step")
        for ax in (norms, cosine):
            ax.grid(color="0.9", linewidth=0.7)
            ax.set_axisbelow(True)
            ax.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylabel("norm of the gradient at Ẑ")
    grid[1, 0].set_ylabel("cosine of both")
    entries: dict[str, Artist] = {}
    for ax in grid.flat:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    columns = min(len(entries), 2 + len(lambdas))
    figure.legend(
        list(entries.values()), list(entries), loc="outside lower center", ncols=columns, frameon=False
    )
    figure.suptitle(
        f"{gradients.experiment}: medians and quartiles over {gradients.window} steps", fontsize=10
    )
    return to_png(figure)


def _draw(ax: Axes, pull: Pull, name: str, colour: str, label: str | None, style: str) -> None:
    known = [window for window in pull.windows if name in window.quartiles]
    if not known:
        return
    steps = [(window.first + window.last) / 2 for window in known]
    low, middle, high = zip(*(window.quartiles[name] for window in known), strict=True)
    ax.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.plot(steps, middle, color=colour, linestyle=style, linewidth=1.6, label=label)
