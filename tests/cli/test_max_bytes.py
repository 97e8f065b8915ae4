"""encode --max-bytes --or: no file is larger, and each picture has the first codec that fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from taskpress.coding.codec import Codec


def test_the_first_codec_that_fits_is_taken(taskpress: Callable, codec_file: Path, tmp_path: Path) -> None:
    rich, pictures, coded = tmp_path / "rich.safetensors", tmp_path / "pictures", tmp_path / "coded"
    codec = Codec.load(codec_file)
    with torch.no_grad():
        codec.model.g_a[-2].weight.mul_(100)
    codec.save(rich)
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (70, 50, 3)).astype(np.uint8)
    for name, pixels in (("noise", noise), ("flat", np.full_like(noise, 128))):
        Image.fromarray(pixels).save(pictures / f"{name}.png")
    encode = ("encode", rich, pictures, "-o", coded, "--json")
    rows = json.loads(taskpress(*encode).out)
    sizes = {Path(row["file"]).stem: row["bytes"] for row in rows}
    (small, fewest), (large, most) = sorted(sizes.items(), key=lambda size: size[1])
    assert fewest < most and {row["codec"] for row in rows} == {str(rich)}

    limit = ("--max-bytes", most - 1)
    outcome = taskpress(*encode, *limit, "--force")
    told = [row["error"] for row in json.loads(outcome.out) if "error" in row]
    assert outcome.code == 1 and len(told) == 1
    assert f"{large}.png: takes {most} bytes with {rich}, more than --max-bytes" in told[0]
    outcome = taskpress(*encode, *limit, "--or", codec_file, "--force")
    assert outcome.code == 0, outcome.err
    chosen = {Path(row["file"]).stem: row["codec"] for row in json.loads(outcome.out)}
    assert chosen == {small: str(rich), large: str(codec_file)}
    assert max(file.stat().st_size for file in coded.iterdir()) < most
    # What is there is what either of them wrote.
    again = taskpress(*encode, *limit, "--or", codec_file, "--skip")
    assert again.code == 0 and json.loads(again.out) == []
    assert "another codec" in taskpress(*encode, "--skip").err
    codecs = ("--codec", rich, "--codec", codec_file)
    assert taskpress("decode", coded, "-o", tmp_path / "decoded", *codecs).code == 0
    outcome = taskpress(*encode, "--or", codec_file)
    assert outcome.code == 2 and "--max-bytes" in outcome.err
