"""Where a recognizer computes, as nobody's child that nobody moves along, and in which precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from taskpress.recognition.protocol import Recognizer


def device_of(recognizer: Recognizer) -> torch.device:
    """Where its parameters are; the CPU for one without any."""
    parameters = recognizer.parameters() if isinstance(recognizer, nn.Module) else iter(())
    parameter = next(parameters, None)
    return torch.device("cpu") if parameter is None else parameter.device


def move(recognizer: Recognizer, device: torch.device | str) -> None:
    """To the device, where it is a module; others see to it themselves."""
    if isinstance(recognizer, nn.Module):
        recognizer.to(device)


def full_precision(like: Tensor) -> torch.autocast:
    """A context without autocast: in half precision coordinates lose whole pixels, and scores behind a
    sigmoid round to 0 and 1 and lose their gradient."""
    return torch.autocast(like.device.type, enabled=False)
