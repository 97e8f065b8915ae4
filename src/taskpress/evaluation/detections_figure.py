"""The figure of detections: pictures side by side, each with what somebody found in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_iou

from taskpress.detections import Category, Detections
from taskpress.evaluation.figures import new_figure, to_png

RIGHT, WRONG = "#00E5FF", "#FF6A3D"
PANEL = 3.6
"""Inches."""


class Found(NamedTuple):
    """A panel: its title, a picture, uint8 RGB [H, W, 3], and boxes in its pixels.

    right: [n] bool, boxes that are not are drawn in orange; None where nobody judges
    """

    title: str
    image: NDArray[np.uint8]
    objects: Detections
    right: Tensor | None = None


def judged(title: str, image: NDArray[np.uint8], found: Detections, labels: Detections) -> Found:
    """A panel whose boxes are right where a label of the same class covers them by half (IoU ≥ 0.5)."""
    found, labels = found.to("cpu"), labels.to("cpu")
    same = found.labels[:, None] == labels.labels[None]
    return Found(title, image, found, ((box_iou(found.boxes, labels.boxes) >= 0.5) & same).any(1))


def detections_figure(rows: Sequence[Sequence[Found]], categories: Sequence[Category]) -> bytes:
    """PNG: rows of equally many panels with their boxes, each with its category and score."""
    from matplotlib.patches import Rectangle

    heights = [PANEL * row[0].image.shape[0] / row[0].image.shape[1] + 0.3 for row in rows]
    figure = new_figure(PANEL * len(rows[0]), sum(heights), dpi=120)
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False, height_ratios=heights)
    for axes, row in zip(grid, rows, strict=True):
        for ax, (title, image, objects, right) in zip(axes, row, strict=True):
            ax.imshow(image)
            ax.set_title(title, fontsize=10)
            ax.set_axis_off()
            held = torch.ones(len(objects), dtype=torch.bool) if right is None else right
            # The best last, so that it lies on top.
            for index in objects.scores.argsort().tolist():
                x0, y0, x1, y1 = objects.boxes[index].tolist()
                colour = RIGHT if held[index] else WRONG
                ax.add_patch(
                    Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.5)
                )
                ax.text(
                    x0,
                    y0,
                    f"{categories[int(objects.labels[index])].name} {objects.scores[index]:.2f}",
                    fontsize=7,
                    # At the upper edge, a label above its box would cover the title.
                    va="bottom" if y0 > 0.06 * image.shape[0] else "top",
                    bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
                )
    if any(panel.right is not None for row in rows for panel in row):
        figure.supxlabel("blue: class and place (IoU ≥ 0.5) of a label; orange: not", fontsize=9)
    return to_png(figure)
