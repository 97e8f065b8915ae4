"""Bjøntegaard delta rate: by how much one curve of rate and accuracy needs fewer bits than another.

G. Bjøntegaard, VCEG-M33, 2001, with monotone piecewise cubic interpolation, by the package `bjontegaard` of
C. Herglotz et al., "The Bjøntegaard Bible", IEEE TIP 2024. Their choice, Akima's, follows curves of PSNR more
closely, but overshoots where a curve is nearly flat, as curves of accuracy are at their upper end: an
interpolated rate may then lie below every measured one.
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

    def efficient(self) -> Curve:
        """The curve without points that another equals or beats at no more bits: strictly rising."""
        kept: list[tuple[float, float]] = []
        for rate, accuracy in sorted(self.points, key=lambda point: (point[0], -point[1])):
            if not kept or accuracy > kept[-1][1]:
                kept.append((rate, accuracy))
        return Curve(self.name, kept)


@dataclass(frozen=True)
class BdRate:
    """Outcome of a comparison.

    value: percent; -20 means 20 % fewer bits at equal accuracy; None where no honest number exists
    overlap: accuracies between which both curves were measured and over which the value averages
    share: length of the overlap over length of both ranges together, 0 ... 1. Little overlap, little meaning.
    reason: why there is no value, one sentence
    note: which points were left out, because another of their curve beats them
    """

    value: float | None
    overlap: tuple[float, float] | None = None
    share: float | None = None
    reason: str | None = None
    note: str | None = None


def bd_rate(anchor: Curve, test: Curve, metric: str = "accuracy", method: Method = "pchip") -> BdRate:
    """Mean rate difference of `test` against `anchor` in percent, over the accuracies both reach.

    log10(rate) is interpolated over accuracy ("pchip" from three points up, a straight line between two;
    "akima" is there to check the choice) and averaged over the overlap. Nothing is
    extrapolated: curves that do not overlap and single points give no value but a reason. Points that
    another of their curve beats are left out: rate is a function of accuracy only along the others. The
    overlap is returned instead of held against the package's 75 % threshold.

    metric: what the accuracies are called in the reason.
    """
    note = "; ".join(filter(None, (_left_out(curve, metric) for curve in (anchor, test)))) or None
    anchor, test = anchor.efficient(), test.efficient()
    for curve in (anchor, test):
        problem = _problem(curve, metric)
        if problem:
            return BdRate(None, reason=problem, note=note)
    (anchor_low, anchor_high), (test_low, test_high) = anchor.range, test.range
    low, high = max(anchor_low, test_low), min(anchor_high, test_high)
    if low >= high:
        return BdRate(
            None,
            reason=f"{metric} of {anchor.name!r} spans {anchor_low:.1f} to {anchor_high:.1f}, "
            f"of {test.name!r} {test_low:.1f} to {test_high:.1f}: no overlap to compare over",
            note=note,
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
    return BdRate(float(value), (low, high), share, note=note)


def _left_out(curve: Curve, metric: str) -> str | None:
    kept = set(curve.efficient().points)
    beaten = [
        f"{rate:.3f} bpp ({accuracy:.1f})" for rate, accuracy in curve.points if (rate, accuracy) not in kept
    ]
    if not beaten:
        return None
    better = f"another point has as much {metric}, or more, for fewer bits"
    return f"{curve.name!r} without {', '.join(beaten)}: {better}"


def _problem(curve: Curve, metric: str) -> str | None:
    if len(curve.points) < 2:
        return f"{curve.name!r} has {len(curve.points)} point(s) with {metric}: a curve needs two at least"
    if curve.points[0][0] <= 0:
        return f"{curve.name!r} has a rate of {curve.points[0][0]:g} bpp: its logarithm does not exist"
    return None
