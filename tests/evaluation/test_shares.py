"""Bits inside boxes over a set: the file, the figure and the command, on pictures whose boxes are known."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taskpress.coding.codec import Codec
from taskpress.errors import ConfigError, DataError
from taskpress.evaluation.allocation import allocate, area_in_boxes, share_in_boxes
from taskpress.evaluation.rate_accuracy import make_reference
from taskpress.evaluation.result import TrainedAs
from taskpress.evaluation.shares import Share, Shares, share_of, shares_figure

from .conftest import ColourDetector, Squares, call, data_options


def shares(*points: Share) -> Shares:
    return Shares(
        recognizer="colours", recognizer_fingerprint="c0105", dataset="squares", images=4, boxes=4,
        resize=None, shares=list(points), command="taskpress allocation", versions={},
    )  # fmt: skip


def share(curve: str, lmbda: float, seed: int, bpp: float, inside: float) -> Share:
    return Share(
        codec=f"{curve}-q1", codec_fingerprint="f", curve=curve, training=TrainedAs(seed=seed, lmbda=lmbda),
        bpp=bpp, share=inside, area=0.2,
    )  # fmt: skip


def test_a_folder_is_all_its_pictures_together(world: Path) -> None:
    codec = Codec.create("mean-scale-hyperprior", 8, seed=3)
    codec.save(world / "toy-q1.safetensors", card={"arm": "task", "config": {"seed": 3, "lmbda": 0.5}})
    output = world / "figures" / "shares.png"
    outcome = call(
        "allocation", world / "toy-q1.safetensors", world / "pictures", "--recognizer", "toy", "--json",
        "-o", output,
    )  # fmt: skip
    written = json.loads(outcome.stdout)
    assert written == json.loads(output.with_suffix(".json").read_text())
    assert (written["dataset"], written["images"], written["boxes"]) == ("pictures", 4, 4)
    (found,) = written["shares"]
    training = {"seed": 3, "lmbda": 0.5, "settings": None, "experiment": None}
    assert (found["curve"], found["training"]) == ("task", training)
    data = Squares()
    per_picture = [allocate(codec, data[index].image) for index in range(4)]
    boxes = [data[index].annotations.boxes for index in range(4)]
    bits = np.array([one.cells.sum() for one in per_picture])
    inside = [share_in_boxes(one.cells, b, (64, 80)) for one, b in zip(per_picture, boxes, strict=True)]
    assert found["share"] == pytest.approx((bits * inside).sum() / bits.sum())
    assert found["area"] == pytest.approx(sum(area_in_boxes(b, (64, 80)) for b in boxes) / (4 * 64 * 80))
    assert found["bpp"] == pytest.approx(bits.sum() / (4 * 64 * 80))
    assert Image.open(output).size[0] > 500
    assert Shares.read(output.with_suffix(".json")).shares[0].codec == "toy-q1"
    with pytest.raises(DataError, match=r"toy-q1.*`taskpress allocation`"):
        Shares.read(world / "toy-q1.safetensors")


def test_codecs_that_make_no_curve_are_told_before_any_is_measured(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = {"arm": "task", "config": {"seed": 1, "lmbda": 0.3}}
    for folder in ("a", "b"):
        (world / folder).mkdir()
        Codec.create("mean-scale-hyperprior", 8).save(world / folder / "toy-q1.safetensors", card=card)
    codecs = [world / "a" / "toy-q1.safetensors", world / "b" / "toy-q1.safetensors"]
    monkeypatch.setattr("taskpress.evaluation.rate_accuracy.make_reference", None)
    with pytest.raises(DataError, match=r"'toy-q1-s1' are both curve 'task', λ 0.3, seed 1"):
        call("allocation", *codecs, world / "pictures", "--recognizer", "toy", "-o", world / "shares.png")


def test_annotations_choose_the_pictures(world: Path) -> None:
    """And nothing else: their categories may be anything."""
    truth = json.loads((world / "annotations.json").read_text())
    for category in truth["categories"]:
        category["name"] += " of another kind"
    (world / "annotations.json").write_text(json.dumps(truth))
    Codec.create("mean-scale-hyperprior", 8).save(world / "toy-q1.safetensors")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(world / "pictures" / "z.png")
    outcome = call(
        "allocation", world / "toy-q1.safetensors", world / "pictures", *data_options(world)[2:],
        "--limit", 3, "-o", world / "shares.png",
    )  # fmt: skip
    assert "3 pictures of" in outcome.stdout and "3 boxes" in outcome.stdout


def test_the_figure_has_a_line_per_curve_and_the_area_for_comparison() -> None:
    one = shares(share("task", 0.3, 1, 0.02, 0.6), share("task", 2, 1, 0.2, 0.3))
    two = shares(*one.shares, share("aux", 0.3, 1, 0.02, 0.7), share("aux", 2, 1, 0.2, 0.4))
    orange = []
    for found in (one, two):
        pixels = np.array(Image.open(io.BytesIO(shares_figure(found))).convert("RGB"))
        orange.append(np.all(pixels == (0xD5, 0x5E, 0x00), -1).sum())
    assert orange[0] == 0 and orange[1] > 100


def test_what_cannot_be_counted_is_refused(world: Path) -> None:
    Codec.create("mean-scale-hyperprior", 8).save(world / "toy-q1.safetensors")
    output = ["-o", world / "shares.png"]
    with pytest.raises(ConfigError, match="--recognizer"):
        call("allocation", world / "toy-q1.safetensors", world / "pictures", *output)
    with pytest.raises(ConfigError, match="is one"):
        call("allocation", world / "toy-q1.safetensors", world / "pictures" / "0.png", "--limit", 2, *output)
    for file in (world / "pictures").iterdir():
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(file)
    with pytest.raises(DataError, match="pictures: the recognizer sees no box"):
        call("allocation", world / "toy-q1.safetensors", world / "pictures", "--recognizer", "toy", *output)
    assert not (world / "shares.png").exists()


def test_the_reference_says_which_pictures() -> None:
    codec, data = Codec.create("mean-scale-hyperprior", 8, seed=3), Squares()
    two = share_of(codec, "task", "toy", data, make_reference(data, ColourDetector(), limit=2))
    assert two.area == pytest.approx((30 * 30 + 40 * 32) / (2 * 64 * 80))
