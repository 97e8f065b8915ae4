"""Colour and texture of drawn scenes.

Backgrounds follow the two standard models of natural images: overlapping patches of all sizes ("dead leaves",
Lee, Mumford and Huang, 2001) and noise whose amplitude falls as 1/f (Field, 1987).
"""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from taskpress.datasets.scene_shapes import Plane

LEAVES = 44


def background(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """A cluttered background, [size, size, 3] around [0, 1]: textured leaves, scribbles, rows of glyphs."""
    regions = _regions(rng, size)
    count = 256
    hues = rng.uniform(0, 1) + rng.uniform(-0.22, 0.22, count)
    saturations, values = rng.uniform(0.05, 0.38, count), rng.uniform(0.18, 0.85, count)
    palette = [colorsys.hsv_to_rgb(h % 1, s, v) for h, s, v in zip(hues, saturations, values, strict=True)]
    regions.putpalette([int(255 * c) for colour in palette for c in colour])
    canvas = np.asarray(regions.convert("RGB").reduce(2), np.float32) / np.float32(255)

    label = np.asarray(regions)[::2, ::2]
    kind = rng.integers(0, 5, count)[label]
    strength = rng.uniform(0.05, 0.3, count).astype(np.float32)[label]
    canvas += (np.choose(kind, _textures(rng, size)) * strength)[..., None]
    canvas += _natural_noise(rng, size) * np.float32(rng.uniform(0.04, 0.1))
    return canvas


def _regions(rng: np.random.Generator, size: int) -> Image.Image:
    """Dead leaves, scribbles and glyphs as a map of region numbers at twice the size."""
    side = 2 * size
    regions = Image.new("P", (side, side), 0)
    draw = ImageDraw.Draw(regions)
    for number in range(1, LEAVES + 1):
        radius = side * 0.5 * float(rng.uniform(0.1, 1)) ** 3 + 0.03 * side
        corners = int(rng.integers(3, 9))
        angles = (np.arange(corners) + rng.uniform(-0.4, 0.4, corners)) * 2 * np.pi / corners
        reach = radius * rng.uniform(0.45, 1, corners)
        x, y = rng.uniform(0, side, 2)
        outline = np.stack([x + np.cos(angles) * reach, y + np.sin(angles) * reach], 1)
        draw.polygon([tuple(p) for p in outline.tolist()], fill=number)
    number = LEAVES
    for _ in range(int(rng.integers(3, 9))):
        number += 1
        steps = rng.uniform(-0.09, 0.09, (8, 2)).cumsum(0) + rng.uniform(0, 1, 2)
        path = [tuple(p) for p in (steps * side).tolist()]
        draw.line(path, fill=number, width=int(rng.integers(2, 7)), joint="curve")
    for _ in range(int(rng.integers(1, 4))):
        number += 1
        _glyphs(rng, draw, side, number)
    return regions


def _glyphs(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int, number: int) -> None:
    """Lines of signs that look like writing and mean nothing."""
    height = side * float(rng.uniform(0.02, 0.045))
    left, top = rng.uniform(-0.1, 0.7, 2) * side
    for row in range(int(rng.integers(1, 5))):
        for column in range(int(rng.integers(4, 14))):
            points = rng.integers(0, 3, (4, 2)) * (0.3 * height, 0.5 * height)
            points += (left + column * 0.9 * height, top + row * 1.6 * height)
            draw.line([tuple(p) for p in points.tolist()], fill=number, width=max(2, int(height / 8)))


def _textures(rng: np.random.Generator, size: int) -> list[NDArray[np.float32]]:
    """Five textures in [-0.5, 0.5], [size, size] each, that regions choose from."""
    y, x = np.mgrid[:size, :size].astype(np.float32) * np.float32(256 / size)
    waves = []
    for _ in range(2):
        angle, period = rng.uniform(0, np.pi), rng.uniform(3.5, 9)
        phase = (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))) * np.float32(
            2 * np.pi / period
        )
        waves.append(np.sin(phase))
    coarse = rng.random((size // 2, size // 2), np.float32).repeat(2, 0).repeat(2, 1)
    blotches = rng.random((size // 4, size // 4), np.float32).repeat(4, 0).repeat(4, 1)
    fine = rng.random((size, size), np.float32)
    return [
        np.asarray(0.5 * waves[0]),
        np.asarray(0.5 * waves[0] * waves[1]),
        coarse - 0.5,
        np.asarray(0.5 * (blotches + fine) - 0.5),
        fine - 0.5,
    ]


def _natural_noise(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Colour noise whose amplitude falls as 1/f, [size, size, 3], mean 0, standard deviation about 1."""
    amplitude = _fall(size)
    phase = rng.random((2, *amplitude.shape), np.float32) * np.float32(2 * np.pi)
    spectrum = np.empty(phase.shape, np.complex64)
    spectrum.real, spectrum.imag = amplitude * np.cos(phase), amplitude * np.sin(phase)
    grey, chroma = np.fft.irfft2(spectrum, s=(size, size))
    chroma *= np.float32(0.4)
    return np.stack([grey + chroma, grey - np.float32(0.3) * chroma, grey - chroma], -1)


@lru_cache(maxsize=2)
def _fall(size: int) -> NDArray[np.float32]:
    """1/f on the half plane of a real picture's spectrum, scaled so that the picture has unit variance."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = np.inf
    amplitude = 1 / frequency
    weight = np.where((fx == 0) | (fx == 0.5), 1, 2)
    return (amplitude * size**2 / np.sqrt(np.sum(weight * amplitude**2))).astype(np.float32)


def skin(rng: np.random.Generator, right: Plane, down: Plane, radius: float) -> NDArray[np.float32]:
    """The unlit colour of an object, [h, w, 3]: two colours in stripes, dots, checks, noise or a gradient.

    right, down: offsets from its centre in pixels, [1, w] and [h, 1]
    """
    hue = rng.uniform(0, 1)
    first = colorsys.hsv_to_rgb(hue, rng.uniform(0.55, 1), rng.uniform(0.65, 1))
    second = colorsys.hsv_to_rgb(
        (hue + rng.uniform(-0.2, 0.2)) % 1, rng.uniform(0.2, 0.9), rng.uniform(0.35, 1)
    )
    angle, period = rng.uniform(0, np.pi), max(4.5, radius * rng.uniform(0.2, 0.45))
    rate = np.float32(2 * np.pi / period)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    s = (right * cos + down * sin) * rate
    t = (down * cos - right * sin) * rate
    kind = rng.integers(6)
    if kind == 0:
        mix = _crisp(np.sin(s))
    elif kind == 1:
        mix = _crisp(np.sin(s) + np.sin(t) - 0.6)
    elif kind == 2:
        mix = _crisp(np.sin(s) * np.sin(t) * 2)
    elif kind == 3:
        mix = rng.random(s.shape, np.float32)
    elif kind == 4:
        mix = np.clip(0.5 + s / (2 * rate * np.float32(radius)), 0, 1)
    else:
        mix = np.zeros_like(s)
    colours = np.array([first, second], np.float32)
    return colours[0] + mix[..., None] * (colours[1] - colours[0])


def _crisp(wave: NDArray[Any]) -> Plane:
    return np.clip(0.5 + 2.5 * wave, 0, 1)
