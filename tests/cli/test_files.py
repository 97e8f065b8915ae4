"""encode, decode, info: files in, files out, and what happens to bad ones."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from taskpress.cli.app import main
from taskpress.cli.batch import run_all
from taskpress.coding.codec import Codec
from taskpress.coding.files import files_below


def tree(folder: Path) -> set[str]:
    return (
        {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} if folder.exists() else set()
    )


def test_a_folder_goes_there_and_back(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    coded, decoded = tmp_path / "coded", tmp_path / "decoded"
    outcome = taskpress("encode", codec_file, pictures, "-o", coded, "--json")
    assert outcome.code == 0, outcome.err
    rows = json.loads(outcome.out)
    assert tree(coded) == {"rgb.tpc", "grey.tpc", "deeper/palette.tpc"}
    for row in rows:
        assert row["bytes"] == Path(row["file"]).stat().st_size
        assert row["bpp"] == pytest.approx(8 * row["bytes"] / (50 * 70))
    assert taskpress("decode", coded, "--codec", codec_file, "-o", decoded).code == 0
    assert tree(decoded) == {"rgb.png", "grey.png", "deeper/palette.png"}
    codec = Codec.load(codec_file)
    with Image.open(pictures / "rgb.png") as original, Image.open(decoded / "rgb.png") as picture:
        assert np.array_equal(np.asarray(picture), codec.decode(codec.encode(original), as_="numpy"))


def test_precision_is_an_option_on_both_sides(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    fast, exact = tmp_path / "fast", tmp_path / "exact"
    options = ("--precision", "bfloat16")
    assert taskpress("encode", codec_file, pictures / "rgb.png", "-o", fast, *options).code == 0
    for target, extra in ((fast, options), (exact, ())):
        coded = fast / "rgb.tpc"
        assert taskpress("decode", coded, "--codec", codec_file, "-o", target, *extra).code == 0
    with Image.open(fast / "rgb.png") as near, Image.open(exact / "rgb.png") as far:
        difference = np.abs(np.asarray(near, dtype=int) - np.asarray(far, dtype=int))
    assert 0 < difference.max() <= 8
    outcome = taskpress("encode", codec_file, pictures / "rgb.png", "-o", fast, "--precision", "half")
    assert outcome.code == 2 and "'half'" in outcome.err


def test_resize_scales_the_long_side(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    outcome = taskpress("encode", codec_file, pictures / "rgb.png", "-o", tmp_path, "--resize", 35, "--json")
    assert [(row["width"], row["height"]) for row in json.loads(outcome.out)] == [(25, 35)]


def test_info_of_a_file_and_of_a_codec(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    taskpress("encode", codec_file, pictures / "rgb.png", "-o", tmp_path)
    facts = json.loads(taskpress("info", tmp_path / "rgb.tpc", "--json").out)
    assert facts["size"] == "50x70"
    about = json.loads(taskpress("info", codec_file, "--json").out)
    assert about["fingerprint"] == facts["codec fingerprint"]
    assert about["architecture"] == "cheng2020-attention" and about["card"] == {"arm": "random"}


def test_tiles_and_regions(taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path) -> None:
    assert taskpress("encode", codec_file, pictures / "rgb.png", "--tile", 64, "-o", tmp_path).code == 0
    coded = tmp_path / "rgb.tpc"
    assert json.loads(taskpress("info", coded, "--json").out)["tiles"] == "2 of 64x64"
    options = ("--codec", codec_file, "--region", "10,20,40,70")
    assert taskpress("decode", coded, *options, "-o", tmp_path / "out").code == 0
    whole = Codec.load(codec_file).decode(coded.read_bytes(), as_="numpy")
    with Image.open(tmp_path / "out" / "rgb.png") as region:
        crop = whole[20:70, 10:40].astype(int)
        assert np.abs(np.asarray(region) - crop).max() <= 1
    for wrong, message in (("10,20,40", "four whole numbers"), ("0,0,50,71", "50×70 pixels")):
        outcome = taskpress("decode", coded, *options[:-1], wrong, "-o", tmp_path / "no")
        assert outcome.code != 0 and message in outcome.err and wrong in outcome.err
    outcome = taskpress("encode", codec_file, pictures / "rgb.png", "--tile", 100, "-o", tmp_path / "no")
    assert outcome.code != 0 and "multiple of 64" in outcome.err
    assert not tree(tmp_path / "no")
    data = bytearray(coded.read_bytes())
    data[-1] ^= 1
    coded.write_bytes(data)
    outcome = taskpress("decode", coded, *options, "-o", tmp_path / "no")
    assert outcome.code == 1 and "rgb.tpc" in outcome.err and "tile 1 (column 0, row 1)" in outcome.err


def bad_pictures(folder: Path) -> dict[str, Path]:
    rng = np.random.default_rng(1)
    good = folder / "whole.jpg"
    Image.fromarray(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(good)
    made = {
        name: folder / name
        for name in ("truncated.jpg", "empty.png", "deep.png", "cmyk.jpg", "moving.gif", "text.png")
    }
    made["truncated.jpg"].write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    made["empty.png"].write_bytes(b"")
    Image.fromarray(rng.integers(0, 65535, (8, 8)).astype(np.uint16)).save(made["deep.png"])
    Image.new("CMYK", (8, 8)).save(made["cmyk.jpg"])
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(made["moving.gif"], save_all=True, append_images=frames[1:])
    made["text.png"].write_bytes(b"hello")
    good.unlink()
    return {**made, "missing.png": folder / "missing.png"}


def test_every_bad_picture_is_one_line_and_nothing_is_written(
    taskpress: Callable, codec_file: Path, tmp_path: Path
) -> None:
    for name, path in bad_pictures(tmp_path).items():
        outcome = taskpress("encode", codec_file, path, "-o", tmp_path / "out")
        assert outcome.code == 1, name
        lines = outcome.err.strip().splitlines()
        assert len(lines) == 1 and name in lines[0] and lines[0].startswith("taskpress: "), outcome.err
        assert not tree(tmp_path / "out")


def test_a_bad_picture_among_good_ones_stops_none_of_them(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    outcome = taskpress("encode", codec_file, pictures, "-o", tmp_path / "out", "--json")
    assert outcome.code == 1
    assert tree(tmp_path / "out") == {"rgb.tpc", "grey.tpc", "deeper/palette.tpc"}
    *rows, failure = json.loads(outcome.out)
    assert Path(failure["source"]).name == "broken.png" and "is not a picture" in failure["error"]
    done = {Path(row["file"]).name for row in rows}
    assert done == {"rgb.tpc", "grey.tpc", "palette.tpc"}
    assert "broken.png" in outcome.err and "1 of 4" in outcome.err


def test_two_pictures_never_become_one_file(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(pictures / "rgb.bmp")
    assert taskpress("encode", codec_file, pictures, "-o", tmp_path / "out").code == 0
    assert tree(tmp_path / "out") == {"rgb.bmp.tpc", "rgb.png.tpc", "grey.tpc", "deeper/palette.tpc"}
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (8, 8)).save(other / "rgb.bmp")
    outcome = taskpress("encode", codec_file, pictures, other, "-o", tmp_path / "two")
    assert outcome.code == 2 and str(other / "rgb.bmp") in outcome.err
    assert not tree(tmp_path / "two")


@pytest.mark.parametrize("content", [b"", b"no codec", b"\x10\x00\x00\x00\x00\x00\x00\x00" + b"{" * 16])
def test_a_file_that_is_no_codec(taskpress: Callable, pictures: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    outcome = taskpress("encode", path, pictures, "-o", tmp_path / "out")
    assert outcome.code == 1 and str(path) in outcome.err and len(outcome.err.strip().splitlines()) == 1
    assert not tree(tmp_path / "out")


def test_damaged_and_foreign_bitstreams(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    taskpress("encode", codec_file, pictures / "rgb.png", "-o", tmp_path / "coded")
    data = (tmp_path / "coded" / "rgb.tpc").read_bytes()
    damaged = tmp_path / "damaged.tpc"
    for content in (data[:-5], data[:30] + bytes([data[30] ^ 1]) + data[31:], b"", b"TPC"):
        damaged.write_bytes(content)
        outcome = taskpress("decode", damaged, "--codec", codec_file, "-o", tmp_path / "out")
        assert outcome.code == 1 and "damaged.tpc" in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1
    outcome = taskpress("decode", tmp_path / "coded", "-o", tmp_path / "out")
    assert outcome.code == 1 and "--codec" in outcome.err
    assert not tree(tmp_path / "out")


def test_misuse_is_2_and_debug_shows_the_traceback(
    taskpress: Callable, codec_file: Path, tmp_path: Path
) -> None:
    assert taskpress("encode").code == 2
    assert taskpress("no-such-command").code == 2
    with pytest.raises(Exception, match="no such file"):
        taskpress("info", tmp_path / "missing", "--debug")


def test_decoding_does_not_replace_what_was_coded(
    taskpress: Callable, codec_file: Path, pictures: Path
) -> None:
    original = (pictures / "rgb.png").read_bytes()
    assert taskpress("encode", codec_file, pictures / "rgb.png", "-o", pictures).code == 0
    command = ("decode", pictures / "rgb.tpc", "--codec", codec_file, "-o", pictures)
    outcome = taskpress(*command)
    assert outcome.code == 2 and "--force" in outcome.err
    assert (pictures / "rgb.png").read_bytes() == original
    assert taskpress(*command, "--force").code == 0
    assert (pictures / "rgb.png").read_bytes() != original


def test_what_nobody_foresaw_stops_no_other_file(capsys: pytest.CaptureFixture[str]) -> None:
    def work(path: Path, target: Path) -> dict[str, object]:
        if path.name == "b":
            raise RuntimeError("can't allocate memory")
        return {"file": path.name}

    pairs = [(Path(name), Path(name)) for name in ("a", "b", "caf\udce9")]
    with pytest.raises(typer.Exit):
        run_all(work, pairs, "coding", 2, lambda row: str(row["file"]), as_json=False)
    seen = capsys.readouterr()
    assert seen.out.split() == ["a", "caf?"]
    assert "b: Traceback" in seen.err and "RuntimeError: can't allocate memory" in seen.err


def test_an_interrupt_begins_no_further_file() -> None:
    begun = []

    def work(path: Path, target: Path) -> dict[str, object]:
        begun.append(path)
        if len(begun) == 3:
            raise KeyboardInterrupt
        time.sleep(0.02)
        return {}

    with pytest.raises(KeyboardInterrupt):
        run_all(work, [(Path(str(n)), Path(str(n))) for n in range(200)], "coding", 1, str, as_json=False)
    assert len(begun) < 200


def test_what_is_there_is_replaced_or_left_out_only_where_asked(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    coded = tmp_path / "coded"
    command = ("encode", codec_file, pictures / "rgb.png", "-o", coded)
    assert taskpress(*command).code == 0
    before = (coded / "rgb.tpc").read_bytes()
    (coded / "rgb.tpc").write_bytes(before + b"and more")
    refused = taskpress(*command)
    assert refused.code == 2 and "rgb.tpc" in refused.err and "--skip" in refused.err
    refused = taskpress(*command, "--skip")
    assert refused.code == 2 and "trailing bytes" in refused.err and "--force" in refused.err
    assert taskpress(*command, "--force").code == 0
    assert (coded / "rgb.tpc").read_bytes() == before
    written = (coded / "rgb.tpc").stat().st_mtime_ns
    assert taskpress(*command, "--skip").code == 0
    assert (coded / "rgb.tpc").stat().st_mtime_ns == written
    other = taskpress("encode", "mse-n32", *command[2:], "--skip")
    assert other.code == 2 and "another codec" in other.err and "rgb.tpc" in other.err


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--resize", "32"), "now makes 22×32"),
        (("--tile", "64"), "in tiles of 64"),
    ],
)
def test_what_would_be_coded_otherwise_now_is_not_left_out(
    taskpress: Callable, codec_file: Path, tmp_path: Path, options: tuple[str, ...], wanted: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (100, 70), "red").save(tmp_path / "a.jpg", exif=exif)
    command = ("encode", codec_file, tmp_path / "a.jpg", "-o", tmp_path / "coded")
    assert taskpress(*command).code == 0
    assert taskpress(*command, "--skip").code == 0, "of a picture that EXIF turns, too"
    refused = taskpress(*command, "--skip", *options)
    assert refused.code == 2 and "has 70×100 pixels in one piece" in refused.err and wanted in refused.err
    Image.new("RGB", (100, 70), "red").save(tmp_path / "a.jpg")
    os.utime(tmp_path / "a.jpg", (0, 0))  # else it would be coded anew
    assert "now makes 100×70" in taskpress(*command, "--skip").err


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_command_in_order(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    number = getattr(signal, name)
    monkeypatch.setattr("taskpress.cli.app.app", lambda args: os.kill(os.getpid(), number))
    monkeypatch.setattr(sys, "argv", ["taskpress", "info"])
    outside = signal.signal(number, signal.SIG_DFL)  # which whoever runs the tests may ignore
    try:
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 128 + number and signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, outside)
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN)
        patch.setattr(signal, "signal", lambda *_: pytest.fail("what nohup ignores stays ignored"))
        patch.setattr("taskpress.cli.app.app", lambda args: None)
        main()


def test_info_knows_a_bitstream_by_its_content_and_a_file_given_twice_is_coded_once(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    picture = pictures / "rgb.png"
    assert taskpress("encode", codec_file, picture, picture, "-o", tmp_path / "coded").code == 0
    (tmp_path / "coded" / "rgb.tpc").rename(tmp_path / "rgb.bin")
    shown = taskpress("info", tmp_path / "rgb.bin")
    assert shown.code == 0 and "bpp" in shown.out


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--tile", "100", "100"),
        ("--precision", "foo", "foo"),
        ("--resize", "70000", "65535"),
        ("--device", "cuda:99", "--device cuda:99"),
        ("--device", "meta", "--device meta"),
    ],
)
def test_misuse_is_found_before_any_picture_is_coded(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path, option: str, value: str, named: str
) -> None:
    outcome = taskpress("encode", codec_file, pictures, "-o", tmp_path / "out", option, value)
    assert outcome.code == 2 and outcome.err.count(named) == 1
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_no_folder_is_refused_at_once(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    outcome = taskpress("encode", codec_file, pictures, "-o", tmp_path / "file" / "out")
    assert outcome.code == 2 and "cannot be made a folder" in outcome.err


def test_links_to_folders_are_walked_once(
    taskpress: Callable, codec_file: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(pictures)
    (tmp_path / "data" / "circle").symlink_to(tmp_path / "data")
    assert files_below(tmp_path / "data", {".png"}) == sorted((tmp_path / "data" / "linked").rglob("*.png"))
