import json
from pathlib import Path

import numpy as np
import pytest

from taskpress.errors import ConfigError, DataError, ImageError
from taskpress.evaluation.anchors import anchor
from taskpress.evaluation.rate_accuracy import evaluate, make_reference
from taskpress.evaluation.result import Result

from .conftest import ColourDetector, PngCoder, Squares


def test_lossless_coding_keeps_accuracy_and_counts_every_byte_of_the_files() -> None:
    coder = PngCoder()
    result = evaluate(coder, Squares(), ColourDetector())
    # Red and green are annotated where they are, blue elsewhere: two of three classes.
    assert result.ap == pytest.approx(200 / 3)
    assert result.uncompressed_ap == result.ap
    assert result.teacher_ap == result.teacher_ap50 == result.uncompressed_teacher_ap == pytest.approx(100)
    files = coder.files[1:]  # the first picture is coded once more, untimed
    assert result.bpp == pytest.approx(8 * sum(map(len, files)) / (4 * 64 * 80))
    assert [picture.bits for picture in result.pictures] == [8 * len(data) for data in files]
    assert [picture.id for picture in result.pictures] == [100, 101, 102, 103]
    assert (result.images, result.encoder, result.resize) == (4, None, None)
    assert result.encode_s_per_mp > 0
    assert result.decode_s_per_mp > 0
    assert {"torch", "torchvision", "numpy", "pillow", "taskpress"} <= result.versions.keys()


def test_what_coding_destroys_is_missed() -> None:
    def no_red(image: np.ndarray) -> np.ndarray:
        image = image.copy()
        image[..., 0] = 60
        return image

    result = evaluate(PngCoder(no_red), Squares(), ColourDetector())
    assert result.ap == pytest.approx(100 / 3)
    assert result.teacher_ap == pytest.approx(200 / 3)
    assert result.uncompressed_ap == pytest.approx(200 / 3)


def test_resize_comes_before_coding_and_boxes_return_to_original_pixels() -> None:
    coder = PngCoder()
    result = evaluate(coder, Squares(), ColourDetector(), resize=160)
    assert [coder.decode(data).shape for data in coder.files] == [(128, 160, 3)] * 5
    assert [picture.pixels for picture in result.pictures] == [128 * 160] * 4
    assert result.ap == pytest.approx(200 / 3, abs=1)
    assert result.resize == 160


def test_limit_takes_the_first_pictures() -> None:
    result = evaluate(PngCoder(), Squares(), ColourDetector(), limit=2)
    assert result.images == 2
    assert result.ap == pytest.approx(100)


def test_unlabelled_pictures_have_teacher_accuracy_alone() -> None:
    result = evaluate(PngCoder(), Squares(labelled=False), ColourDetector())
    assert result.ap is None
    assert result.ap50 is None
    assert result.uncompressed_ap is None
    assert result.teacher_ap == pytest.approx(100)


def test_one_reference_serves_all_coders() -> None:
    detector = ColourDetector()
    reference = make_reference(Squares(), detector)
    assert detector.seen == 4
    first = evaluate(PngCoder(), Squares(), detector, reference=reference)
    evaluate(anchor("jpeg", 90), Squares(), detector, reference=reference)
    assert detector.seen == 12
    assert first.teacher_ap == pytest.approx(100)
    with pytest.raises(ConfigError, match="reference"):
        evaluate(PngCoder(), Squares(), detector, limit=2, reference=reference)


def test_classical_codec_along_the_same_path() -> None:
    result = evaluate(anchor("webp", 90), Squares(), ColourDetector())
    assert (result.curve, result.codec, result.encoder) == ("webp", "webp-q90", None)
    assert result.teacher_ap is not None
    assert result.teacher_ap > 50


def test_result_survives_its_file_and_has_the_agreed_keys(tmp_path: Path) -> None:
    result = evaluate(PngCoder(), Squares(), ColourDetector())
    path = tmp_path / "png.json"
    result.write(path)
    assert Result.read(path) == result
    worse = evaluate(anchor("jpeg", 2), Squares(), ColourDetector())
    worse.write(tmp_path / "jpeg.json")
    (tmp_path / "jpeg.matches.npz").replace(path.with_name("png.matches.npz"))
    with pytest.raises(DataError, match=r"png\.matches\.npz.*another measurement; remove it"):
        Result.read(path)
    (tmp_path / "jpeg.json").unlink()
    result.write(path)
    assert set(json.loads(path.read_text())) >= {
        "schema", "curve", "codec", "recognizer", "dataset", "images", "resize", "bpp", "ap", "ap50",
        "teacher_ap", "teacher_ap50", "encode_s_per_mp", "decode_s_per_mp", "encoder", "command", "versions",
    }  # fmt: skip
    assert json.loads(path.read_text())["schema"] == 1
    assert sorted(tmp_path.iterdir()) == [path, path.with_name("png.matches.npz")], (
        "no temporary file may stay"
    )
    result.matches = {}
    result.write(path)
    assert not Result.read(path).matches, "matches of an earlier result may not stay"


def test_a_file_that_is_no_result_names_itself_and_the_field(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    evaluate(PngCoder(), Squares(), ColourDetector()).write(path)
    content = json.loads(path.read_text())
    for spoilt, field in (({"bpp": "much"}, "bpp"), ({"schema": 2}, "schema"), ({"bpp": -1}, "bpp")):
        path.write_text(json.dumps({**content, **spoilt}))
        with pytest.raises(DataError, match=rf"r\.json.*{field}"):
            Result.read(path)
    path.write_text("{")
    with pytest.raises(DataError, match=r"r\.json"):
        Result.read(path)
    with pytest.raises(DataError, match=r"none\.json"):
        Result.read(tmp_path / "none.json")


def test_an_unreadable_picture_is_named() -> None:
    class Broken(Squares):
        def __getitem__(self, index: int):
            raise ImageError("7.png: is damaged or truncated")

    with pytest.raises(ImageError, match=r"7\.png"):
        evaluate(PngCoder(), Broken(), ColourDetector())


def test_coder_that_changes_the_size_is_caught() -> None:
    with pytest.raises(DataError, match="png-q1"):
        evaluate(PngCoder(lambda image: image[:-1]), Squares(), ColourDetector())
