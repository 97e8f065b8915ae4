import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from taskpress.evaluation.bd_rate import BdRate, Curve, bd_rate

RATES = (0.08, 0.13, 0.24, 0.41)
ACCURACIES = (11.0, 17.5, 22.0, 25.3)


def curve(name: str, factor: float = 1.0, shift: float = 0.0) -> Curve:
    return Curve(name, [(factor * r, a + shift) for r, a in zip(RATES, ACCURACIES, strict=True)])


@st.composite
def rising_curves(draw: st.DrawFn) -> Curve:
    count = draw(st.integers(2, 6))
    rate_steps = draw(st.lists(st.floats(0.05, 0.5), min_size=count, max_size=count))
    accuracy_steps = draw(st.lists(st.floats(0.5, 5), min_size=count, max_size=count))
    return Curve(
        "c", zip(np.cumsum(rate_steps).tolist(), (10 + np.cumsum(accuracy_steps)).tolist(), strict=True)
    )


@pytest.mark.parametrize("method", ["akima", "pchip"])
@pytest.mark.parametrize("points", [2, 3, 4])
def test_a_fifth_fewer_bits_everywhere_is_minus_20_percent(method, points: int) -> None:
    anchor = Curve("a", curve("a").points[:points])
    result = bd_rate(anchor, Curve("b", [(0.8 * r, a) for r, a in anchor.points]), method=method)
    assert result.value == pytest.approx(-20)
    assert result.overlap == anchor.range
    assert result.share == 1
    assert result.reason is None


def test_identical_curves_differ_by_nothing() -> None:
    assert bd_rate(curve("a"), curve("b")).value == pytest.approx(0, abs=1e-9)


def test_two_points_are_a_straight_line_in_log_rate() -> None:
    # Anchor: log10 rate rises 0 → 1 over accuracy 0 → 10. Test: its middle, log10(2) higher.
    anchor = Curve("a", [(1.0, 0.0), (10.0, 10.0)])
    test = Curve("b", [(2 * 10**0.25, 2.5), (2 * 10**0.75, 7.5)])
    result = bd_rate(anchor, test)
    assert result.value == pytest.approx(100)
    assert result.overlap == (2.5, 7.5)
    assert result.share == pytest.approx(0.5)


def test_flat_curves_are_not_overshot() -> None:
    """Where a curve is nearly flat, Akima's interpolation dips below every rate that was measured."""
    flat = Curve("flat", [(0.041, 52.8), (0.072, 62.9), (0.125, 64.2), (0.187, 65.5)])
    anchor = Curve("anchor", [(0.040, 51.2), (0.066, 61.0), (0.118, 63.7), (0.181, 66.8)])

    def mean_log_rate(of: Curve) -> float:
        monotone = PchipInterpolator(of.accuracies, np.log10([rate for rate, _ in of.points]))
        return float(monotone.integrate(52.8, 65.5)) / (65.5 - 52.8)

    expected = 100 * (10 ** (mean_log_rate(flat) - mean_log_rate(anchor)) - 1)
    assert bd_rate(anchor, flat).value == pytest.approx(expected, abs=0.05)
    akima = bd_rate(anchor, flat, method="akima").value
    assert akima is not None and abs(akima - expected) > 3


def test_order_of_points_does_not_matter() -> None:
    shuffled = Curve("b", reversed(curve("b", 0.7).points))
    assert bd_rate(curve("a"), shuffled) == bd_rate(curve("a"), curve("b", 0.7))


@settings(max_examples=60, deadline=None)
@given(rising_curves(), rising_curves())
def test_swapping_the_curves_inverts_the_ratio(first: Curve, second: Curve) -> None:
    forward, backward = bd_rate(first, second), bd_rate(second, first)
    assert (forward.value is None) == (backward.value is None)
    if forward.value is not None and backward.value is not None:
        assert (1 + forward.value / 100) * (1 + backward.value / 100) == pytest.approx(1, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(rising_curves(), st.floats(0.2, 5))
def test_scaling_the_rate_is_the_value(points: Curve, factor: float) -> None:
    scaled = Curve("s", [(factor * r, a) for r, a in points.points])
    assert bd_rate(points, scaled).value == pytest.approx(100 * (factor - 1), rel=1e-6, abs=1e-6)


def refused(result: BdRate, *words: str) -> None:
    assert result.value is None
    assert result.overlap is None
    assert result.reason is not None
    for word in words:
        assert word in result.reason


def test_curves_that_do_not_overlap_are_refused_with_both_ranges() -> None:
    refused(
        bd_rate(curve("low"), curve("high", shift=20), "ap"), "'low'", "11.0 to 25.3", "31.0 to 45.3", "ap"
    )
    touching = Curve("t", [(0.5, 25.3), (0.6, 27.0)])
    refused(bd_rate(curve("low"), touching, "ap"), "25.3 to 27.0")


def test_single_points_and_zero_rates_are_refused() -> None:
    refused(bd_rate(Curve("one", [(0.1, 20)]), curve("a")), "'one'", "two at least")
    refused(bd_rate(Curve("none", []), curve("a")), "0 point(s)")
    refused(bd_rate(curve("a"), Curve("z", [(0.0, 10), (0.2, 19)])), "'z'", "logarithm")


def test_points_that_another_beats_are_left_out_and_named() -> None:
    straight = Curve("a", [(0.1, 10), (0.4, 30)])
    bumpy = Curve("b", [(0.1, 10), (0.2, 9), (0.2, 8), (0.4, 30), (0.5, 30)])
    outcome = bd_rate(straight, bumpy, "ap")
    assert outcome.value == pytest.approx(0, abs=1e-9)
    assert outcome.note is not None
    for word in ("'b'", "0.200 bpp (9.0)", "0.200 bpp (8.0)", "0.500 bpp (30.0)"):
        assert word in outcome.note
    refused(bd_rate(straight, Curve("falling", [(0.1, 10), (0.2, 9)])), "'falling'", "two at least")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 2), st.floats(0, 100)), min_size=1, max_size=12))
def test_efficient_points_are_exactly_those_no_other_beats(points: list[tuple[float, float]]) -> None:
    kept = set(Curve("c", points).efficient().points)
    assert kept == {p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
