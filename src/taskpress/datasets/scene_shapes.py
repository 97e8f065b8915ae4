"""The shapes in drawn scenes, as signed distances and height fields.

Every shape is a function of coordinates (u, v) in which it has a radius of about 1. Lengths in a `Surface`
are in the same unit. Distances are exact near the outline and bounds elsewhere, which is all that
antialiasing needs. They are built by folding and from half-planes (cf. I. Quilez, "2D distance functions").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]


class Surface(NamedTuple):
    """A shape on a grid of points.

    distance: [h, w] signed distance to the outline, negative inside
    height:   [h, w] relief towards the viewer, for shading
    tint:     [h, w] or scalar factor on the albedo
    """

    distance: Plane
    height: Plane
    tint: Plane | float = 1.0


Shape = Callable[[Plane, Plane], Surface]


def _bevel(distance: Plane, width: float, depth: float) -> Plane:
    """A rounded rim of the given width around a flat top."""
    inward = np.clip(1 + distance / width, 0, 1)
    return np.asarray(depth * np.sqrt(1 - inward * inward), np.float32)


def _dome(squared: Plane) -> Plane:
    return np.sqrt(np.maximum(squared, 0))


def _ellipse(u: Plane, v: Plane, a: float, b: float) -> Plane:
    return np.asarray((np.sqrt((u / a) ** 2 + (v / b) ** 2) - 1) * min(a, b), np.float32)


def ball(u: Plane, v: Plane) -> Surface:
    squared = u * u + v * v
    return Surface(np.sqrt(squared) - 1, _dome(1 - squared))


def cube(u: Plane, v: Plane) -> Surface:
    """A cube seen along its diagonal: a hexagon of three rhombic faces that slope from the near corner."""
    faces = [
        u * np.float32(np.cos(a)) + v * np.float32(np.sin(a))
        for a in np.pi / 2 + np.arange(3) * 2 * np.pi / 3
    ]
    near = np.maximum(np.maximum(faces[0], faces[1]), faces[2])
    edges = [np.abs(faces[i] - faces[i - 1]) for i in range(3)]
    outline = np.maximum(np.maximum(edges[0], edges[1]), edges[2]) / np.float32(np.sqrt(3))
    return Surface(outline - np.float32(np.sqrt(3) / 2), 1.1 * (1 - near))


def cone(u: Plane, v: Plane) -> Surface:
    side = (np.abs(u) * 1.7 - 0.75 * (v + 1)) / 1.858
    outline = np.minimum(np.maximum(side, v - 0.7), _ellipse(u, v - 0.7, 0.75, 0.25))
    half_width = 0.75 * (np.clip(v, -1, 0.7) + 1) / 1.7
    return Surface(outline, _dome(half_width * half_width - u * u))


def ring(u: Plane, v: Plane) -> Surface:
    across = np.sqrt(u * u + v * v) - 0.7
    return Surface(np.abs(across) - 0.28, _dome(0.28**2 - across * across))


def star(u: Plane, v: Plane) -> Surface:
    """Five points; each flank is a facet."""
    radius = np.sqrt(u * u + v * v)
    sector = np.float32(2 * np.pi / 5)
    angle = np.arctan2(v, u)
    angle = np.abs(angle - sector * np.round(angle / sector))
    distance = ((radius * np.cos(angle) - 1) * 0.247 + radius * np.sin(angle) * 0.66) / 0.705
    return Surface(distance, -0.9 * np.minimum(distance, 0))


def flower(u: Plane, v: Plane) -> Surface:
    radius = np.sqrt(u * u + v * v)
    petal = np.cos(6 * np.arctan2(v, u))
    distance = (radius - 0.76 - 0.23 * petal) * 0.75
    centre = radius - 0.26
    height = _bevel(distance, 0.3, 0.25) + _bevel(centre, 0.2, 0.2)
    return Surface(distance, height, np.where(centre < 0, np.float32(0.45), np.float32(1)))


def cross(u: Plane, v: Plane) -> Surface:
    u, v = np.abs(u), np.abs(v)
    distance = np.maximum(np.maximum(u, v) - 0.95, np.minimum(u, v) - 0.3)
    return Surface(distance, _bevel(distance, 0.14, 0.16))


def arrow(u: Plane, v: Plane) -> Surface:
    v = np.abs(v)
    head = np.maximum(((u - 1) * 0.72 + v * 0.9) / 1.153, 0.1 - u)
    shaft = np.maximum(np.maximum(v - 0.25, -1 - u), u - 0.2)
    distance = np.minimum(head, shaft)
    return Surface(distance, _bevel(distance, 0.14, 0.16))


def can(u: Plane, v: Plane) -> Surface:
    lid = _ellipse(u, v + 0.72, 0.6, 0.24)
    wall = np.maximum(np.abs(u) - 0.6, np.abs(v) - 0.72)
    outline = np.minimum(np.minimum(wall, lid), _ellipse(u, v - 0.72, 0.6, 0.24))
    height = np.where(lid < 0, np.float32(0.5), _dome(0.36 - u * u))
    return Surface(outline, height, np.where(lid < 0, np.float32(1.25), np.float32(0.95)))


def crescent(u: Plane, v: Plane) -> Surface:
    outer = np.sqrt(u * u + v * v) - 1
    bite = 0.8 - np.sqrt((u - 0.5) ** 2 + v * v)
    distance = np.maximum(outer, bite)
    return Surface(distance, _bevel(distance, 0.3, 0.28))


CLASSES: dict[str, Shape] = {
    "ball": ball,
    "cube": cube,
    "cone": cone,
    "ring": ring,
    "star": star,
    "flower": flower,
    "cross": cross,
    "arrow": arrow,
    "can": can,
    "crescent": crescent,
}
"""The ten classes, in the order of their labels."""


def distractor(rng: np.random.Generator) -> Shape:
    """A shape that belongs to no class: a lumpy blob, a shard or a stick."""
    kind = rng.integers(3)
    if kind == 0:
        lumps = rng.uniform(0.16, 0.32, 2)
        phases = rng.uniform(0, 2 * np.pi, 2)

        def blob(u: Plane, v: Plane) -> Surface:
            angle = np.arctan2(v, u)
            edge = 0.7 + lumps[0] * np.cos(2 * angle + phases[0]) + lumps[1] * np.cos(3 * angle + phases[1])
            distance = np.asarray((np.sqrt(u * u + v * v) - edge) * 0.7, np.float32)
            return Surface(distance, _bevel(distance, 0.35, 0.3))

        return blob
    if kind == 1:
        angles = (np.arange(4) + rng.uniform(-0.3, 0.3, 4)) * np.pi / 2
        reach = rng.uniform(0.3, 0.85, 4)

        def shard(u: Plane, v: Plane) -> Surface:
            sides = [u * c + v * s - r for c, s, r in zip(np.cos(angles), np.sin(angles), reach, strict=True)]
            distance = np.asarray(np.max(sides, axis=0), np.float32)
            return Surface(distance, -0.25 * np.minimum(distance, 0))

        return shard
    width = rng.uniform(0.08, 0.16)

    def stick(u: Plane, v: Plane) -> Surface:
        distance = np.asarray(np.maximum(np.abs(u) - 1, np.abs(v) - width), np.float32)
        return Surface(distance, _dome(np.asarray(width**2 - v * v, np.float32)))

    return stick
