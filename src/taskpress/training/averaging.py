"""The mean of a training's last weights, in place of the very last ones."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor


class WeightAverage(lightning.Callback):
    """An exponential moving average of all weights that are trained (Polyak and Juditsky 1992).

    Where nearly all of a batch's gradient is its own, weights wander around what they are learning. Their
    mean over some 1 / (1 - decay) steps is nearer to it, at the price of one copy. (Lightning's own callback
    copies all that a module refers to, the recognizers too.)

    decay: share of the average that stays in a step. Until there have been 1 / (1 - decay) steps, it is the
        plain mean of those that there were: n / (n + 1) after n steps
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.weights: list[Tensor] = []
        self._own: list[Tensor] = []

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if not self.weights:
            self.weights = [weight.detach().clone() for weight in module.parameters()]
        self.weights = [weight.to(module.device) for weight in self.weights]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, *_: Any
    ) -> None:
        if trainer.global_step == self.steps:  # further batches make this step
            return
        stays = min(self.decay, self.steps / (self.steps + 1))
        current = [weight.detach() for weight in module.parameters()]
        torch._foreach_lerp_(self.weights, current, 1 - stays)
        self.steps += 1

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._own = [weight.detach().clone() for weight in module.parameters()]
        self.give(module)
        module.eval()  # once more: what follows from the weights is found when they are set to evaluation

    @torch.no_grad()
    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        for weight, own in zip(module.parameters(), self._own, strict=True):
            weight.copy_(own)
        self._own = []

    @torch.no_grad()
    def give(self, module: lightning.LightningModule) -> None:
        """Puts the average into the module, whose own weights are lost."""
        for weight, average in zip(module.parameters(), self.weights, strict=True):
            weight.copy_(average)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.weights = state["steps"], state["weights"]
