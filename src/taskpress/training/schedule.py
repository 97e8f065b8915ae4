"""The learning rate over the steps of a training."""

from __future__ import annotations

import math
from collections.abc import Callable

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
        return LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor
