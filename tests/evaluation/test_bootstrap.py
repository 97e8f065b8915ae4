"""Intervals: of known distributions, of equal curves, and through files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from taskpress.datasets.scenes import Scenes
from taskpress.errors import DataError
from taskpress.evaluation.anchors import anchor
from taskpress.evaluation.bootstrap import Sampled, bd_rates, draws, interval, sample
from taskpress.evaluation.comparison import compare
from taskpress.evaluation.rate_accuracy import evaluate, make_reference
from taskpress.evaluation.result import Result
from taskpress.recognition.named import load_recognizer


@pytest.fixture(scope="module")
def results() -> list[Result]:
    scenes, recognizer = Scenes("test", 6), load_recognizer("scenes")
    reference = make_reference(scenes, recognizer)
    points = [anchor("jpeg", quality) for quality in (5, 10, 30)] + [anchor("webp", q) for q in (1, 20, 60)]
    return [evaluate(point, scenes, recognizer, reference=reference) for point in points]


def test_the_interval_of_a_mean_is_the_central_limits() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    means = draws(400, 4000) @ values / 400
    found = interval(means, values.mean())
    assert found is not None and found.undefined == 0
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_draws_without_a_value_are_told_apart() -> None:
    found = interval(np.array([1.0, np.nan, 1.0, np.nan]), None)
    assert found == (1.0, 1.0, 0.5)
    assert interval(np.array([np.nan]), 2.0) is None


def test_what_draws_are_off_is_taken_off_on_the_other_side() -> None:
    """Normal draws that lie b too high stand for a figure that lies b too high itself."""
    drawn = np.random.default_rng(0).normal(50 + 1.5, 2.0, 200_000)
    found = interval(drawn, 50.0)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((50 - 1.5 - 3.92, 50 - 1.5 + 3.92), abs=0.1)
    plain = interval(drawn, None)
    assert plain is not None and plain[:2] == pytest.approx(np.percentile(drawn, [2.5, 97.5]))
    beyond = interval(drawn, 1000.0)
    assert beyond is not None and np.isfinite(beyond.low) and beyond.high <= drawn.max()


def test_corrected_intervals_hold_the_truth_where_plain_ones_do_not() -> None:
    """The variance of forty numbers, which drawing anew makes smaller."""
    rng, held = np.random.default_rng(1), np.zeros(2)
    for _ in range(200):
        values = rng.normal(0, 1, 40)
        drawn = values[rng.integers(0, 40, (400, 40))]
        figure, spreads = values.var(), drawn.var(axis=1)
        for place, told in enumerate((None, figure)):
            found = interval(spreads, told)
            assert found is not None
            held[place] += found.low <= 1 <= found.high
    assert held[1] > held[0]


def test_half_the_bits_are_half_the_bits_in_every_draw() -> None:
    rng = np.random.default_rng(0)
    accuracies = np.sort(rng.uniform(10, 90, (4, 20)), axis=0)
    rates = np.sort(rng.uniform(0.1, 1, (4, 20)), axis=0)
    full = [Sampled(*pair) for pair in zip(rates, accuracies, strict=True)]
    half = [Sampled(*pair) for pair in zip(rates / 2, accuracies, strict=True)]
    np.testing.assert_allclose(bd_rates(full, half), -50, atol=1e-6)


def test_all_pictures_once_are_the_result_itself(results: list[Result]) -> None:
    once = np.ones((1, 6), int)
    for result in results:
        for metric in ("ap", "teacher_ap"):
            point = sample(result, metric, once)
            assert point is not None
            assert point.accuracies[0] == pytest.approx(result.scores[metric], abs=1e-9)
            assert point.rates[0] == pytest.approx(result.bpp)


def test_a_comparison_states_intervals_also_from_files(results: list[Result], tmp_path: Path) -> None:
    for result in results:
        result.write(tmp_path / f"{result.codec}.json")
    read = [Result.read(tmp_path / f"{result.codec}.json") for result in results]
    first, again = compare(results, "jpeg", 50), compare(read, "jpeg", 50)
    assert first.as_json() == again.as_json()
    spread = first.intervals["webp"]["ap"]
    assert spread.low <= spread.high
    for point, found in zip(first.curves["jpeg"], first.accuracy_intervals["jpeg"]["ap"], strict=True):
        assert found is not None and found.low - 5 <= point.scores["ap"] <= found.high + 5  # type: ignore[operator]
    assert compare(results, "jpeg").intervals == {}
    (tmp_path / f"{results[0].codec}.matches.npz").write_bytes(b"PK damaged")
    with pytest.raises(DataError, match=r"matches\.npz: damaged"):
        Result.read(tmp_path / f"{results[0].codec}.json")


def test_draws_are_the_same_for_all_coders(results: list[Result]) -> None:
    twin = [
        one.model_copy(update={"curve": "twin", "codec": f"twin-{one.codec}"})
        for one in results
        if one.curve == "jpeg"
    ]
    spread = compare([*results, *twin], "jpeg", 50).intervals["twin"]["ap"]
    assert (spread.low, spread.high) == (0, 0)
