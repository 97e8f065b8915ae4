"""Paints scenes: shaded objects and distractors over a cluttered background, with exact visible masks.

Only basic methods of one `np.random.Generator` are used, in a fixed order, so a seed names a picture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskpress.datasets.scene_background import background, skin
from taskpress.datasets.scene_shapes import CLASSES, Plane, Shape, distractor

SHAPES = tuple(CLASSES.values())
LEAST_VISIBLE = 0.5
"""Nothing is painted where it would leave less than this share of an earlier object in sight."""
RADII = (12.0, 66.0)
"""Smallest and largest radius of an object, in pixels of a 256-pixel picture."""


class Scene(NamedTuple):
    """A painted scene.

    image:  [S, S, 3] uint8
    labels: [n] class of each object, index into `CLASSES`
    owner:  [S, S] int16, the object seen at each pixel; -1 where there is none
    """

    image: NDArray[np.uint8]
    labels: list[int]
    owner: NDArray[np.int16]


class _Pose(NamedTuple):
    x: float
    y: float
    radius: float
    turn: float


def paint(rng: np.random.Generator, size: int) -> Scene:
    """Paints one scene of `size` by `size` pixels."""
    canvas = background(rng, size)
    owner = np.full((size, size), -1, np.int16)
    light = _light(rng)
    labels: list[int] = []
    areas: list[int] = []
    objects, others = int(rng.integers(2, 7)), int(rng.integers(1, 4))
    order = np.argsort(rng.random(objects + others))
    for turn in order:
        is_object = bool(turn < objects)
        label = int(rng.integers(len(SHAPES)))
        shape = SHAPES[label] if is_object else distractor(rng)
        for attempt in range(8):
            pose = _pose(rng, size, shrink=0.85**attempt)
            rows, columns, area = _extent(shape, pose, size)
            coverage = _coverage(shape, pose, *_grid(rows, columns, pose))
            covered = coverage > 0.5
            window = owner[rows, columns]
            if np.count_nonzero(covered) >= 0.6 * area and _leaves_enough(owner, window[covered], areas):
                _lay(canvas[rows, columns], coverage, shape, pose, light, rng, *_grid(rows, columns, pose))
                window[covered] = len(labels) if is_object else -1
                if is_object:
                    labels.append(label)
                    areas.append(area)
                break
    grain = np.float32(rng.uniform(0.04, 0.12))
    canvas += (rng.random((size, size, 3), np.float32) - 0.5) * grain
    return Scene((np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8), labels, owner)


def _light(rng: np.random.Generator) -> NDArray[np.float32]:
    """A unit vector towards the light: from the upper side of the picture, in front of it."""
    angle, slant = rng.uniform(-2.5, -0.6), rng.uniform(0.5, 0.9)
    return np.array([np.cos(angle) * slant, np.sin(angle) * slant, np.sqrt(1 - slant * slant)], np.float32)


def _pose(rng: np.random.Generator, size: int, shrink: float) -> _Pose:
    scale = size / 256
    wish = float(np.exp(rng.uniform(np.log(RADII[0]), np.log(RADII[1]))))
    radius = max(wish * shrink, RADII[0]) * scale
    x, y = rng.uniform(0.75 * radius, size - 0.75 * radius, 2)
    return _Pose(float(x), float(y), radius, float(rng.uniform(0, 2 * np.pi)))


def _grid(rows: slice, columns: slice, pose: _Pose) -> tuple[Plane, Plane]:
    down = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(pose.y)
    right = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(pose.x)
    return right, down


def _unit(pose: _Pose, right: Plane, down: Plane) -> tuple[Plane, Plane]:
    cos, sin = np.float32(np.cos(pose.turn) / pose.radius), np.float32(np.sin(pose.turn) / pose.radius)
    return right * cos + down * sin, down * cos - right * sin


def _extent(shape: Shape, pose: _Pose, size: int) -> tuple[slice, slice, int]:
    """The window that an object and its shadow touch, and the object's whole area in pixels."""
    pad = 1.4 * pose.radius + 2
    top, left = int(pose.y - pad), int(pose.x - pad)
    bottom, right = int(pose.y + pad) + 1, int(pose.x + pad) + 1
    whole = _coverage(shape, pose, *_grid(slice(top, bottom), slice(left, right), pose))
    window = slice(max(top, 0), min(bottom, size)), slice(max(left, 0), min(right, size))
    return *window, int(np.count_nonzero(whole > 0.5))


def _coverage(shape: Shape, pose: _Pose, right: Plane, down: Plane) -> Plane:
    """How much of each pixel the shape covers, from the distance of its centre to the outline."""
    return np.clip(0.5 - shape(*_unit(pose, right, down)).distance * np.float32(pose.radius), 0, 1)


def _leaves_enough(owner: NDArray[np.int16], lost: NDArray[np.int16], areas: list[int]) -> bool:
    count = len(areas) + 1
    seen = np.bincount(owner.ravel() + 1, minlength=count) - np.bincount(lost + 1, minlength=count)
    return bool(np.all(seen[1:] >= LEAST_VISIBLE * np.array(areas)))


def _lay(
    window: NDArray[np.float32],
    coverage: Plane,
    shape: Shape,
    pose: _Pose,
    light: NDArray[np.float32],
    rng: np.random.Generator,
    right: Plane,
    down: Plane,
) -> None:
    """Casts the shadow and paints the object, lit by Lambert's law with a gloss, into a window."""
    reach = np.float32(0.22 * pose.radius)
    umbra = shape(*_unit(pose, right + light[0] * reach, down + light[1] * reach)).distance
    shadow = np.clip(0.5 - 3.5 * umbra, 0, 1)
    window *= (1 - 0.55 * shadow * shadow * (3 - 2 * shadow))[..., None]

    surface = shape(*_unit(pose, right, down))
    slope_y, slope_x = np.gradient(np.asarray(surface.height * np.float32(pose.radius)))
    facing = (light[2] - slope_x * light[0] - slope_y * light[1]) / np.sqrt(1 + slope_x**2 + slope_y**2)
    facing = np.maximum(facing, 0)
    shade = (np.float32(0.3) + np.float32(0.8) * facing) * surface.tint
    gloss = np.float32(rng.uniform(0, 0.4)) * facing**16
    colour = skin(rng, right, down, pose.radius) * shade[..., None] + gloss[..., None]
    window += (colour - window) * coverage[..., None]
