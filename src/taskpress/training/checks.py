"""Whether recognizers can give the losses that a training asks of them: before it begins, not days later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from taskpress.auxiliary.branch import Lesson
from taskpress.auxiliary.named import check_auxiliary, learns
from taskpress.coding.grid import CELL
from taskpress.errors import ConfigError, RecognizerError, TaskPressError
from taskpress.own_code import is_own
from taskpress.recognition.device import device_of
from taskpress.recognition.protocol import Recognizer
from taskpress.targets import TARGETS, example
from taskpress.training.allocation import check_boxes
from taskpress.training.config import RunConfig, expand
from taskpress.training.module import branch_for, heads_of, layer_shapes
from taskpress.training.objective import Objective


def check_losses(config: RunConfig, recognizers: Sequence[tuple[str, Recognizer]]) -> None:
    """ConfigError or RecognizerError for losses that these recognizers cannot give.

    recognizers: each with its name in the preset, the first one first

    A user's own classes, recognizers and branches, are tried on a crop.
    """
    opened = [recognizer for _, recognizer in recognizers]
    objective = Objective.of(config, opened)
    for name, recognizer in recognizers:
        if is_own(name):
            _try_own(name, recognizer, objective, config.data.patch)
    check_boxes(config, opened[0] if opened else None)
    for place, (kind, recognizer) in enumerate(zip(config.branches, opened, strict=False)):
        if kind is None:
            continue
        check_auxiliary(kind, recognizer.task)
        if learns(expand(kind)) != "labels":
            layer_shapes(recognizer, config.data.patch)
        if kind == "heads":
            _try_heads(recognizer, config)
        if is_own(kind):
            _try_own_branch(kind, place, objective, config)


@torch.no_grad()
def _try_heads(recognizer: Recognizer, config: RunConfig) -> None:
    """Raises what heads raise that cannot be given layers."""
    grey = torch.full((1, 3, config.data.patch, config.data.patch), 0.5, device=device_of(recognizer))
    layers, labels = recognizer.features(list(grey)), recognizer.pseudo_labels(list(grey))
    heads_of(recognizer, config.objective.task)(layers, Lesson(grey, layers, labels))


def _try_own(name: str, recognizer: Recognizer, objective: Objective, patch: int) -> None:
    """Labels and loss of a crop; RecognizerError where it cannot label, or its loss teaches nothing."""
    images = _crop(recognizer, patch)
    decoded = images.clone().requires_grad_()

    def terms(where: str) -> Mapping[str, Tensor]:
        labels = recognizer.pseudo_labels(list(images))
        kind = TARGETS[recognizer.task]
        if len(labels) != 1 or not isinstance(labels[0], kind):
            raise RecognizerError(
                f"{where} its pseudo_labels are no list of one {kind.__name__}, as its task "
                f"{recognizer.task} has them"
            )
        return objective.task_terms(recognizer, labels, images, decoded)

    _check_gradient(f"{name}: on a crop of {patch} pixels", RecognizerError, terms, decoded, "image", True)


def _try_own_branch(kind: str, place: int, objective: Objective, config: RunConfig) -> None:
    """ConfigError where the branch cannot be made, or its loss teaches nothing: on random latents, where the
    label has one object (or class) in the middle. What a teacher finds in noise is mostly nothing."""
    recognizer, patch = objective.recognizers[place].recognizer, config.data.patch
    channels = config.codec.latent_channels or config.codec.channels
    branch = branch_for(config, kind, recognizer, channels, CELL)
    images = _crop(recognizer, patch)
    random = torch.Generator().manual_seed(0)
    latent = torch.randn(1, channels, patch // CELL, patch // CELL, generator=random).requires_grad_()

    def terms(where: str) -> Mapping[str, Tensor]:
        labels = [[example(recognizer.task, patch, len(recognizer.categories))]] * (place + 1)
        return branch.loss(branch(latent), objective.lesson(branch, place, images, labels))

    where = f"objective.auxiliary: {kind}: on the latent of a crop of {patch} pixels"
    _check_gradient(where, ConfigError, terms, latent, "latent")


def _crop(recognizer: Recognizer, patch: int) -> Tensor:
    noise = torch.rand(1, 3, patch, patch, generator=torch.Generator().manual_seed(0))
    return noise.to(device_of(recognizer))


def _check_gradient(
    where: str,
    error: type[TaskPressError],
    terms: Callable[[str], Mapping[str, Tensor]],
    at: Tensor,
    what: str,
    may_be_none: bool = False,
) -> None:
    """`error` where a user's loss raises anything, is no mapping of scalars, or has no finite gradient.

    may_be_none: whether a loss without terms will do
    """
    try:
        found = terms(where)
    except TaskPressError:
        raise
    except Exception as failure:  # whatever a user's class raises
        raise error(f"{where} it raises {type(failure).__name__}: {failure}") from failure
    if not isinstance(found, Mapping) or not all(
        isinstance(part, Tensor) and part.dim() == 0 for part in found.values()
    ):
        raise error(f"{where} its loss is no dict of scalar tensors")
    if not found:
        if may_be_none:
            return
        raise error(f"{where} its loss has no terms")
    loss = torch.stack(list(found.values())).sum()
    if not loss.requires_grad:
        raise error(
            f"{where} its loss has no gradient at the {what}: nothing between them may be detached, computed "
            "under torch.no_grad, or done outside torch"
        )
    (gradient,) = torch.autograd.grad(loss, at, allow_unused=True)
    if gradient is None or not (torch.isfinite(loss) and torch.isfinite(gradient).all()):
        amiss = "none" if gradient is None else "not finite, or the loss is not"
        raise error(f"{where} its loss is {loss.item():.3g}; the gradient at the {what} is {amiss}")
