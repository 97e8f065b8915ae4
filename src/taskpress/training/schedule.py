"""The learning rate over the steps of a training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from taskpress.training.config import OptimizerConfig

LAST = 0.02
"""What is left of the learning rate at the end of a cosine."""


def learning_rate_factor(settings: OptimizerConfig, steps: int) -> Callable[[int], float]:
    """step -> share of the learning rate: a linear warm-up, then constant or a cosine down to `LAST`."""

    def factor(step: int) -> float:
        if step < settings.warmup:
            return (step + 1) / settings.warmup
        if settings.schedule == "constant":
            return 1.0
        done = (step - settings.warmup) / max(1, steps - settings.warmup)
        return LAST + (1 - LAST) * falling(done)

    return factor


def scheduled(optimizer: torch.optim.Optimizer, settings: OptimizerConfig, steps: int) -> dict[str, Any]:
    """What Lightning's `configure_optimizers` returns: the optimizer with this schedule, step by step."""
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(settings, steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def falling(done: float) -> float:
    """Half a cosine, 1 at the beginning and 0 where `done`, the share of a training, is 1 or more."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
