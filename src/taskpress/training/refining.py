"""Refining by what a codec was trained for: its card says recognizer, L_task and λ."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from taskpress.coding.codec import Codec
from taskpress.coding.estimate import Estimate
from taskpress.coding.refinement import Distortion, Refinement
from taskpress.errors import ConfigError
from taskpress.recognition.named import load_recognizer
from taskpress.recognition.protocol import Recognizer
from taskpress.training.config import expand
from taskpress.training.data import Batch
from taskpress.training.run import recognizers_of
from taskpress.training.trained import check_code, trained_config, without_branch


def refinement_for(
    codec: Codec,
    name: str,
    steps: int = 30,
    lmbda: float | None = None,
    recognizer: str | None = None,
    load: Callable[[str], Recognizer] = load_recognizer,
    learning_rate: float = 0.08,
) -> Refinement:
    """L_task of the codec's training as the distortion, with mean squared error where that had a share.

    name:       of the codec, for errors
    lmbda:      λ: less for fewer bits, more for accuracy; None: a tenth of the training's, for fewer bits
                and more accuracy than without refining, where the training's own makes more of both
    recognizer: as on the command line, in place of those that the codec was trained for
    load:       opens recognizers; one that remembers them serves several codecs

    Recognizers compute where the codec does now. ConfigError for a codec whose card holds no training, or
    that was trained by its auxiliary loss alone, and what opening recognizers raises.
    """
    config, _ = trained_config(codec, name)
    if config.objective.task == "none" and config.objective.mse == 0:
        raise ConfigError(f"{name}: was trained by its auxiliary loss alone, which says nothing of a picture")
    if recognizer is not None:
        config = config.model_copy(update={"recognizer": recognizer, "further": []})
    elif config.objective.task == "none" and not config.objective.needs_boxes:
        # Squared errors alone: nobody is asked.
        config = config.model_copy(update={"recognizer": None, "further": []})
    else:
        check_code(name, recognizers_of(config), "name it by --refine-recognizer")
    recognizers = [load(expand(spec)) for spec in recognizers_of(config)]
    # λ is the refinement's own.
    objective = without_branch(config.model_copy(update={"lmbda": 1.0}), recognizers)
    device = next(codec.model.parameters()).device
    objective.to(device)

    def distortion_of(picture: Tensor) -> Distortion:
        labels = [
            one.pseudo_labels([picture[0]]) if objective.config.needs_labels else [] for one in recognizers
        ]
        batch = Batch(picture, labels)
        nothing = torch.zeros(1, device=device)

        def distortion(decoded: Tensor) -> Tensor:
            estimate = Estimate(decoded, nothing, nothing, nothing)
            return objective(batch, estimate)["loss"]

        return distortion

    judge = " and ".join(one.name for one in recognizers) or "squared error"
    return Refinement(
        distortion_of, config.lmbda / 10 if lmbda is None else lmbda, steps, learning_rate, judge
    )
