"""The command line, called in this process: torch is imported once for all tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from taskpress.cli.app import main
from taskpress.coding.codec import Codec


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def taskpress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs `taskpress ARGUMENT...` as a shell would; exceptions that would be tracebacks come through."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["taskpress", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def codec_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slim codec with random weights."""
    path = tmp_path_factory.mktemp("codec") / "slim-q1.safetensors"
    Codec.create("cheng2020-attention", 8, seed=1).save(path, card={"arm": "random"})
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder tree of three good pictures: RGB, grey, and palette in a sub-folder."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (70, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "rgb.png")
    Image.fromarray(pixels[..., 0]).save(folder / "grey.jpg")
    Image.fromarray(pixels).convert("P").save(folder / "deeper" / "palette.png")
    torch.manual_seed(0)
    return folder
