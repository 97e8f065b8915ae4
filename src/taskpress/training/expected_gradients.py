"""What L_task, L_aux and R ask of the encoder on average over batches, at the end of a training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from taskpress.evaluation.gradient_signal import Signals, statistics
from taskpress.evaluation.progress import tracked
from taskpress.training.data import StepStream, open_sources
from taskpress.training.objective import Objective
from taskpress.training.restore import Restored
from taskpress.training.teacher import Teacher


def signals(restored: Restored, batches: int = 32) -> Signals:
    """Signal and noise of each term's gradient at the weights of g_a, over the training's next `batches`.

    Weights (λ, λ α) are included, α as at the beginning of its schedule; of several recognizers the first
    one counts. Takes 4 bytes for each term, batch and weight.
    """
    config, codec = restored.config, restored.codec.train()
    objective = Objective(config.objective, config.rate, restored.recognizer, config.recognizer_weight)
    teacher = Teacher(restored.recognizer) if not restored.recognizer.task.labels_crops else None
    stream = StepStream(open_sources(config.data.sources), config.data, config.seed, teacher)
    rounded = config.objective.quantization == "straight-through"
    weights = list(codec.model.g_a.parameters())
    device = weights[0].device
    found: dict[str, list[NDArray[np.float32]]] = {}
    for step in tracked(range(restored.step, restored.step + batches), f"{config.name}: gradients"):
        batch = stream.batch(step).to(device)
        torch.manual_seed(config.seed * 1_000_003 + step * 1009)
        estimate = codec.estimate(batch.images, straight_through=rounded)
        terms = objective(batch, estimate, restored.branch)
        for name, pull in objective.pulls(terms).items():
            gradient = torch.autograd.grad(pull, weights, retain_graph=True)
            found.setdefault(name, []).append(torch.cat([part.flatten() for part in gradient]).cpu().numpy())
    codec.eval()
    by_term, cosines = statistics({name: np.stack(rows) for name, rows in found.items()})
    return Signals(
        training=config.short_name,
        arm=config.arm,
        rate=config.rate,
        alpha=config.objective.alpha,
        auxiliary=config.objective.auxiliary,
        step=restored.step,
        batches=batches,
        parameters=sum(weight.numel() for weight in weights),
        terms=by_term,
        cosines=cosines,
    )
