"""Presets and settings, damaged: a ConfigError, or a preset that can be run and written down."""

from __future__ import annotations

import contextlib
import json
import random
from importlib import resources
from pathlib import Path

import pytest
import yaml

from taskpress.errors import ConfigError, DataError
from taskpress.training.config import Preset
from taskpress.training.data import open_sources
from taskpress.training.presets import load_preset, shipped_presets

from .mutations import ODD, SLOW_COUNT, attack, paths


def check(path: Path, settings: list[str]) -> None:
    preset = load_preset(str(path), settings)
    for run in preset.runs():
        assert Path(run.name).name == run.name
    written = yaml.safe_dump(preset.model_dump(), sort_keys=False)
    assert Preset.model_validate(yaml.safe_load(written)) == preset
    # A path that no file system can hold is refused by the operating system.
    with contextlib.suppress(DataError, OSError):
        assert len(open_sources(preset.data.sources)) > 0


def attack_presets(folder: Path, count: int, seed: int) -> None:
    shipped = resources.files("taskpress") / "presets"
    texts = [(shipped / f"{name}.yaml").read_text() for name in shipped_presets()]
    keys = [".".join(map(str, path)) for text in texts for path in paths(yaml.safe_load(text))]
    rng = random.Random(seed)

    def use(path: Path) -> None:
        settings = []
        if rng.random() < 0.3:
            key = rng.choice([*keys, "", "a", ".", "x.y.z", "optimizer", "codec.channels"])
            settings = [f"{key}={json.dumps(rng.choice(ODD), ensure_ascii=False)}"]
        check(path, settings)

    attack(folder / "preset.yaml", texts, use, count, seed, ConfigError)


def test_five_hundred_presets(tmp_path: Path) -> None:
    attack_presets(tmp_path, 500, seed=1)


@pytest.mark.slow
def test_twenty_thousand_presets(tmp_path: Path) -> None:
    attack_presets(tmp_path, SLOW_COUNT, seed=2)
