"""`taskpress export`: what is given away says what it is, and only what was measured of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from taskpress.coding.codec import Codec
from taskpress.evaluation.result import Result


def result(codec: Codec) -> Result:
    return Result.model_validate(
        {
            "schema": 1, "curve": "task", "codec": "slim-q1", "codec_fingerprint": codec.fingerprint,
            "recognizer": "scenes", "dataset": "scenes-test", "images": 4, "resize": None, "bpp": 0.25,
            "ap": 12.5, "ap50": 20.0, "teacher_ap": 14.0, "teacher_ap50": 22.0, "encode_s_per_mp": 1.0,
            "decode_s_per_mp": 1.0, "encoder": None, "command": "taskpress evaluate", "versions": {},
        }
    )  # fmt: skip


@pytest.mark.parametrize("half", [False, True])
def test_figures_follow_the_weights(
    taskpress: Callable, codec_file: Path, tmp_path: Path, half: bool
) -> None:
    codec = Codec.load(codec_file)
    result(codec).write(tmp_path / "r.json")
    outcome = taskpress(
        "export",
        codec_file,
        "-o",
        tmp_path / "out",
        "--results",
        tmp_path,
        "--name",
        "given",
        *["--half"] * half,
    )
    assert outcome.code == 0, outcome.err
    given = Codec.load(tmp_path / "out" / "given.safetensors")
    card = json.loads((tmp_path / "out" / "given.json").read_text())
    assert card["arm"] == "random" and card["name"] == "given"
    assert card["fingerprint"] == given.fingerprint
    if half:
        assert given.fingerprint != codec.fingerprint and card["figures"] == []
        assert "no figures" in outcome.err
        again = taskpress("export", codec_file, "-o", tmp_path / "out", "--name", "given", "--half")
        assert again.code == 0, "of the same weights, rounded"
    else:
        assert given.fingerprint == codec.fingerprint
        assert [(f["bpp"], f["ap"]) for f in card["figures"]] == [(0.25, 12.5)]


def test_what_is_float16_stays_float16(taskpress: Callable, codec_file: Path, tmp_path: Path) -> None:
    sizes, fingerprints = [], []
    source = codec_file
    for folder, more in (("half", ["--half"]), ("again", [])):
        assert taskpress("export", source, "-o", tmp_path / folder, *more).code == 0
        source = tmp_path / folder / codec_file.name
        sizes.append(source.stat().st_size)
        fingerprints.append(Codec.load(source).fingerprint)
    assert sizes[0] == sizes[1] < 0.7 * codec_file.stat().st_size
    assert fingerprints[0] == fingerprints[1]


def test_one_name_is_for_one_codec(taskpress: Callable, codec_file: Path, tmp_path: Path) -> None:
    outcome = taskpress("export", codec_file, codec_file, "-o", tmp_path / "out", "--name", "both")
    assert outcome.code == 2 and not (tmp_path / "out").exists()


def test_two_codecs_never_become_one_file(taskpress: Callable, codec_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / codec_file.name
    other.parent.mkdir()
    other.write_bytes(codec_file.read_bytes())
    outcome = taskpress("export", codec_file, other, "-o", tmp_path / "out")
    assert outcome.code == 2 and str(other) in outcome.err and not (tmp_path / "out").exists()


def test_an_export_never_replaces_another_codec(
    taskpress: Callable, codec_file: Path, tmp_path: Path
) -> None:
    before = codec_file.read_bytes()
    onto_itself = taskpress("export", codec_file, "-o", codec_file.parent, "--half")
    assert onto_itself.code == 2 and codec_file.read_bytes() == before
    assert taskpress("export", codec_file, "-o", tmp_path / "out").code == 0
    assert taskpress("export", codec_file, "-o", tmp_path / "out").code == 0
    other = tmp_path / "other" / codec_file.name
    other.parent.mkdir()
    Codec.create("cheng2020-anchor", 4, seed=9).save(other)
    refused = taskpress("export", other, "-o", tmp_path / "out")
    assert refused.code == 2 and "--force" in refused.err
    assert Codec.load(tmp_path / "out" / codec_file.name).fingerprint == Codec.load(codec_file).fingerprint
    assert taskpress("export", other, "-o", tmp_path / "out", "--force").code == 0
