"""What L_task, L_aux and R ask of the encoder on average over batches, at the end of a training."""

from __future__ import annotations

import numpy as np
import torch

from taskpress.evaluation.gradient_signal import Signals, statistics
from taskpress.progress import tracked
from taskpress.training.data import StepStream, open_sources, step_seed
from taskpress.training.objective import Objective, labels_crops
from taskpress.training.restore import Restored
from taskpress.training.teacher import Teacher


def signals(restored: Restored, batches: int = 128) -> Signals:
    """Signal and noise of each term's gradient at the weights of g_a, over the training's next `batches`.

    Weights (λ, λ α) are included, α as at the beginning of its schedule; of several recognizers the first
    one counts. As in the training, a batch whose gradient is longer than `optimizer.clip` counts by that
    length: all its terms are scaled alike. The length is that at the codec, with the branch's unless they are
    clipped apart. Takes 4 bytes for each term, batch and weight of g_a.
    """
    config, codec = restored.config, restored.codec.train()
    recognizer = restored.recognizer
    objective = Objective.of(config.model_copy(update={"further": []}), [recognizer])
    teacher = None if labels_crops(config.objective, recognizer) else Teacher(recognizer)
    stream = StepStream(open_sources(config.data.sources), config.data, config.seed, [teacher])
    encoder = list(codec.model.g_a.parameters())
    weights = [*encoder, *(one for one in codec.model.parameters() if all(one is not own for own in encoder))]
    beside = [] if config.optimizer.clip_apart else list(restored.branch.parameters())
    count, clip = sum(weight.numel() for weight in encoder), config.optimizer.clip
    names = ("rate", "task", "aux")
    found = np.empty((len(names), batches, count), dtype=np.float32)
    in_a_step = config.optimizer.accumulate * config.trainer.ranks
    for number in tracked(range(batches), f"{config.name}: gradients"):
        step = in_a_step * restored.step + number
        batch = stream.batch(step).to(encoder[0].device)
        torch.manual_seed(step_seed(config.seed, step))
        estimate = codec.estimate(batch.images, quantization=config.objective.quantization)
        pulls = objective.pulls(objective(batch, estimate, {0: restored.branch}))
        gradients = torch.stack([_flat(pulls[name], [*weights, *beside]) for name in names])
        length = gradients.sum(0).norm()
        scale = 1.0 if clip is None else min(1.0, clip / float(length))
        found[:, number] = (scale * gradients[:, :count]).cpu().numpy()
    codec.eval()
    terms, cosines = statistics(found, names)
    return Signals(
        training=config.short_name,
        arm=config.arm,
        lmbda=config.lmbda,
        alpha=config.objective.alpha,
        auxiliary=config.objective.auxiliary,
        step=restored.step,
        batches=batches,
        parameters=count,
        terms=terms,
        cosines=cosines,
    )


def _flat(pull: torch.Tensor, weights: list[torch.nn.Parameter]) -> torch.Tensor:
    gradients = torch.autograd.grad(pull, weights, retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])
