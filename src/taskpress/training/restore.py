"""Brings a training back from its checkpoint, branch included: codec files hold no trace of one."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from taskpress.auxiliary.branch import AuxiliaryBranch
from taskpress.coding.checkpoints import infer_architecture
from taskpress.coding.codec import Codec
from taskpress.errors import CodecError, ConfigError, DataError
from taskpress.own_code import is_own
from taskpress.recognition.device import move
from taskpress.recognition.named import load_recognizer
from taskpress.recognition.protocol import Recognizer
from taskpress.training.allocation import give_allocator
from taskpress.training.averaging import WeightAverage
from taskpress.training.config import RunConfig, expand
from taskpress.training.contents import check_contents, own_code
from taskpress.training.module import CodecTraining
from taskpress.training.settings import read_settings

MODEL = "codec.model."
"""What weights of the codec begin with in a checkpoint."""


@dataclass(frozen=True)
class Restored:
    """A training as its last checkpoint left it, in evaluation mode.

    step:   optimizer steps taken until then
    branch: the one of the first recognizer
    """

    config: RunConfig
    step: int
    codec: Codec
    branch: AuxiliaryBranch
    recognizer: Recognizer


def restore(folder: Path, device: str = "cpu") -> Restored:
    """The training in RUN/NAME, from its config.yaml and checkpoints/last.ckpt, which is read without pickle.

    Codec and branch are of one step, the codec in the full precision of training; of a training that averages
    its weights, both are averages. ConfigError where the folder holds no such training, or one without a
    branch; DataError for a damaged checkpoint.
    """
    config, told = read_settings(folder / "config.yaml")
    check_contents(folder / "config.yaml", own_code(config), told.get("contents", {}))
    if config.recognizer is None or config.objective.alpha == 0:
        raise ConfigError(f"{folder}: {config.name} was trained without an auxiliary branch (alpha 0)")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    if not checkpoint.exists():
        raise ConfigError(f"{checkpoint}: no such checkpoint; only a training's own folder has the branch")
    recognizers = [load_recognizer(expand(config.recognizer))]
    recognizers += [load_recognizer(expand(one.recognizer)) for one in config.further]
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        state, step = content["state_dict"], int(content["global_step"])
        model = {key.removeprefix(MODEL): value for key, value in state.items() if key.startswith(MODEL)}
        codec = Codec.create(*_architecture(config, model, checkpoint))
        give_allocator(codec, config, recognizers[0])
        training = CodecTraining(config, step, codec, *recognizers)
        training.load_state_dict(state)
        if config.optimizer.average is not None:
            average = WeightAverage(config.optimizer.average)
            average.load_state_dict(content["callbacks"][average.state_key])
            average.give(training)
    except (OSError, RuntimeError, KeyError, EOFError, CodecError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{checkpoint}: no checkpoint of {config.name}, or a damaged one; train it anew"
        ) from error
    # An average has no medians of its own, and checkpoints once had those of before their last step.
    codec.model.entropy_bottleneck.fit_quantiles()
    training.to(device).eval()
    move(recognizers[0], device)
    return Restored(config, step, training.codec, training.placed_branches[0], recognizers[0])


def _architecture(config: RunConfig, model: Mapping[str, Tensor], checkpoint: Path) -> tuple[str, int, int]:
    """(architecture, N, M) of a training's codec."""
    asked = config.codec
    if is_own(asked.architecture):
        return expand(asked.architecture), asked.channels, asked.latent_channels or asked.channels
    return infer_architecture(model, checkpoint)
