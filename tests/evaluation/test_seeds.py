"""One curve trained under several seeds: means, pairs, and what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taskpress.coding.codec import Codec
from taskpress.errors import ConfigError, DataError
from taskpress.evaluation.bootstrap import Sampled, mean_curve
from taskpress.evaluation.comparison import Comparison, compare
from taskpress.evaluation.rate_accuracy import trained_as
from taskpress.evaluation.rd_figure import rd_figure
from taskpress.evaluation.result import RefinedAs, Result, TrainedAs
from taskpress.evaluation.seeds import repeats

from .conftest import call, data_options

Make = Callable[..., Result]
POINTS = ((0.3, 0.08, 11.0), (0.8, 0.13, 17.5), (2.0, 0.24, 22.0), (5.0, 0.41, 25.3))


def trained(
    make: Make, curve: str, seed: int, factor: float, points: Sequence[tuple[float, float, float]] = POINTS
) -> list[Result]:
    return [
        make(
            curve,
            q,
            factor * bpp,
            ap,
            training={"seed": seed, "lmbda": lmbda},
            codec_fingerprint=f"{seed}{q}",
        )
        for q, (lmbda, bpp, ap) in enumerate(points, 1)
    ]


def values(comparison: Comparison, curve: str) -> dict[int, Any]:
    return {seed: found["ap"].value for seed, found in comparison.seed_rates[curve].items()}


def test_each_seed_is_held_against_its_own_and_the_means_against_the_means(make_result: Make) -> None:
    results = [
        *trained(make_result, "task", 1, 1.0),
        *trained(make_result, "task", 2, 3.0),
        *trained(make_result, "task+aux", 2, 1.5),
        *trained(make_result, "task+aux", 1, 0.9),
    ]
    comparison = compare(results)
    assert values(comparison, "task+aux") == pytest.approx({1: -10, 2: -50})
    # Every mean rate is (0.9 + 1.5) / 2 of a unit against (1 + 3) / 2.
    assert comparison.bd_rates["task+aux"]["ap"].value == pytest.approx(-40)
    row = comparison.as_json()["rows"][0]
    assert row["seeds"]["2"] == pytest.approx({"ap": -50, "teacher_ap": -50})
    point = comparison.repeats["task"].points[0]
    assert point.bpp == pytest.approx(0.16)
    assert point.spread(lambda result: result.bpp) == pytest.approx((0.16, np.std([0.08, 0.24], ddof=1)))


def test_an_arm_of_one_seed_is_held_against_that_seed_alone(make_result: Make) -> None:
    results = [*trained(make_result, "task", 1, 1.0), *trained(make_result, "task", 2, 3.0)]
    outcome = compare([*results, *trained(make_result, "mse", 1, 1.3)]).bd_rates["mse"]["ap"]
    assert outcome.value == pytest.approx(30)
    assert "seed 1, which both have" in (outcome.note or "")
    other_way = compare([*results, *trained(make_result, "mse", 1, 1.3)], "mse").bd_rates["task"]["ap"]
    assert other_way.value == pytest.approx(100 / 1.3 - 100)


def test_a_curve_without_seeds_meets_every_seed(make_result: Make) -> None:
    jpeg = [make_result("jpeg", q, 2 * bpp, ap) for q, (_, bpp, ap) in enumerate(POINTS)]
    two = [*trained(make_result, "task", 1, 1.0), *trained(make_result, "task", 7, 4.0), *jpeg]
    assert values(compare(two), "jpeg") == pytest.approx({1: 100, 7: -50})
    assert values(compare(two, "jpeg"), "task") == pytest.approx({1: -50, 7: 100})
    assert compare([*trained(make_result, "task", 1, 1.0), *jpeg]).seed_rates == {}
    more = [*two, *trained(make_result, "task+aux", 7, 2.0)]
    assert values(compare(more), "task+aux") == pytest.approx({7: -50})


def test_a_rate_that_one_seed_lacks_is_in_no_mean(make_result: Make) -> None:
    results = [*trained(make_result, "task", 1, 1.0), *trained(make_result, "task", 2, 1.0, POINTS[:3])]
    results += trained(make_result, "task+aux", 1, 0.8)
    comparison = compare(results)
    assert [point.results[0].training.lmbda for point in comparison.repeats["task"].points] == [0.3, 0.8, 2.0]  # type: ignore[union-attr]
    assert "'task' without λ 5" in (comparison.bd_rates["task+aux"]["ap"].note or "")
    assert values(comparison, "task+aux") == pytest.approx({1: -20})


def test_what_cannot_be_told_apart_is_refused(make_result: Make) -> None:
    pair = [*trained(make_result, "task", 1, 1.0), *trained(make_result, "task", 2, 1.0)]
    with pytest.raises(DataError, match=r"'task-q1' and 'task-q1'.*λ 0.3, seed 2.*--curve"):
        compare([*pair, *trained(make_result, "task", 2, 1.1)])
    with pytest.raises(DataError, match=r"'task-q9' does not say"):
        compare([*pair, make_result("task", 9, 0.2, 12.0)])
    with pytest.raises(DataError, match=r"λ 0.3, seed 1.*--curve"):
        compare([*pair[:4], *trained(make_result, "task", 1, 1.3)])
    told = [
        one.model_copy(update={"training": one.training.model_copy(update={"settings": digest})})
        for one, digest in zip(pair, "aabbaacc", strict=True)
        if one.training is not None
    ]
    with pytest.raises(DataError, match=r"'task-q3' and 'task-q3'.*differ in more.*--curve"):
        compare(told)
    # One λ may be told otherwise than another, where its repetitions are alike, but not in silence.
    both = repeats("task", [*told[:2], *told[4:6]])
    assert len(both.points) == 2 and both.note is None
    mixed = repeats("task", told[:4])
    assert len(mixed.points) == 4 and mixed.note == "the trainings of 'task' differ in more than λ"
    # Without seeds to keep apart, points are points.
    plain = [make_result("jpeg", q, bpp, ap) for q, (_, bpp, ap) in enumerate(POINTS)]
    assert len(repeats("jpeg", [*plain, *plain]).points) == 8


def test_two_experiments_are_no_curve(make_result: Make) -> None:
    """Both may have an arm `task`: a curve through the points of both would be of neither."""

    def of(experiment: str | None, factor: float, settings: str | None = None) -> list[Result]:
        told = {"experiment": experiment, "settings": settings}
        found = trained(make_result, "task", 1, factor, [(r + factor, b, a) for r, b, a in POINTS])
        return [
            one.model_copy(update={"training": one.training and one.training.model_copy(update=told)})
            for one in found
        ]

    with pytest.raises(DataError, match=r"'task-q4' of 'street' and 'task-q4' of 'coco'.*--curve"):
        repeats("task", [*of("street", 1.0), *of("coco", 2.0)])
    older = repeats("task", [*of(None, 1.0), *of("coco", 2.0, "b")])
    assert "not every training of 'task' says its settings" in (older.note or "")


def test_compare_puts_results_into_other_curves(world: Path, make_result: Make) -> None:
    for folder, factor in (("mine", 0.5), ("theirs", 1.0)):
        (world / folder).mkdir()
        for place, result in enumerate(trained(make_result, "task", 1, factor)):
            assert result.training is not None
            result.training = result.training.model_copy(update={"experiment": f"{folder}{place // 2}"})
            result.write(world / folder / f"{result.codec}.json")
    both = ("compare", world / "mine", world / "theirs", "--bootstrap", 0, "-o", world / "out", "--json")
    with pytest.raises(DataError, match="--curve"):
        call(*both)
    asked = ("--curve", f"mine={world}/mine/*", "--curve", f"task={world}/theirs/*")
    (row,) = json.loads(call(*both, *asked).stdout)["rows"]
    assert row["curve"] == "mine" and row["bd_rate"]["ap"] == pytest.approx(-50)
    (row,) = json.loads(call(*both, "--curve", "a=*/mine/*", "--curve", "b=*/theirs/*").stdout)["rows"]
    assert row["curve"] == "b" and row["bd_rate"]["ap"] == pytest.approx(100)
    with pytest.raises(ConfigError, match="--curve mine=nothing/"):
        call(*both, "--curve", "mine=nothing/*")


def test_means_of_draws_are_means_of_both_coordinates() -> None:
    rng = np.random.default_rng(3)
    one, two = (Sampled(rng.random(5), rng.random(5)) for _ in range(2))
    curve = mean_curve([[one, two], [two]])
    assert curve is not None
    np.testing.assert_allclose(curve[0].rates, (one.rates + two.rates) / 2)
    np.testing.assert_allclose(curve[0].accuracies, (one.accuracies + two.accuracies) / 2)
    np.testing.assert_array_equal(curve[1].rates, two.rates)
    assert mean_curve([[one, None]]) is None


def test_seeds_are_drawn_lightly(make_result: Make) -> None:
    def blue(factor: float) -> int:
        results = [*trained(make_result, "task", 1, 1.0), *trained(make_result, "task", 2, factor)]
        picture = np.array(Image.open(io.BytesIO(rd_figure(compare(results)))).convert("RGB")).astype(int)
        light = (picture[..., 2] - picture[..., 0] > 30) & (picture[..., 0] > 60)
        return int(light.sum())

    assert blue(2.0) > 1.3 * blue(1.0)


def test_the_card_tells_the_seed_through_the_command_line(world: Path) -> None:
    files = []
    for seed in (1, 2):
        folder = world / f"run-{seed}"
        folder.mkdir()
        files.append(folder / "toy-task-q1.safetensors")
        card = {"arm": "task", "config": {"seed": seed, "lmbda": 0.5, "experiment": "toy"}}
        Codec.create("mean-scale-hyperprior", 8, seed=seed).save(files[-1], card=card)
    assert trained_as(Codec.load(files[1])) == TrainedAs(seed=2, lmbda=0.5, experiment="toy")
    assert trained_as(Codec.create("mean-scale-hyperprior", 8)) is None
    call("evaluate", *files, *data_options(world), "-o", world / "results")
    written = json.loads((world / "results" / "toy-task-q1-s2.json").read_text())
    training = {"seed": 2, "lmbda": 0.5, "settings": None, "experiment": "toy"}
    assert (written["curve"], written["training"]) == ("task", training)
    outcome = call("compare", world / "results", "-o", world / "out")
    assert "(2 seeds)" in outcome.stdout and " ± " in outcome.stdout


def test_older_files_have_another_name_for_lambda() -> None:
    assert TrainedAs.model_validate({"seed": 1, "rate": 0.5}) == TrainedAs(seed=1, lmbda=0.5)
    refined = {"steps": 30, "learning_rate": 0.08}
    assert RefinedAs.model_validate({**refined, "rate": 0.1}) == RefinedAs(**refined, lmbda=0.1)
    assert "rate" not in TrainedAs(seed=1, lmbda=0.5).model_dump()
