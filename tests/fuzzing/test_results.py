"""Result files, damaged: a DataError, or results that are compared, printed and drawn."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from taskpress.cli.compare import print_comparison
from taskpress.errors import DataError
from taskpress.evaluation import comparison as comparing
from taskpress.evaluation.matches import ClassMatches, PixelMatches
from taskpress.evaluation.matching import ObjectMatches
from taskpress.evaluation.rd_figure import rd_figure
from taskpress.evaluation.result import Result
from taskpress.evaluation.side_by_side import side_by_side

from .mutations import SLOW_COUNT, attack


def result(curve: str, quality: int) -> str:
    scores = {"ap": 10.0 + quality, "ap50": 20.0, "teacher_ap": 30.0 + quality, "teacher_ap50": 40.0}
    fields = {
        "schema": 1,
        "curve": curve,
        "codec": f"{curve}-q{quality}",
        "codec_fingerprint": "0" * 16,
        "training": {"seed": 1, "lmbda": float(quality)},
        "recognizer": "scenes",
        "recognizer_fingerprint": "1" * 16,
        "dataset": "scenes",
        "images": 2,
        "resize": None,
        "bpp": 0.1 * quality,
        **scores,
        "scores": scores,
        "uncompressed_scores": scores,
        "fidelity": {"psnr": 30.0, "ms_ssim": 0.9, "note": None},
        "encode_s_per_mp": 1.0,
        "decode_s_per_mp": 1.0,
        "encoder": {"parameters": 5, "macs_per_pixel": 7.0, "ms": 3.0, "allocator": None},
        "command": "",
        "versions": {},
        "pictures": [{"id": 1, "bits": 800, "pixels": 65536}, {"id": 2, "bits": 900, "pixels": 65536}],
    }
    return json.dumps(fields, indent=1)


def attack_results(folder: Path, count: int, seed: int, shown: int) -> None:
    """`shown`: how many of the comparisons are printed and drawn, which takes longest."""
    rest = [folder / f"{curve}-q{quality}.json" for curve in ("task", "task+aux") for quality in (1, 2)]
    for path in rest:
        curve, quality = path.stem.split("-q")
        path.write_text(result(curve, int(quality)))

    rng = random.Random(seed)

    def use(path: Path) -> None:
        nonlocal shown
        # Alone it contradicts no other.
        read = [Result.read(found) for found in comparing.find_results([path, *rng.choice([rest, []])])]
        comparison = comparing.compare(read, resamples=5)
        json.dumps(comparison.as_json(), allow_nan=False)
        table = side_by_side(read)
        assert table.markdown() and table.csv()
        if shown:
            shown -= 1
            print_comparison(comparison)
            rd_figure(comparison)

    attack(folder / "damaged.json", [result("task", 3), result("mse", 1)], use, count, seed, DataError)


def test_five_hundred_results(tmp_path: Path) -> None:
    attack_results(tmp_path, 500, seed=3, shown=4)


@pytest.mark.slow
def test_twenty_thousand_results(tmp_path: Path) -> None:
    attack_results(tmp_path, SLOW_COUNT, seed=4, shown=600)


def test_damaged_matches(tmp_path: Path) -> None:
    """The archive beside a result: a DataError that names it, or the matches as they were."""
    counts = np.zeros(3, np.int32)
    whole = ObjectMatches(2, counts, counts, np.ones(3, np.float32), counts, counts, counts[:2], counts[:2])
    path = tmp_path / "task-q1.json"
    written = Result.model_validate_json(result("task", 1))
    pixels = PixelMatches(*np.arange(12, dtype=np.int64).reshape(3, 2, 2))
    classes = ClassMatches(np.array([True, False]), np.array([True, True]))
    matches = {"ap": whole, "miou": pixels, "top1": classes}
    written.matches = matches
    written.write(path)
    archive = path.with_suffix(".matches.npz")
    good = archive.read_bytes()
    rng = random.Random(5)
    refused = 0
    for _ in range(400):
        damaged = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        archive.write_bytes(damaged)
        try:
            assert Result.read(path).matches == matches
        except DataError as error:
            assert archive.name in str(error)
            refused += 1
    assert refused > 100
