"""Files of weights, read without running anything in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import WeightsEnum

from taskpress.errors import RecognizerError
from taskpress.recognition.detectron2_pickle import read_detectron2_pickle


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU.

    .safetensors; .pkl of Detectron2's model zoo (see `detectron2_pickle`); anything else as torch's own
    format (`weights_only`): a state dict, or a training checkpoint with a state dict under "model".

    Raises RecognizerError, naming the file, where it is missing, damaged or holds something else.
    """
    if path.suffix == ".pkl":
        return read_detectron2_pickle(path)
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RecognizerError(
            f"cannot read the weights {path}: {error.strerror or error}; name a file that exists"
        ) from error
    except Exception as error:  # damaged files raise whatever their reader trips over
        raise RecognizerError(
            f"{path} holds no weights that can be read safely; give a .safetensors file or a .pth state dict"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict):
        raise RecognizerError(f"{path} is no state dict but a {type(content).__name__}")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise RecognizerError(f"{path} is no state dict: {key!r} is no tensor")
    return content


def published_as(path: Path, known: Iterable[WeightsEnum]) -> WeightsEnum | None:
    """Which of torchvision's weights a file is: their addresses end in the start of their SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return next((weights for weights in known if weights.url.endswith(f"-{digest[:8]}.pth")), None)


def rows(state: dict[str, Tensor], key: str, path: Path) -> int:
    """How many outputs a weight has; RecognizerError for one that is a single number."""
    if not state[key].dim():
        raise RecognizerError(f"{path}: {key} is a single number, not a weight with a row for each output")
    return len(state[key])
