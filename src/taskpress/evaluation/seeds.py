"""Trainings that were repeated under other seeds: which results belong together, and their means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple, Protocol

from taskpress.coding.errors import DataError
from taskpress.evaluation.result import TrainedAs


class Spread(NamedTuple):
    """mean: over the seeds; deviation: sample standard deviation, None for one seed."""

    mean: float
    deviation: float | None


class Measured(Protocol):
    """What was measured of a codec on a data set: `Result`, or `Share` of bits inside boxes."""

    codec: str
    training: TrainedAs | None
    bpp: float

    @property
    def scores(self) -> Mapping[str, float | None]: ...


@dataclass(frozen=True)
class OperatingPoint:
    """A codec at one λ, once for each seed; a coder that is not trained, or once, is a single result.

    results: in order of seed
    """

    results: tuple[Measured, ...]

    @property
    def bpp(self) -> Spread:
        return _spread([result.bpp for result in self.results])

    def score(self, metric: str) -> Spread | None:
        """Over the seeds; None where one of them has none."""
        found = [score for result in self.results if (score := result.scores.get(metric)) is not None]
        return _spread(found) if len(found) == len(self.results) else None


@dataclass(frozen=True)
class Repeats:
    """The results of one curve.

    points:  in order of rate; with several seeds, only those λ that every seed has, so that a mean curve is
             of the same trainings all along
    by_seed: the points of each seed in order of rate; empty where some result does not say its seed
    note:    which λ were left out; None where all are there
    """

    points: tuple[OperatingPoint, ...]
    by_seed: dict[int, tuple[OperatingPoint, ...]]
    note: str | None = None


def repeats(curve: str, results: Sequence[Measured]) -> Repeats:
    """Puts results of one curve together by λ and seed.

    Raises DataError where several seeds are there, and a result does not say its own or one is there twice.
    """
    results = sorted(results, key=lambda result: result.bpp)
    single = tuple(OperatingPoint((result,)) for result in results)
    seeds = sorted({result.training.seed for result in results if result.training is not None})
    if len(seeds) < 2:
        told = bool(seeds) and all(result.training is not None for result in results)
        return Repeats(single, {seeds[0]: single} if told else {})
    by_rate: dict[float, dict[int, Measured]] = {}
    for result in results:
        if result.training is None:
            raise DataError(
                f"curve {curve!r} has results of several seeds, and {result.codec!r} does not say its own: "
                "evaluate it anew, or give it a curve of its own with --curve"
            )
        of_rate = by_rate.setdefault(result.training.rate, {})
        if (other := of_rate.setdefault(result.training.seed, result)) is not result:
            raise DataError(
                f"{other.codec!r} and {result.codec!r} are both curve {curve!r}, λ {result.training.rate:g}, "
                f"seed {result.training.seed}: leave one out, or name their curves with --curve"
            )
    complete = [
        tuple(found[seed] for seed in seeds) for found in by_rate.values() if len(found) == len(seeds)
    ]
    left_out = sorted(rate for rate, found in by_rate.items() if len(found) < len(seeds))
    return Repeats(
        tuple(sorted((OperatingPoint(found) for found in complete), key=lambda point: point.bpp.mean)),
        {seed: tuple(point for point in single if _seed(point) == seed) for seed in seeds},
        f"{curve!r} without λ {', '.join(f'{rate:g}' for rate in left_out)}: not every seed has it"
        if left_out
        else None,
    )


def pairs(
    anchor: Repeats, test: Repeats
) -> list[tuple[int, tuple[OperatingPoint, ...], tuple[OperatingPoint, ...]]]:
    """(seed, the anchor's points, the test's): curves that saw the same batches, where either has several.

    A curve without seeds is held against every seed of the other.
    """
    if max(len(anchor.by_seed), len(test.by_seed)) < 2:
        return []
    seeds = [s for s in anchor.by_seed or test.by_seed if s in (test.by_seed or anchor.by_seed)]
    return [(s, anchor.by_seed.get(s, anchor.points), test.by_seed.get(s, test.points)) for s in seeds]


def _seed(point: OperatingPoint) -> int | None:
    (result,) = point.results
    return None if result.training is None else result.training.seed


def _spread(values: Sequence[float]) -> Spread:
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)
