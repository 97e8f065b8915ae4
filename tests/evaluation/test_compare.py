import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taskpress.errors import ConfigError, DataError
from taskpress.evaluation.comparison import compare, find_results
from taskpress.evaluation.curve_drawing import places
from taskpress.evaluation.rd_figure import rd_figure, write_comparison
from taskpress.evaluation.result import Result

Make = Callable[..., Result]
POINTS = ((0.08, 11.0), (0.13, 17.5), (0.24, 22.0), (0.41, 25.3))


def curve(make: Make, name: str, factor: float, shift: float = 0.0, **fields) -> list[Result]:
    return [make(name, q, factor * bpp, ap + shift, **fields) for q, (bpp, ap) in enumerate(POINTS)]


def test_bd_rates_against_the_anchor(make_result: Make) -> None:
    results = [
        *curve(make_result, "task+aux", 0.8),
        *curve(make_result, "task", 1.0),
        *curve(make_result, "jpeg", 3.0),
    ]
    comparison = compare(results)
    assert comparison.anchor == "task"
    assert comparison.bd_rates["task+aux"]["ap"].value == pytest.approx(-20)
    assert comparison.bd_rates["task+aux"]["teacher_ap"].value == pytest.approx(-20)
    assert comparison.bd_rates["jpeg"]["ap"].value == pytest.approx(200)
    assert compare(results, "jpeg").bd_rates["task"]["ap"].value == pytest.approx(-200 / 3)


