"""Presets from files, shipped or a user's own, with settings from the command line."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from taskpress.errors import ConfigError, suggestion
from taskpress.training.config import Preset
from taskpress.training.section import explain
from taskpress.training.yaml_text import parse_yaml


def shipped_presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("taskpress") / "presets"
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def load_preset(name_or_path: str, overrides: list[str] | None = None) -> Preset:
    """A shipped preset by name or a YAML file, with `key.key=value` overrides (values are YAML).

    Raises ConfigError that names the file, the field and, for a misspelt one, the nearest that exists.
    """
    tree = _read_yaml(name_or_path)
    for override in overrides or []:
        key, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"{override!r}: a setting is written key=value, e.g. optimizer.steps=500")
        _set(tree, key.split("."), parse_yaml(value, repr(override)))
    try:
        preset = Preset.model_validate(tree)
        preset.runs()
    except ValidationError as error:
        raise ConfigError(f"{name_or_path}: {explain(error)}") from None
    except ConfigError as error:
        raise ConfigError(f"{name_or_path}: {error}") from None
    return preset


def _read_yaml(name_or_path: str) -> dict[str, Any]:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read ({error})") from None
    elif name_or_path in shipped_presets():
        text = (resources.files("taskpress") / "presets" / f"{name_or_path}.yaml").read_text()
    else:
        raise ConfigError(f"{name_or_path}: no such preset; {suggestion(name_or_path, shipped_presets())}")
    tree = parse_yaml(text, name_or_path)
    if not isinstance(tree, dict):
        raise ConfigError(f"{name_or_path}: holds no settings; expected `key: value` lines")
    return tree


def _set(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        child = tree.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{'.'.join(keys)}: `{key}` is a value, it has no fields")
        tree = child
    tree[keys[-1]] = value
