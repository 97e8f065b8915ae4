"""What is written where, what is done anew, and what is left out is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taskpress.coding.codec import Codec
from taskpress.coding.picture_files import read_image, size_of


def test_a_picture_that_was_changed_since_is_coded_anew(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    coded, decoded = tmp_path / "coded", tmp_path / "decoded"
    encode = ("encode", codec_file, pictures, "-o", coded)
    decode = ("decode", coded, "--codec", codec_file, "-o", decoded)
    assert taskpress(*encode).code == 0 and taskpress(*decode).code == 0
    before = (coded / "rgb.tpc").read_bytes()
    assert taskpress(*encode, "--skip").err.strip() == ""
    other = np.full((70, 50, 3), (255, 0, 0), np.uint8)
    Image.fromarray(other).save(pictures / "rgb.png")
    later = (coded / "rgb.tpc").stat().st_mtime + 10
    os.utime(pictures / "rgb.png", (later, later))
    outcome = taskpress(*encode, "--skip", "--json")
    assert outcome.code == 0 and "1 files were changed since" in outcome.err
    (row,) = json.loads(outcome.out)
    assert (row["source"], row["file"]) == (str(pictures / "rgb.png"), str(coded / "rgb.tpc"))
    after = (coded / "rgb.tpc").read_bytes()
    assert after != before and after == Codec.load(codec_file).encode(other)
    os.utime(coded / "rgb.tpc", (later, later))
    outcome = taskpress(*decode, "--skip", "--json")
    assert [row["source"] for row in json.loads(outcome.out)] == [str(coded / "rgb.tpc")]


def test_of_one_file_o_may_be_its_name(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    coded, decoded = tmp_path / "new" / "street.tpc", tmp_path / "street.bmp"
    assert taskpress("encode", codec_file, pictures / "rgb.png", "-o", coded).code == 0
    assert taskpress("decode", coded, "--codec", codec_file, "-o", decoded).code == 0
    assert read_image(decoded).shape == (70, 50, 3)
    outcome = taskpress("encode", codec_file, pictures / "rgb.png", "-o", coded)
    assert outcome.code == 2 and "street.tpc: is there already" in outcome.err
    outcome = taskpress("encode", codec_file, pictures, "-o", tmp_path / "all.tpc")
    assert outcome.code == 2 and "names one file, where 3 are to be written" in outcome.err
    for lossy in ("street.jpg", "street.heic"):
        outcome = taskpress("decode", coded, "--codec", codec_file, "-o", tmp_path / lossy)
        assert outcome.code == 2 and "without further loss" in outcome.err
    outcome = taskpress("encode", codec_file, pictures / "grey.jpg", "-o", coded, "--skip")
    assert outcome.code == 2 and "--skip: goes with a folder" in outcome.err
    # Of no picture's suffix it is a folder, and a folder stays one, whatever it is called.
    assert taskpress("decode", coded, "--codec", codec_file, "-o", tmp_path / "out-0.14").code == 0
    assert (tmp_path / "out-0.14" / "street.png").exists()
    folder = tmp_path / "camera.tpc"
    folder.mkdir()
    assert taskpress("encode", codec_file, pictures, "-o", folder).code == 0
    assert (folder / "deeper" / "palette.tpc").exists()


def test_what_is_no_picture_by_its_name_is_told(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    for name in ("notes.txt", "deeper/clip.gif", "deeper/other.GIF", "without", ".DS_Store", "._rgb.png"):
        (pictures / name).write_bytes(b"x")
    (pictures / ".thumbnails").mkdir()
    Image.new("RGB", (8, 8)).save(pictures / ".thumbnails" / "rgb.png")
    outcome = taskpress("encode", codec_file, pictures, "-o", tmp_path / "coded", "--json")
    assert outcome.code == 0 and len(json.loads(outcome.out)) == 3
    (line,) = outcome.err.split("\n\n")[0].splitlines()
    assert line.startswith(f"taskpress: {pictures}: left out") and "2 .gif" in line
    assert "1 .txt" in line and "1 without suffix" in line and "DS_Store" not in line


def test_pictures_of_phones_are_read(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    pixels = np.tile(np.linspace(0, 255, 96).astype(np.uint8)[None, :, None], (64, 1, 3))
    path = tmp_path / "phone.heic"
    turned = Image.Exif()
    turned[0x0112] = 6
    heif.from_pillow(Image.fromarray(pixels)).save(path, quality=95, exif=turned.tobytes())
    found = read_image(path)
    assert size_of(path) == (found.shape[1], found.shape[0])
    straight = heif.from_pillow(Image.fromarray(pixels))
    straight.save(tmp_path / "straight.heic", quality=95)
    assert np.abs(read_image(tmp_path / "straight.heic").astype(int) - pixels).max() < 12


def test_heic_without_its_package_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskpress.errors import ImageError

    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"phone\.heic.*pip install pillow-heif"):
        read_image(tmp_path / "phone.heic")


def test_figures_replace_figures_alone(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    figure = tmp_path / "bits.png"
    draw = ("allocation", codec_file, pictures / "rgb.png", "-o", figure)
    assert taskpress(*draw).code == 0 and taskpress(*draw).code == 0
    others = ('{"mine": 1}', "[]", '["boxes"]', "precious", '{"schema": 1, "curve": "task", "bpp": 0.1}')
    for content in others:
        (tmp_path / "bits.json").write_text(content)
        outcome = taskpress(*draw)
        assert outcome.code == 2 and "bits.json: is there, and is of no such figure" in outcome.err
        assert (tmp_path / "bits.json").read_text() == content
    (tmp_path / "bits.json").unlink()
    assert "bits.png: is there" in taskpress(*draw).err


def test_info_of_a_picture_says_what_it_is(taskpress: Callable, pictures: Path) -> None:
    outcome = taskpress("info", pictures / "rgb.png")
    assert outcome.code == 1 and "is a picture as it came" in outcome.err
