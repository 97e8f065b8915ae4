"""Trainings: presets, the objective, and what comes after."""

from typing import TYPE_CHECKING

from taskpress.exports import exporting

if TYPE_CHECKING:
    from taskpress.training.config import Preset
    from taskpress.training.finishing import FinishConfig, finish
    from taskpress.training.presets import load_preset
    from taskpress.training.refining import refinement_for
    from taskpress.training.run import train_experiment
    from taskpress.training.teacher import Teacher

__all__ = [
    "FinishConfig",
    "Preset",
    "Teacher",
    "finish",
    "load_preset",
    "refinement_for",
    "train_experiment",
]

__getattr__ = exporting(
    __name__,
    FinishConfig="finishing",
    Preset="config",
    Teacher="teacher",
    finish="finishing",
    load_preset="presets",
    refinement_for="refining",
    train_experiment="run",
)
