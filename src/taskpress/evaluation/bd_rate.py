"""Bjøntegaard delta rate: by how much one curve of rate and accuracy needs fewer bits than another.

G. Bjøntegaard, VCEG-M33, 2001, with the Akima interpolation of C. Herglotz et al., "The Bjøntegaard
Bible", IEEE TIP 2024, by the authors' package `bjontegaard`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Method = Literal["akima", "pchip"]


@dataclass(frozen=True)
class Curve:
    """Operating points of one coder: `points` are (bits per pixel > 0, accuracy), kept in order of rate."""

    name: str
    points: tuple[tuple[float, float], ...]

    def __init__(self, name: str, points: Iterable[tuple[float, float]]) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "points", tuple(sorted((float(r), float(a)) for r, a in points)))

    @property
    def accuracies(self) -> list[float]:
        return [accuracy for _, accuracy in self.points]

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest accuracy that was measured."""
        return min(self.accuracies), max(self.accuracies)


@dataclass(frozen=True)
class BdRate:
    """Outcome of a comparison.

    value: percent; -20 means 20 % fewer bits at equal accuracy; None where no honest number exists
    overlap: accuracies between which both curves were measured and over which the value averages
    share: length of the overlap over length of both ranges together, 0 ... 1. Little overlap, little meaning.
    reason: why there is no value, one sentence
    """

    value: float | None
    overlap: tuple[float, float] | None = None
    share: float | None = None
    reason: str | None = None


def bd_rate(anchor: Curve, test: Curve, metric: str = "accuracy", method: Method = "akima") -> BdRate:
    """Mean rate difference of `test` against `anchor` in percent, over the accuracies both reach.

    log10(rate) is interpolated over accuracy (Akima from three points up, a straight line between two;
    "pchip" never overshoots and is there to check the choice) and averaged over the overlap. Nothing is
    extrapolated: curves that do not overlap, single points and curves whose accuracy does not strictly
    rise with rate give no value but a reason. The overlap is returned instead of held against the
    package's 75 % threshold.

    metric: what the accuracies are called in the reason.
    """
    for curve in (anchor, test):
        problem = _problem(curve, metric)
        if problem:
            return BdRate(None, reason=problem)
    (anchor_low, anchor_high), (test_low, test_high) = anchor.range, test.range
    low, high = max(anchor_low, test_low), min(anchor_high, test_high)
    if low >= high:
        return BdRate(
            None,
            reason=f"{metric} of {anchor.name!r} spans {anchor_low:.1f} to {anchor_high:.1f}, "
            f"of {test.name!r} {test_low:.1f} to {test_high:.1f}: no overlap to compare over",
        )
    import bjontegaard

    value = bjontegaard.bd_rate(
        [rate for rate, _ in anchor.points],
        anchor.accuracies,
        [rate for rate, _ in test.points],
        test.accuracies,
        method=method,
        require_matching_points=False,
        min_overlap=0,
    )
    share = (high - low) / (max(anchor_high, test_high) - min(anchor_low, test_low))
    return BdRate(float(value), (low, high), share)


def _problem(curve: Curve, metric: str) -> str | None:
    if len(curve.points) < 2:
        return f"{curve.name!r} has {len(curve.points)} point(s) with {metric}: a curve needs two at least"
    if curve.points[0][0] <= 0:
        return f"{curve.name!r} has a rate of {curve.points[0][0]:g} bpp: its logarithm does not exist"
    for (rate, accuracy), (next_rate, next_accuracy) in zip(curve.points, curve.points[1:], strict=False):
        if next_accuracy <= accuracy:
            return (
                f"{metric} of {curve.name!r} does not rise from {rate:.3f} bpp ({accuracy:.2f}) "
                f"to {next_rate:.3f} bpp ({next_accuracy:.2f}): rate is no function of it there"
            )
    return None
