"""Codec files with damaged metadata, card and allocator's settings included: a CodecError, or a codec."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import save

import taskpress
from taskpress.errors import CodecError
from taskpress.evaluation.rate_accuracy import default_curve

from .mutations import SLOW_COUNT, attack

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "mean-scale-hyperprior.safetensors"
CARD = {"name": "x", "arm": "task", "quality": 1, "steps": 5, "config": {"seed": 1}, "figures": [0.1, None]}
SETTINGS = {"kind": "roi", "levels": 5, "width": 16, "classes": 0}


def attack_cards(folder: Path, count: int, seed: int) -> None:
    with safe_open(GOLDEN, framework="np") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    card, settings = json.dumps(CARD, indent=1), json.dumps(SETTINGS, indent=1)
    texts = [json.dumps(metadata | {"card": card, "allocator": settings}, indent=1), card, settings]
    codec_file = folder / "codec.safetensors"
    rng = random.Random(seed)

    def use(path: Path) -> None:
        damaged = path.read_bytes().decode(errors="replace")
        given = metadata | rng.choice([{"card": damaged}, {"allocator": damaged}])
        with contextlib.suppress(ValueError, RecursionError):
            whole = json.loads(damaged)
            if isinstance(whole, dict) and all(isinstance(value, str) for value in whole.values()):
                # Half a surrogate pair is no text that a file could hold.
                json.dumps(whole, ensure_ascii=False).encode()
                given = whole
        codec_file.write_bytes(save(tensors, given))
        codec = taskpress.load(codec_file)
        assert isinstance(default_curve(codec.card, "name"), str)
        codec.save(folder / "again.safetensors")

    attack(folder / "card.json", texts, use, count, seed, CodecError)


def test_two_hundred_cards(tmp_path: Path) -> None:
    attack_cards(tmp_path, 200, seed=9)


@pytest.mark.slow
def test_twenty_thousand_cards(tmp_path: Path) -> None:
    attack_cards(tmp_path, SLOW_COUNT, seed=10)
