"""The figure of bit allocation: the picture with its objects, and a map per codec on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from taskpress.evaluation.allocation import Allocation, area_in_boxes, bits_per_pixel, share_in_boxes
from taskpress.evaluation.curve_drawing import verbatim
from taskpress.evaluation.figures import new_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Drawn(NamedTuple):
    """A codec's panel: its title, the bits it spent, and the level map [h, w] of one that codes such."""

    title: str
    allocation: Allocation
    stride: int = 16
    levels: NDArray[np.int64] | None = None


def allocation_figure(image: NDArray[np.uint8], boxes: Tensor, panels: Sequence[Drawn]) -> bytes:
    """PNG: input with boxes, then bits per pixel over the picture, once per codec, with one colour bar.

    Where codecs code a map of quantization levels, it stands in a second row: the lighter, the finer.

    image: uint8 RGB [H, W, 3]; boxes: [n, 4] x0 y0 x1 y1 in its pixels, may be empty.
    """
    maps = [bits_per_pixel(panel.allocation, panel.stride) for panel in panels]
    # The few costliest cells would push all else into the dark.
    top = max(float(np.percentile(bits, 99.5)) for bits in maps) or 1.0
    height, width = image.shape[:2]
    panel_width = 3.4
    rows = 2 if any(panel.levels is not None for panel in panels) else 1
    figure = new_figure(panel_width * (1 + len(maps)) + 0.8, rows * (panel_width * height / width + 0.9))
    axes, *below = figure.subplots(rows, 1 + len(maps), squeeze=False)
    axes[0].imshow(image)
    axes[0].set_title("input", fontsize=10)
    if len(boxes):
        area = area_in_boxes(boxes, (height, width)) / (height * width)
        axes[0].set_xlabel(
            f"{len(boxes)} box{'es' * (len(boxes) > 1)}, {100 * area:.0f} % of the area", fontsize=9
        )
    drawn = None
    for ax, panel, bits in zip(axes[1:], panels, maps, strict=True):
        drawn = ax.imshow(bits, cmap="inferno", vmin=0, vmax=top, interpolation="nearest")
        ax.set_title(verbatim(panel.title), fontsize=10)
        ax.set_xlabel(_caption(panel, boxes), fontsize=9)
    for ax, colour in zip(axes, ["#00E5FF"] + ["white"] * len(maps), strict=True):
        _outline(ax, boxes, colour)
        ax.set_xticks([])
        ax.set_yticks([])
    if drawn is not None:
        over = "max" if max(float(bits.max()) for bits in maps) > top else "neither"
        figure.colorbar(drawn, ax=list(axes), label="bits per pixel", shrink=0.9, pad=0.01, extend=over)
    if below:
        finest = max(int(panel.levels.max()) for panel in panels if panel.levels is not None)
        below[0][0].set_axis_off()
        for ax, panel in zip(below[0][1:], panels, strict=True):
            _draw_levels(ax, panel, max(1, finest), boxes)
    return to_png(figure)


def _caption(panel: Drawn, boxes: Tensor) -> str:
    caption = f"{panel.allocation.bpp:.3f} bpp"
    if len(boxes):
        share = share_in_boxes(panel.allocation.cells, boxes, panel.allocation.size, panel.stride)
        caption += f", {100 * share:.0f} % of bits inside boxes"
    return caption


def _draw_levels(ax: Axes, panel: Drawn, finest: int, boxes: Tensor) -> None:
    if panel.levels is None:
        ax.set_axis_off()
        return
    height, width = panel.allocation.size
    spread = panel.levels.repeat(panel.stride, 0).repeat(panel.stride, 1)[:height, :width]
    drawn = ax.imshow(spread, cmap="cividis", vmin=0, vmax=finest, interpolation="nearest")
    ax.set_title("quantization levels, as coded", fontsize=10)
    ax.figure.colorbar(drawn, ax=ax, ticks=range(finest + 1), shrink=0.6, pad=0.01)
    _outline(ax, boxes, "white")
    ax.set_xticks([])
    ax.set_yticks([])


def _outline(ax: Axes, boxes: Tensor, colour: str) -> None:
    from matplotlib.patches import Rectangle

    for x0, y0, x1, y1 in boxes.tolist():
        ax.add_patch(
            Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.2)
        )
