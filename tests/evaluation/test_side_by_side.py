"""Results of several recognizers in one table, read back from Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from taskpress.errors import ConfigError, DataError
from taskpress.evaluation.result import Result
from taskpress.evaluation.side_by_side import side_by_side

from .conftest import call

Make = Callable[..., Result]
EYES = {"psnr": 31.25, "ms_ssim": 0.95, "note": None}


def seen(make: Make, recognizer: str, shift: float) -> list[Result]:
    """Two codecs under two seeds and one JPEG, by a recognizer that scores `shift` more."""
    common = {"recognizer": recognizer, "recognizer_fingerprint": f"{recognizer}-weights", "fidelity": EYES}
    found = [make("jpeg", 30, 0.5, 20 + shift, **common)]
    for seed in (1, 2):
        for q, (lmbda, bpp, ap) in enumerate(((0.5, 0.1, 10.0), (2.0, 0.3, 30.0)), 1):
            found.append(
                make(
                    "task", q, bpp * seed, ap + shift, codec_fingerprint=f"{q}{seed}",
                    training={"seed": seed, "lmbda": lmbda}, **common,
                )
            )  # fmt: skip
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_recognizer_has_its_columns(make_result: Make, tmp_path: Path) -> None:
    for name, shift in (("onnx:a.onnx", 0.0), ("scenes", 5.0)):
        for index, result in enumerate(seen(make_result, name, shift)):
            (tmp_path / name).mkdir(exist_ok=True)
            result.write(tmp_path / name / f"{index}.json")
    output = tmp_path / "out" / "transfer.csv"
    call("table", tmp_path / "onnx:a.onnx", tmp_path / "scenes", "-o", output)
    table = rows(output)
    assert [row["codec"] for row in table] == ["", "task-q1", "task-q1", "task-q2", "task-q2", "jpeg-q30"]
    assert [row["seed"] for row in table] == ["", "1", "2", "1", "2", ""]
    assert [float(row["AP, scenes"]) for row in table] == [28, 15, 15, 35, 35, 25]
    assert [float(row["AP, onnx:a.onnx"]) for row in table] == [28, 10, 10, 30, 30, 20]
    assert float(table[1]["PSNR, dB"]) == 31.25 and table[0]["bpp"] == ""
    printed = call("table", tmp_path / "scenes", "--means").stdout.splitlines()
    assert printed[0].startswith("| curve | codec | λ | seed | bpp | PSNR, dB | MS-SSIM | AP, scenes |")
    assert (
        "| task | task-q1 | 0.5 | 1, 2 | 0.150 ± 0.071 | 31.25 ± 0.00 | 0.9500 ± 0.0000 | 15.0 ± 0.0 |"
        in printed[3]
    )
    assert len({line.count("|") for line in printed}) == 1
    with pytest.raises(ConfigError, match=r"\.md or \.csv"):
        call("table", tmp_path / "scenes", "-o", tmp_path / "t.tex")


def test_recognizers_of_one_name_are_told_apart(make_result: Make) -> None:
    one, other = make_result("jpeg", 1, 0.1, 10.0), make_result("jpeg", 1, 0.1, 12.0)
    other.recognizer_fingerprint = "0123456789"
    headings = [heading for heading, _ in side_by_side([one, other]).columns]
    assert "AP, onnx:toy.onnx (abc)" in headings and "AP, onnx:toy.onnx (01234567)" in headings


def test_a_codec_that_one_recognizer_has_not_seen_has_an_empty_cell(make_result: Make) -> None:
    other = {"recognizer": "scenes", "recognizer_fingerprint": "s"}
    table = side_by_side([make_result("a", 1, 0.1, 10.0), make_result("b", 1, 0.2, 12.0, **other)])
    assert "| a | a-q1 | 0.100 | 10.0 | 26.0 |  |  |" in table.markdown()
    assert "| b | b-q1 | 0.200 |  |  | 12.0 | 31.2 |" in table.markdown()


def test_what_is_not_comparable_is_refused(make_result: Make) -> None:
    with pytest.raises(DataError, match="scored twice"):
        side_by_side([make_result("a", 1, 0.1, 10.0), make_result("a", 1, 0.1, 10.0)])
    with pytest.raises(DataError, match="data set"):
        side_by_side([make_result("a", 1, 0.1, 10.0), make_result("b", 1, 0.1, 10.0, dataset="other")])
    with pytest.raises(DataError, match="nothing"):
        side_by_side([])
