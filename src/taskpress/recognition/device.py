"""Where a recognizer computes: recognizers are nobody's children, so nobody moves them along."""

from __future__ import annotations

import torch
from torch import nn

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
