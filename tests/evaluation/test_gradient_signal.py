"""Signal and noise of gradients, held against expectations that are known."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from taskpress.evaluation.gradient_signal import GradientSignals, Signals, signal_figure, statistics

P = 400


NAMES = ("task", "aux")


def draws(n: int, seed: int, noise: float = 0.5) -> np.ndarray:
    """Batches of two terms with expectations of norms 1 and 0.5 at a cosine of 0.6, and noise of norm ~10."""
    rng = np.random.default_rng(seed)
    first, second = np.zeros(P), np.zeros(P)
    first[0], second[0], second[1] = 1.0, 0.3, 0.4
    own = rng.normal(size=(n, P)) * noise
    other = 0.5 * noise * rng.normal(size=(n, P))
    return np.stack([first + own, second + 0.5 * own + other]).astype(np.float32)


def test_without_noise_norms_and_cosine_are_exact() -> None:
    terms, cosines = statistics(draws(4, 0, noise=0.0), NAMES)
    assert terms["task"].signal == pytest.approx(1) and terms["aux"].signal == pytest.approx(0.5)
    assert (terms["task"].low, terms["task"].high) == pytest.approx((1, 1), abs=1e-3)
    assert terms["task"].noise == pytest.approx(0, abs=1e-3)
    assert cosines["task aux"].value == pytest.approx(0.6)
    assert cosines["task aux"].error == pytest.approx(0, abs=1e-6)


def test_noise_is_told_from_signal_that_it_exceeds_tenfold() -> None:
    terms, cosines = statistics(draws(2000, 1), NAMES)
    assert terms["task"].noise == pytest.approx(0.5 * np.sqrt(P), rel=0.02)
    assert terms["task"].low < 1 < terms["task"].high < 1.3
    cosine = cosines["task aux"]
    assert cosine.value is not None and cosine.error is not None
    # The mean gradients of the batches themselves have the noise's cosine in theirs.
    assert cosine.value == pytest.approx(0.6, abs=3 * cosine.error) and cosine.error < 0.2


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    found = [statistics(draws(40, seed), NAMES).terms["task"] for seed in range(200)]
    assert 0.9 < np.mean([one.low <= 1 <= one.high for one in found]) <= 1
    assert np.mean([one.signal**2 - (one.signal == 0) for one in found]) < 1.6
    assert np.mean([one.high for one in found]) < 2.5


def test_a_cosine_at_its_bound_is_not_taken_for_certain() -> None:
    """A ratio of estimates may lie beyond 1, where clipping first would leave nothing for the error."""
    expected = np.zeros((2, 1, 100))
    expected[:, 0, :2] = [[0.079, 0.0], [0.044 * 0.9, 0.044 * 0.436]]
    errors = []
    for seed in range(80):
        noise = np.random.default_rng(seed).normal(size=(2, 128, 100)) * [[[0.051]], [[0.047]]]
        found = statistics((expected + noise).astype(np.float32), NAMES).cosines["task aux"]
        errors += [found.error] if found.value == 1 else []
    assert len(errors) > 5 and min(errors) > 0.02


def test_a_gradient_without_expectation_has_no_cosine() -> None:
    rng = np.random.default_rng(3)
    flip = np.where(np.arange(6) % 2, 1.0, -1.0)[:, None]
    both = np.stack([1 + 0.01 * rng.normal(size=(6, P)), flip * np.ones((6, P))]).astype(np.float32)
    terms, cosines = statistics(both, NAMES)
    assert terms["aux"].signal == terms["aux"].low == 0
    assert terms["aux"].noise == pytest.approx(np.sqrt(P))
    assert cosines["task aux"].value is None and cosines["task aux"].error is None


def test_the_figure_shows_every_training() -> None:
    terms, cosines = statistics(draws(10, 0), NAMES)
    one = Signals(
        training="aux-q1",
        arm="task+aux",
        lmbda=0.5,
        alpha=1,
        auxiliary="heads",
        step=3,
        batches=10,
        parameters=P,
        terms=terms,
        cosines=cosines,
    )
    found = GradientSignals(trainings=[one, one], command="", versions={})
    image = Image.open(io.BytesIO(signal_figure(found)))
    assert image.width > 900 and len(image.getcolors(1 << 20)) > 10
