"""Where tests find what is not in the repository: real pictures and a real detector."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


def outside(variable: str, default: Path) -> Path:
    path = Path(os.environ.get(variable, default))
    if not path.is_dir():
        pytest.skip(f"{path} does not exist; set ${variable} to the folder")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with coco/{train2017,val2017,annotations} and photos/."""
    return outside("TASKPRESS_DATA", PROJECT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Folder with yolox_nano.onnx."""
    return outside("TASKPRESS_MODELS", PROJECT.parent / "shared" / "models")
