"""What a finished training leaves to go on with: its settings, from the codec's card, and its loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from taskpress.coding.codec import Codec
from taskpress.errors import ConfigError
from taskpress.own_code import is_own
from taskpress.recognition.protocol import Recognizer
from taskpress.training.config import RunConfig, expand
from taskpress.training.objective import Objective


def trained_config(codec: Codec, name: str) -> tuple[RunConfig, int]:
    """The training that a codec's card tells of, and its steps; ConfigError, naming the codec, for none."""
    try:
        return RunConfig.model_validate(codec.card["config"]), int(codec.card["steps"])
    except (KeyError, TypeError, ValueError, ValidationError):
        raise ConfigError(
            f"{name}: its card holds no settings of a training; give a codec that `taskpress train` made"
        ) from None


def check_code(name: str, specs: Iterable[str], remedy: str) -> None:
    """ConfigError where what a codec's card names would run code: a card may be a stranger's."""
    if spec := next((spec for spec in specs if is_own(expand(spec))), None):
        raise ConfigError(f"{name}: its card names code to be run, {spec}; if you trust it, {remedy}")


def without_branch(config: RunConfig, recognizers: Sequence[Recognizer]) -> Objective:
    """The loss of a training but for its auxiliary term, with `recognizers` opened as `recognizers_of` names
    them."""
    loss = config.objective.model_copy(update={"alpha": 0.0})
    return Objective.of(config.model_copy(update={"objective": loss}), recognizers)
