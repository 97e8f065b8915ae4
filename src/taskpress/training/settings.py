"""The settings of a training as they lie in its folder, RUN/NAME/config.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from taskpress.errors import ConfigError
from taskpress.training.config import RunConfig, with_todays_names
from taskpress.training.yaml_text import parse_yaml


def read_settings(path: Path) -> tuple[RunConfig, dict[str, Any]]:
    """The settings, those that came with a later version at their defaults; and what else the file says.

    Raises ConfigError where the file cannot be read or holds no settings of a training.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); name a training's folder, e.g. runs/scenes/aux-q2"
        ) from None
    there = parse_yaml(text, str(path))
    if not isinstance(there, dict):
        raise ConfigError(f"{path}: is damaged; remove its folder to train anew")
    there = with_todays_names(there)
    known = {key: value for key, value in there.items() if key in RunConfig.model_fields}
    try:
        config = RunConfig.model_validate(known)
    except ValidationError as error:
        raise ConfigError(f"{path}: holds no settings of a training ({error.error_count()} errors)") from None
    return config, {key: value for key, value in there.items() if key not in known}
