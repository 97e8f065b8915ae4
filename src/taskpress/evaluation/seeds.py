"""Trainings that were repeated under other seeds: which results belong together, and their means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Generic, NamedTuple, Protocol, TypeVar

from taskpress.errors import DataError
from taskpress.evaluation.result import RefinedAs, TrainedAs


class Spread(NamedTuple):
    """mean: over the seeds; deviation: sample standard deviation, None for one seed."""

    mean: float
    deviation: float | None


class Told(Protocol):
    """A codec's name, its training, and how its latents were refined."""

    @property
    def codec(self) -> str: ...

    @property
    def training(self) -> TrainedAs | None: ...

    @property
    def refined(self) -> RefinedAs | None: ...


class Measured(Told, Protocol):
    """What was measured of a codec on a data set: `Result`, or `Share` of bits inside boxes."""

    @property
    def bpp(self) -> float: ...

    @property
    def scores(self) -> Mapping[str, float | None]: ...


M = TypeVar("M", bound=Measured)
T = TypeVar("T", bound=Told)


@dataclass(frozen=True)
class OperatingPoint(Generic[M]):
    """A codec at one λ, once for each seed; a coder that is not trained, or once, is a single result.

    results: in order of seed
    """

    results: tuple[M, ...]

    @property
    def bpp(self) -> float:
        """Mean over the seeds."""
        return fmean(result.bpp for result in self.results)

    def score(self, metric: str) -> float | None:
        """Mean over the seeds; None where one of them has no such score."""
        found = self.score_spread(metric)
        return found and found.mean

    def score_spread(self, metric: str) -> Spread | None:
        """The score with its standard deviation over the seeds."""
        return self.spread(lambda result: result.scores.get(metric))

    def spread(self, value: Callable[[M], float | None]) -> Spread | None:
        """Mean and standard deviation of any value over the seeds; None where one of them has none."""
        found = [number for result in self.results if (number := value(result)) is not None]
        if len(found) < len(self.results):
            return None
        return Spread(fmean(found), stdev(found) if len(found) > 1 else None)


@dataclass(frozen=True)
class Repeats(Generic[M]):
    """The results of one curve.

    points:  in order of rate; with several seeds, only those λ that every seed has, so that a mean curve is
             of the same trainings all along
    by_seed: the points of each seed in order of rate; empty where some result does not say its seed
    note:    which λ were left out, and whether the trainings differ in more than λ and seed; None where all
             are there and alike
    """

    points: tuple[OperatingPoint[M], ...]
    by_seed: dict[int, tuple[OperatingPoint[M], ...]]
    note: str | None = None


def by_lambda_and_seed(curve: str, results: Sequence[T]) -> dict[str, dict[int, T]]:
    """What says its training, by λ (in words) and seed.

    Raises DataError where trainings of two experiments meet, where one λ of a seed is there twice, where
    several seeds are there and a result does not say its own, and where those of one λ differ in other
    settings than the seed, as far as results say.
    """
    by_experiment = {one.training.experiment: one for one in results if one.training is not None}
    by_experiment.pop(None, None)
    if len(by_experiment) > 1:
        (name, one), (other_name, other) = list(by_experiment.items())[:2]
        raise DataError(
            f"{one.codec!r} of {name!r} and {other.codec!r} of {other_name!r} are both curve {curve!r}, but "
            "of two experiments: name their curves with --curve"
        )
    by_lambda: dict[str, dict[int, T]] = {}
    for result in results:
        if result.training is None:
            continue
        lmbda = _told(result.training, result.refined)
        if (other := by_lambda.setdefault(lmbda, {}).setdefault(result.training.seed, result)) is not result:
            raise DataError(
                f"{other.codec!r} and {result.codec!r} are both curve {curve!r}, λ {lmbda}, "
                f"seed {result.training.seed}: leave one out, or name their curves with --curve"
            )
    for repeated in by_lambda.values():
        by_settings = {one.training.settings: one for one in repeated.values() if one.training is not None}
        by_settings.pop(None, None)
        if len(by_settings) > 1:
            one, other = list(by_settings.values())[:2]
            raise DataError(
                f"{one.codec!r} and {other.codec!r} are both curve {curve!r}, but differ in more of their "
                "settings than the seed: name their curves with --curve"
            )
    untold = next((result for result in results if result.training is None), None)
    if untold is not None and len({seed for found in by_lambda.values() for seed in found}) > 1:
        raise DataError(
            f"curve {curve!r} has results of several seeds, and {untold.codec!r} does not say its own: "
            "evaluate it anew, or give it a curve of its own with --curve"
        )
    return by_lambda


