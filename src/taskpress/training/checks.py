"""Whether recognizers can give the losses that a training asks of them: before it begins, not days later."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from taskpress.auxiliary.branch import Lesson
from taskpress.auxiliary.named import check_auxiliary
from taskpress.coding.errors import RecognizerError, TaskPressError
from taskpress.recognition.device import device_of
from taskpress.recognition.protocol import Recognizer
from taskpress.targets import TARGETS
from taskpress.training.allocation import check_boxes
from taskpress.training.config import RunConfig
from taskpress.training.module import OF_LAYERS, heads_of, layer_shapes
from taskpress.training.objective import Objective, Weighted

OWN = "python:"


def check_losses(config: RunConfig, recognizers: Sequence[tuple[str, Recognizer]]) -> None:
    """ConfigError or RecognizerError for losses that these recognizers cannot give.

    recognizers: each with its name in the preset, the first one first; a user's own classes are tried on a
        crop
    """
    opened = [recognizer for _, recognizer in recognizers]
    first = opened[0] if opened else None
    objective = Objective(
        config.objective, config.rate, first, further=[Weighted(r, 1.0) for r in opened[1:]]
    )
    for name, recognizer in recognizers:
        if name.startswith(OWN):
            _try_own(name, recognizer, objective, config.data.patch)
    check_boxes(config, first)
    if config.objective.alpha == 0:
        return
    kinds = [config.objective.auxiliary, *(one.auxiliary for one in config.further)]
    for kind, recognizer in zip(kinds, opened, strict=False):
        if kind is not None:
            check_auxiliary(kind, recognizer.task)
        if kind in OF_LAYERS:
            layer_shapes(recognizer, config.data.patch)
        if kind == "heads":
            _try_heads(recognizer, config)


@torch.no_grad()
def _try_heads(recognizer: Recognizer, config: RunConfig) -> None:
    """Raises what heads raise that cannot be given layers."""
    grey = torch.full((1, 3, config.data.patch, config.data.patch), 0.5, device=device_of(recognizer))
    layers, labels = recognizer.features(list(grey)), recognizer.pseudo_labels(list(grey))
    heads_of(recognizer, config.objective.task)(layers, Lesson(grey, layers, labels))


def _try_own(name: str, recognizer: Recognizer, objective: Objective, patch: int) -> None:
    """Labels and loss of a crop; RecognizerError where it cannot label, or its loss teaches nothing."""
    noise = torch.rand(1, 3, patch, patch, generator=torch.Generator().manual_seed(0))
    images = noise.to(device_of(recognizer))
    decoded = images.clone().requires_grad_()
    where = f"{name}: on a crop of {patch} pixels"
    try:
        labels = recognizer.pseudo_labels(list(images))
        kind = TARGETS[recognizer.task]
        if len(labels) != 1 or not isinstance(labels[0], kind):
            raise RecognizerError(
                f"{where} its pseudo_labels are no list of one {kind.__name__}, as its task "
                f"{recognizer.task} has them"
            )
        terms = objective.task_terms(recognizer, labels, images, decoded)
    except TaskPressError:
        raise
    except Exception as error:  # whatever a user's class raises
        raise RecognizerError(f"{where} it raises {type(error).__name__}: {error}") from error
    if not terms:
        return
    loss = torch.stack(list(terms.values())).sum()
    if not loss.requires_grad:
        raise RecognizerError(
            f"{where} its loss has no gradient at the image: nothing between them may be detached, computed "
            "under torch.no_grad, or done outside torch"
        )
    (gradient,) = torch.autograd.grad(loss, decoded, allow_unused=True)
    if gradient is None or not (torch.isfinite(loss) and torch.isfinite(gradient).all()):
        found = "none" if gradient is None else "not finite, or the loss is not"
        raise RecognizerError(f"{where} its loss is {loss.item():.3g}; the gradient at the image is {found}")
