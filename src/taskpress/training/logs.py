"""What trainings logged, over all attempts that they took, and of it the gradients of L_task and L_aux."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from taskpress.errors import DataError
from taskpress.evaluation.gradients import Gradients, Pull, windows
from taskpress.training.config import START, RunConfig
from taskpress.training.settings import read_settings

Row = dict[str, float]
WINDOWS, FEWEST = 20, 4
STRIDE = 16


def read_log(folder: Path) -> list[Row]:
    """The rows of RUN/NAME/logs/*/metrics.csv in order of step, each with `step`, from 0, and its values.

    Every attempt has a log of its own, from-step-N; what an earlier one logged at N and beyond was done anew
    and is left out. Empty where nothing was logged yet; DataError for a file that is no such log.
    """
    rows: list[Row] = []
    begun = {
        path: int(path.parent.name.removeprefix("from-step-"))
        for path in folder.glob("logs/from-step-*/metrics.csv")
    }
    for path, begin in sorted(begun.items(), key=lambda one: one[1]):
        rows = [row for row in rows if row["step"] < begin]
        try:
            with path.open(newline="", encoding="utf-8") as file:
                read = [
                    {name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)
                ]
        except (ValueError, TypeError, AttributeError, csv.Error):
            raise DataError(f"{path}: no log of a training; remove its folder to do without") from None
        if any("step" not in row for row in read):
            raise DataError(f"{path}: a row without a step; remove its folder to do without")
        rows += read
    return rows


def gradients_of(runs: Sequence[Path], window: int | None = None) -> Gradients:
    """The gradients that were logged by all trainings in these folders, but for those of starts.

    runs:   folders of experiments (RUN) or of single trainings (RUN/NAME), of one experiment under any seeds
    window: steps that are taken together; None takes a twentieth of the longest training, or what holds four
            logged batches of one

    Trainings of equal arm, λ and α go together, whatever their seeds. Raises DataError where nothing was
    logged, and for a folder without a training.
    """
    folders = [folder for run in runs for folder in _trainings_in(run)]
    settings = [read_settings(folder / "config.yaml")[0] for folder in folders]
    logs = [
        (config, rows)
        for config, folder in zip(settings, folders, strict=True)
        if config.arm != START and (rows := [row for row in read_log(folder) if _is_of_a_step(row)])
    ]
    if not logs:
        raise DataError(f"{runs[0]}: nothing logged yet; the first row comes at step `trainer.log_every`")
    steps, batches = max((int(rows[-1]["step"]) + 1, len(rows)) for _, rows in logs)
    length = window or math.ceil(steps * max(1 / WINDOWS, FEWEST / batches))
    groups: dict[tuple[str, float, float], list[tuple[int, list[Row]]]] = {}
    for config, rows in logs:
        key = config.arm, config.lmbda, config.objective.alpha
        groups.setdefault(key, []).append((config.seed, rows))
    pulls = []
    for (arm, lmbda, alpha), members in sorted(groups.items(), key=lambda one: (one[0][2], one[0])):
        found = windows([row for _, rows in members for row in rows], length)
        if found:
            seeds = sorted({seed for seed, _ in members})
            pulls.append(Pull(arm=arm, lmbda=lmbda, alpha=alpha, seeds=seeds, windows=found))
    if not pulls:
        raise DataError(f"{runs[0]}: its logs hold no gradients; they are of an earlier version")
    sizes = {_dimensions(config) for config, _ in logs}
    return Gradients(
        experiment=", ".join(dict.fromkeys(config.experiment for config, _ in logs)),
        window=length,
        dimensions=sizes.pop() if len(sizes) == 1 else None,
        pulls=pulls,
    )


def _is_of_a_step(row: Row) -> bool:
    return not any(name.startswith("held_out/") for name in row)


def _trainings_in(folder: Path) -> list[Path]:
    if (folder / "config.yaml").is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/config.yaml"))
    if not found:
        raise DataError(f"{folder}: no training in it; name a folder that `taskpress train -o` wrote")
    return found


def _dimensions(config: RunConfig) -> int | None:
    """Numbers in the Ẑ of a batch; None where the initial codec alone tells how many channels it has."""
    asked = config.codec
    if asked.latent_channels is None and asked.init is not None and "cheng2020" not in asked.architecture:
        return None
    return config.data.batch * (asked.latent_channels or asked.channels) * (config.data.patch // STRIDE) ** 2
