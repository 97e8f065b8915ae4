"""PSNR and MS-SSIM of known errors, and what results say of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from taskpress.evaluation.fidelity import SMALLEST, ms_ssim, psnr, summarize
from taskpress.evaluation.rate_accuracy import evaluate

from .conftest import ColourDetector, PngCoder, Squares


def picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 5)], -1)
    return (128 + 70 * waves).astype(np.uint8)


def test_psnr_of_a_known_error() -> None:
    original = picture(40, 30)
    assert psnr(original, original + 4) == pytest.approx(20 * math.log10(255 / 4))
    # A third of the numbers are off by 255: the channels' errors are averaged before the logarithm.
    black, red = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert psnr(black, red) == pytest.approx(10 * math.log10(3))
    assert psnr(red, red) == math.inf


def test_ms_ssim_is_one_for_equal_pictures_and_falls_with_noise() -> None:
    original = picture(SMALLEST, 201)
    rng = np.random.default_rng(0)
    noisy = [(original + rng.normal(0, s, original.shape)).clip(0, 255).astype(np.uint8) for s in (5, 25)]
    values = [ms_ssim(original, other) for other in (original, *noisy)]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2] > 0  # type: ignore[operator]
    assert ms_ssim(original[:-1], original[:-1]) is None
    assert ms_ssim(original[:, : SMALLEST - 1], original[:, : SMALLEST - 1]) is None


def test_means_say_what_they_leave_out() -> None:
    whole = summarize([30.0, 40.0], [0.9, 0.8])
    assert (whole.psnr, whole.ms_ssim, whole.note) == (35, pytest.approx(0.85), None)
    partly = summarize([30.0, 40.0], [0.9, None])
    assert partly.ms_ssim == 0.9 and "1 of 2" in (partly.note or "")
    none = summarize([30.0, math.inf], [None, None])
    assert none.psnr is none.ms_ssim is None
    assert "1 of 2 pictures came back without loss" in (none.note or "") and "176" in (none.note or "")


def test_results_tell_what_pictures_look_like() -> None:
    off_by_two = evaluate(PngCoder(lambda image: image ^ 2), Squares(), ColourDetector())
    assert off_by_two.fidelity is not None
    assert off_by_two.fidelity.psnr == pytest.approx(20 * math.log10(255 / 2))
    assert off_by_two.fidelity.ms_ssim is None
    assert evaluate(PngCoder(), Squares(), ColourDetector(), fidelity=False).fidelity is None
