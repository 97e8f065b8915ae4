"""What decoded pictures are worth to people's eyes: PSNR and MS-SSIM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from taskpress.evaluation.stored import Stored

SMALLEST = 176
"""Pixels a side from which MS-SSIM's coarsest of five scales, a sixteenth, holds its window of 11×11."""


class Fidelity(Stored):
    """Means over the pictures of a result, as they were coded (after `resize`).

    psnr:    dB, 10 log10(255² / MSE), the MSE of a picture's R, G and B together; null where a picture came
             back without any loss, whose PSNR is infinite
    ms_ssim: 0 ... 1 (Wang, Simoncelli and Bovik, 2003: five scales, Gaussian window of 11×11 with σ = 1.5,
             torchmetrics), of pictures of at least 176 pixels a side; null where there is none
    note:    what is missing and why
    """

    psnr: float | None
    ms_ssim: float | None
    note: str | None = None


def psnr(original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float:
    """dB between pictures, uint8 [H, W, 3] of one size; infinite for equal ones."""
    error = float(np.mean((original.astype(np.float64) - decoded) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def ms_ssim(original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float | None:
    """MS-SSIM of pictures, uint8 [H, W, 3] of one size, by torchmetrics; None where a side has fewer than
    `SMALLEST` pixels."""
    if min(original.shape[:2]) < SMALLEST:
        return None
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    first, second = (torch.tensor(image).permute(2, 0, 1)[None].float() for image in (original, decoded))
    return float(multiscale_structural_similarity_index_measure(second, first, data_range=255.0))


def summarize(psnrs: Sequence[float], ms_ssims: Sequence[float | None]) -> Fidelity:
    """Means of a data set's pictures, one entry each."""
    known = [value for value in ms_ssims if value is not None]
    lossless = sum(math.isinf(value) for value in psnrs)
    notes = []
    if lossless:
        notes.append(f"no PSNR: {lossless} of {len(psnrs)} pictures came back without loss")
    if not known:
        notes.append(f"no MS-SSIM: no picture has {SMALLEST} pixels a side")
    elif len(known) < len(ms_ssims):
        notes.append(
            f"MS-SSIM of {len(known)} of {len(ms_ssims)} pictures: others are below {SMALLEST} pixels"
        )
    return Fidelity(
        psnr=None if lossless else fmean(psnrs),
        ms_ssim=fmean(known) if known else None,
        note="; ".join(notes) or None,
    )
