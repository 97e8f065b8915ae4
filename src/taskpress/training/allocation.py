"""What teaches an allocator: the teacher's boxes its network, the outcome of its choices its policy.

The foreground model of "roi" and the segmentation network of "semantic" are distilled from what the frozen
recognizer sees in the uncompressed crop, as everything is. The policy of "semantic" learns by reinforcement:
REINFORCE (Williams 1992), the reward of a picture held against what the likeliest choice would have earned on
the same picture with the same noise (self-critical, Rennie et al. 2017), so nothing but the choice differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from taskpress.auxiliary.assignment import assign_cells
from taskpress.boxes import coverage
from taskpress.coding.allocation import AllocatorSettings, Decision
from taskpress.coding.codec import Codec
from taskpress.coding.estimate import Estimate
from taskpress.coding.grid import CELL
from taskpress.detections import Detections
from taskpress.errors import ConfigError
from taskpress.recognition.protocol import Recognizer
from taskpress.targets import Target
from taskpress.training.config import RunConfig

ENTROPY_WEIGHT = 0.01
"""As in Mnih et al. 2016 (arXiv:1602.01783): without, a policy settles before the gains have been learned."""


def give_allocator(codec: Codec, config: RunConfig, recognizer: Recognizer | None) -> None:
    """Attaches the allocator that a training asks for, with weights from its seed.

    One that the initial codec brings along is kept; ConfigError where it is another than is asked for.
    """
    objective = config.objective
    wanted = None
    if objective.allocation != "none":
        assert recognizer is not None
        classes = len(recognizer.categories) if objective.allocation == "semantic" else 0
        wanted = AllocatorSettings(
            objective.allocation, objective.allocation_levels, objective.allocation_width, classes
        )
    found = codec.allocator.settings if codec.allocator is not None else None
    if found is not None and found != wanted:
        raise ConfigError(f"{config.name}: the initial codec has the allocator {found}, not {wanted}")
    if wanted is not None and found is None:
        codec.attach_allocator(wanted, seed=config.seed)


def check_boxes(config: RunConfig, recognizer: Recognizer | None) -> None:
    """ConfigError where a term of the training needs boxes that the recognizer does not find."""
    if config.objective.needs_boxes and recognizer is not None and not recognizer.task.has_boxes:
        raise ConfigError(
            f"{config.name}: allocation and roi_weight need boxes; {recognizer.name} finds none"
        )


def allocator_terms(
    terms: dict[str, Tensor], estimate: Estimate, labels: Sequence[Target], baseline: Tensor | None
) -> dict[str, Tensor]:
    """What an allocator learns by beside eq. (1): `teaching_terms` and, where levels were drawn, `policy` and
    `entropy`, which keeps it trying.

    terms, estimate: of the objective; baseline: [B] rewards of the likeliest levels, None where none is drawn
    """
    assert estimate.decision is not None
    own = teaching_terms(estimate.decision, labels)
    if baseline is not None:
        log_prob = estimate.decision.outputs["log_prob"]
        own["policy"] = policy_loss(log_prob, rewards(terms, estimate), baseline)
        own["entropy"] = -ENTROPY_WEIGHT * estimate.decision.outputs["entropy"].mean()
    return own


def teaching_terms(decision: Decision, labels: Sequence[Target]) -> dict[str, Tensor]:
    """Losses of the allocator's network on the teacher's labels, in pixels of the crops; scalars by name.

    `foreground`: cross entropy against the share of each cell that boxes cover. `classes`: cross entropy
    against the class of the smallest box that holds a cell's centre, the background where there is none.
    """
    terms = {}
    height, width = decision.levels.shape[1:]
    if (logits := decision.outputs.get("foreground")) is not None:
        wanted = foreground(labels, height, width, CELL, logits.device)
        terms["foreground"] = F.binary_cross_entropy_with_logits(logits[:, 0], wanted)
    if (logits := decision.outputs.get("classes")) is not None:
        background = logits.shape[1] - 1
        objects = [label.to(logits.device) for label in labels if isinstance(label, Detections)]
        maps = [cell_classes(label, height, width, CELL, background) for label in objects]
        terms["classes"] = F.cross_entropy(logits, torch.stack(maps))
    return terms


def rewards(terms: dict[str, Tensor], estimate: Estimate) -> Tensor:
    """[B]: -(λ · what the objective weighs + R) of each picture, without gradient.

    The rate is each picture's own. The recognizer judges a batch as a whole, so that share is one for all of
    its pictures: right on average, and at batch 1 exact.
    """
    return -(terms["loss"] - terms["rate"] + estimate.rate).detach()


def policy_loss(log_prob: Tensor, reward: Tensor, baseline: Tensor) -> Tensor:
    """Its gradient is REINFORCE's estimate; all [B], a scalar comes back."""
    return -((reward - baseline).detach() * log_prob).mean()


def roi_weighted_mse(x_hat: Tensor, x: Tensor, labels: Sequence[Target], weight: float) -> Tensor:
    """Mean of squared errors, those inside the labels' boxes taken `weight` times; [B, 3, H, W] each."""
    inside = foreground(labels, x.shape[2], x.shape[3], 1, x.device)[:, None]
    return ((1 + (weight - 1) * inside) * (x_hat - x).square()).mean()


def foreground(
    labels: Sequence[Target], height: int, width: int, stride: int, device: torch.device
) -> Tensor:
    """[B, height, width] in [0, 1]: the share of each cell that boxes cover."""
    boxes = [label.boxes.to(device) for label in labels if isinstance(label, Detections)]
    return torch.stack([coverage(each, height, width, stride) for each in boxes])


def cell_classes(label: Detections, height: int, width: int, stride: int, background: int) -> Tensor:
    """int64 [height, width]: the class of each cell."""
    owner = assign_cells(label.boxes, height, width, stride, math.inf)
    classes = torch.cat((label.labels, label.labels.new_tensor([background])))
    # Nobody's cells are -1, which is the last of `classes`.
    return classes[owner]
