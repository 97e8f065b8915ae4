"""docs/preset.md is what the classes that check presets say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from taskpress.training.config import Preset

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_what_the_classes_say() -> None:
    spec = importlib.util.spec_from_file_location("preset_page", DOCS / "preset_page.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.page() == (DOCS / "preset.md").read_text(encoding="utf-8"), "run `make results`"


def test_every_field_is_described() -> None:
    schema = Preset.model_json_schema()
    for name, section in {"Preset": schema, **schema["$defs"]}.items():
        bare = [field for field, told in section["properties"].items() if not told.get("description")]
        assert not bare and section.get("description"), name