def repeats(curve: str, results: Sequence[M]) -> Repeats[M]:
    """Puts results of one curve together by λ and seed; DataError as from `by_lambda_and_seed`."""
    results = sorted(results, key=lambda result: result.bpp)
    by_lambda = by_lambda_and_seed(curve, results)
    single = tuple(OperatingPoint((result,)) for result in results)
    seeds = sorted({seed for found in by_lambda.values() for seed in found})
    kinds = {one.training.settings for one in results if one.training is not None}
    notes = []
    if len(kinds - {None}) > 1:
        notes.append(f"the trainings of {curve!r} differ in more than λ")
    elif len(kinds) > 1:
        notes.append(f"not every training of {curve!r} says its settings, so they may differ in more than λ")
    if len(seeds) < 2:
        told = bool(seeds) and all(result.training is not None for result in results)
        return Repeats(single, {seeds[0]: single} if told else {}, *notes)
    complete = [
        tuple(found[seed] for seed in seeds) for found in by_lambda.values() if len(found) == len(seeds)
    ]
    left_out = [lmbda for lmbda, found in by_lambda.items() if len(found) < len(seeds)]
    if left_out:
        notes.append(f"{curve!r} without λ {', '.join(left_out)}: not every seed has it")
    return Repeats(
        tuple(sorted((OperatingPoint(found) for found in complete), key=lambda point: point.bpp)),
        {seed: tuple(point for point in single if _seed(point) == seed) for seed in seeds},
        "; ".join(notes) or None,
    )


def _told(training: TrainedAs, refined: RefinedAs | None) -> str:
    """λ of an operating point in words: that of the training, and how its latents were refined."""
    if refined is None:
        return f"{training.lmbda:g}"
    return f"{training.lmbda:g} (refined by {refined.lmbda:g} in {refined.steps} steps)"


def pairs(
    anchor: Repeats[M], test: Repeats[M]
) -> list[tuple[int, tuple[OperatingPoint[M], ...], tuple[OperatingPoint[M], ...]]]:
    """(seed, the anchor's points, the test's): curves that saw the same batches, where either has several.

    A curve without seeds is held against every seed of the other.
    """
    if max(len(anchor.by_seed), len(test.by_seed)) < 2:
        return []
    seeds = [s for s in anchor.by_seed or test.by_seed if s in (test.by_seed or anchor.by_seed)]
    return [(s, anchor.by_seed.get(s, anchor.points), test.by_seed.get(s, test.points)) for s in seeds]


def matched(
    anchor: Repeats[M], test: Repeats[M]
) -> tuple[tuple[OperatingPoint[M], ...], tuple[OperatingPoint[M], ...], str | None]:
    """The points of both over the seeds that both have, and a note where one has others too.

    A mean over two seeds against one of them would compare other batches. A curve without seeds, or of none
    of the other's, is taken as it is.
    """
    common = anchor.by_seed.keys() & test.by_seed.keys()
    if not common or anchor.by_seed.keys() == test.by_seed.keys():
        return anchor.points, test.points, None
    named = ", ".join(map(str, sorted(common)))
    return (
        _of_seeds(anchor.points, common),
        _of_seeds(test.points, common),
        f"of seed {named}, which both have",
    )


def _of_seeds(points: Sequence[OperatingPoint[M]], seeds: Set[int]) -> tuple[OperatingPoint[M], ...]:
    kept = [
        tuple(one for one in point.results if one.training is not None and one.training.seed in seeds)
        for point in points
    ]
    return tuple(
        sorted((OperatingPoint(results) for results in kept if results), key=lambda point: point.bpp)
    )


def _seed(point: OperatingPoint[M]) -> int | None:
    (result,) = point.results
    return None if result.training is None else result.training.seed
