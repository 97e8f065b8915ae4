"""How far figures would move with other pictures: bias-corrected intervals of the bootstrap (Efron 1981).

Pictures are drawn with replacement, the same draws for all coders, so that differences are paired: what is
hard about a picture is hard for both.

Of few pictures and many classes a draw has fewer of both, and its AP is higher: by 2 to 3 points of the
123 pictures and 80 classes of docs/results.md, by 0.3 of its 256 scenes. Plain percentiles keep that shift,
and lie on the wrong side of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskpress.evaluation.bd_rate import Curve, bd_rate
from taskpress.evaluation.result import Result

LEVEL = 0.95
DRAWS = 1000
BLOCK = 50


class Interval(NamedTuple):
    """low, high: where the figure lies with 95 % of other pictures; undefined: share of draws without one."""

    low: float
    high: float
    undefined: float


class Sampled(NamedTuple):
    """An operating point under R draws: bits per pixel and accuracy, [R] each; NaN where there is none."""

    rates: NDArray
    accuracies: NDArray


def draws(images: int, count: int, seed: int = 0) -> NDArray[np.int64]:
    """[count, images]: how often each picture is taken; every row sums to `images`."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=count)


def sample(result: Result, metric: str, weights: NDArray) -> Sampled | None:
    """An operating point under the draws `weights` [R, images]; None where its matches were not kept.

    metric: a key of `evaluation.metrics`
    """
    matches = result.matches.get(metric)
    if matches is None:
        return None
    bits, pixels = np.array([(picture.bits, picture.pixels) for picture in result.pictures], np.float64).T
    # Memory goes with draws times detections: of thousands of pictures, few draws at a time.
    blocks = np.array_split(weights, -(-len(weights) // BLOCK))
    accuracies = np.concatenate([matches.accuracies(block) for block in blocks])
    return Sampled((weights @ bits) / (weights @ pixels), accuracies)


def mean_curve(points: Sequence[Sequence[Sampled | None]]) -> list[Sampled] | None:
    """The curve through means: for each point, its seeds under the same draws. None where one is None."""
    known = [[seed for seed in point if seed is not None] for point in points]
    if any(len(seeds) < len(point) for seeds, point in zip(known, points, strict=True)):
        return None
    return [Sampled(*(np.mean(values, axis=0) for values in zip(*seeds, strict=True))) for seeds in known]


def interval(values: NDArray, figure: float | None) -> Interval | None:
    """The interval of [R] values; None where no draw has one.

    figure: of all pictures once. Where half of the draws lie below it, the interval is that of percentiles;
        else both are moved by as much as the draws are off, to the other side (BC of Efron 1981). Without
        a figure it is that of percentiles.
    """
    known = np.sort(values[~np.isnan(values)])
    if not len(known):
        return None
    normal = NormalDist()
    below = 0.5
    if figure is not None:
        ranks = (np.searchsorted(known, figure, side) for side in ("left", "right"))
        below = float(np.clip(np.mean(list(ranks)), 0.5, len(known) - 0.5)) / len(known)
    ends = [normal.cdf(2 * normal.inv_cdf(below) + normal.inv_cdf(0.5 + s * LEVEL / 2)) for s in (-1, 1)]
    low, high = np.quantile(known, ends)
    return Interval(float(low), float(high), 1 - len(known) / len(values))


def bd_rates(anchor: Sequence[Sampled], test: Sequence[Sampled]) -> NDArray:
    """[R]: the BD-rate of each draw, percent; NaN where its curves do not overlap."""
    values = []
    for draw in range(len(anchor[0].rates)):
        value = bd_rate(_curve("anchor", anchor, draw), _curve("test", test, draw)).value
        values.append(np.nan if value is None else value)
    return np.array(values)


def _curve(name: str, points: Sequence[Sampled], draw: int) -> Curve:
    drawn = [(point.rates[draw], point.accuracies[draw]) for point in points]
    return Curve(name, [(rate, accuracy) for rate, accuracy in drawn if not np.isnan(accuracy)])