def test_json_has_the_agreed_shape(make_result: Make, tmp_path: Path) -> None:
    results = [*curve(make_result, "task", 1.0), *curve(make_result, "better", 1.0, shift=40.0)]
    results += curve(make_result, "task+aux", 0.9)
    write_comparison(compare(results), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["comparison.json", "rd.png"]
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written["anchor"] == "task"
    rows = {row["curve"]: row for row in written["rows"]}
    assert set(rows) == {"better", "task+aux"}
    assert rows["task+aux"]["bd_rate"] == pytest.approx({"ap": -10.0, "teacher_ap": -10.0})
    assert rows["task+aux"]["overlap"]["ap"] == [11.0, 25.3]
    assert rows["better"]["bd_rate"] == {"ap": None, "teacher_ap": None}
    assert rows["better"]["overlap"] == {"ap": None, "teacher_ap": None}
    assert "11.0 to 25.3" in rows["better"]["reason"]["ap"]
    assert "51.0 to 65.3" in rows["better"]["reason"]["ap"]


def test_points_without_a_score_are_told(make_result: Make) -> None:
    task = curve(make_result, "task", 1.0)
    results = [*task, make_result("jpeg", 0, 0.05, None), *curve(make_result, "jpeg", 3.0)[1:]]
    rates = compare(results).bd_rates["jpeg"]
    assert rates["ap"].value is not None
    assert rates["ap"].note == "1 of 4 points of 'jpeg' have no score"


def test_unlabelled_results_still_compare_by_the_teacher(make_result: Make) -> None:
    results = [
        make_result(name, q, f * bpp, None, teacher_ap=3 * ap)
        for name, f in (("task", 1.0), ("task+aux", 0.7))
        for q, (bpp, ap) in enumerate(POINTS)
    ]
    rates = compare(results).bd_rates["task+aux"]
    assert rates["teacher_ap"].value == pytest.approx(-30)
    assert rates["ap"].value is None
    assert "0 point" in (rates["ap"].reason or "")


@pytest.mark.parametrize(
    "field, value", [("dataset", "val2014"), ("recognizer", "scenes"), ("resize", 640), ("images", 3)]
)
def test_different_experiments_do_not_mix(make_result: Make, field: str, value: object) -> None:
    ours = make_result("task", 1, 0.1, 10.0)
    other = make_result("task", 2, 0.2, 12.0, **{"pictures": [], field: value})
    with pytest.raises(DataError, match=rf"'task-q1'.*'task-q2'.*{value}"):
        compare([ours, other])


def test_other_pictures_of_the_same_name_do_not_mix(make_result: Make) -> None:
    ours = make_result("task", 1, 0.1, 10.0)
    sizes = [{"id": 1, "bits": 800, "pixels": 4000}, {"id": 2, "bits": 640, "pixels": 4001}]
    with pytest.raises(DataError, match=r"'task-q1' and 'task-q2' coded different pictures"):
        compare([ours, make_result("task", 2, 0.2, 12.0, pictures=sizes)])
    with pytest.raises(DataError, match=r"uncompressed, ap was 28\.0 for 'task-q1' and 29\.0 for 'task-q2'"):
        compare([ours, make_result("task", 2, 0.2, 12.0, uncompressed_ap=29.0)])
    compare([ours, make_result("task", 2, 0.2, 12.0, uncompressed_ap=28.2)])
    # Of one size, but not of one content; what older files do not say is not held against them.
    levels = [
        [{**one.model_dump(), "level": level} for one in ours.pictures] for level in (99.0, 99.4, 120.0)
    ]
    known, same, other = (make_result("task", 2, 0.2, 12.0, pictures=pictures) for pictures in levels)
    compare([known, same.model_copy(update={"bpp": 0.3})])
    compare([ours, other])
    with pytest.raises(DataError, match="coded different pictures"):
        compare([known, other.model_copy(update={"bpp": 0.3})])


def test_unknown_anchor_lists_the_curves(make_result: Make) -> None:
    with pytest.raises(ConfigError, match=r"'x265'.*jpeg"):
        compare(curve(make_result, "jpeg", 1.0), "x265")
    with pytest.raises(DataError, match="nothing to compare"):
        compare([])


def test_folders_are_read_without_other_json(make_result: Make, tmp_path: Path) -> None:
    make_result("task", 1, 0.1, 10.0).write(tmp_path / "a.json")
    (tmp_path / "comparison.json").write_text('{"schema": 1, "anchor": "task", "rows": []}')
    assert find_results([tmp_path, tmp_path / "a.json"]) == [tmp_path / "a.json"]
    with pytest.raises(DataError, match="nowhere"):
        find_results([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        find_results([tmp_path / "empty"])


def test_figure_is_a_picture_with_every_curve_drawn(make_result: Make) -> None:
    """Learned curves in colour, what they are measured by in grey."""

    def counts(*curves: list[Result]) -> tuple[int, int]:
        data = rd_figure(compare([result for points in curves for result in points]))
        pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        orange = np.all(pixels == (0xD5, 0x5E, 0x00), -1).sum()
        return int(orange), int(np.all(pixels == 38, -1).sum())

    task = curve(make_result, "task", 1.0, codec_fingerprint="1")
    alone = counts(task)
    learned = counts(task, curve(make_result, "task+aux", 0.8, codec_fingerprint="2"))
    classical = counts(task, curve(make_result, "jpeg", 3.0))
    assert alone[0] == 0 and learned[0] > 100 and classical[0] == 0
    assert classical[1] > alone[1] + 100


def drawn(results: list[Result], colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of the figure's pixels of a colour."""
    pixels = np.array(Image.open(io.BytesIO(rd_figure(compare(results)))).convert("RGB"))
    return np.argwhere(np.all(pixels == colour, -1))


def test_an_arm_has_one_colour_in_whatever_company(make_result: Make) -> None:
    roi = curve(make_result, "roi", 1.2, codec_fingerprint="1")
    for beside in ("task", "mse", "a name of one's own"):
        results = [*curve(make_result, beside, 1.0, codec_fingerprint="2"), *roi]
        assert len(drawn(results, (0xCC, 0x79, 0xA7))) > 100, f"pink beside {beside}"
    names = ["own", "roi", "other", "task", *map(str, range(8))]
    assert (found := places(names))["roi"] == 3 and found["task"] == 0
    assert [found["own"], found["other"], found["0"]] == [1, 2, 4]
    assert sorted(found.values()) == list(range(len(names)))


def test_an_uncompressed_score_far_above_does_not_press_curves_flat(make_result: Make) -> None:
    def height(limit: float) -> int:
        results = curve(make_result, "task", 1.0, codec_fingerprint="1", uncompressed_ap=limit)
        rows, columns = drawn(results, (0x00, 0x72, 0xB2)).T
        by_annotations = rows[columns > 840]
        return int(np.ptp(by_annotations))

    assert height(90.0) > 0.9 * height(28.0)


def test_long_names_of_curves_stay_within_the_figure(make_result: Make) -> None:
    names = [f"task+aux, α = {number}, as trained in the longest of all" for number in range(5)]
    curves = [curve(make_result, name, 1.0 + 0.1 * index) for index, name in enumerate(names)]
    data = rd_figure(compare([result for points in curves for result in points]))
    pixels = np.array(Image.open(io.BytesIO(data)).convert("L"))
    assert (pixels[:, :4] == 255).all() and (pixels[:, -4:] == 255).all()
    assert (pixels[-len(pixels) // 8 :] < 255).any(), "there is a legend"


def test_encoders_are_told_by_curve_with_the_allocators_share(make_result: Make) -> None:
    plain = {"parameters": 1000, "macs_per_pixel": 50.0}
    share = {"parameters": 100, "macs_per_pixel": 5.0}
    results = [
        *(make_result("old", q, bpp, ap, encoder=plain) for q, (bpp, ap) in enumerate(POINTS)),
        *(
            make_result(
                "roi",
                q,
                bpp,
                ap,
                encoder={**plain, "ms": 10.0 + q, "allocator": {**share, "ms": q, "map_bpp": 0.5}},
            )
            for q, (bpp, ap) in enumerate(POINTS)
        ),
        make_result("jpeg", 1, 0.3, 12.0),
    ]
    written = compare(results, "old").as_json()["encoders"]
    assert written["old"] == {**plain, "ms": None, "allocator": None, "besides": None}
    middle = (len(POINTS) - 1) / 2
    assert written["roi"] == {
        **plain,
        "ms": 10 + middle,
        "allocator": {**share, "ms": middle, "map_bpp": 0.5},
        "besides": None,
    }
    assert "jpeg" not in written
