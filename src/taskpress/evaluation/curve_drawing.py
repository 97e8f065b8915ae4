"""How a curve over bits per pixel looks, in every figure alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, count
from typing import TYPE_CHECKING

from taskpress.evaluation.seeds import M, OperatingPoint, Repeats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, readable with any colour vision, with wine and brown in place of a second blue and
# of black; marker and dash repeat the distinction in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#882255", "#8B4513")
_GREYS = ("0.15", "0.35", "0.5", "0.6", "0.7")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":")
_OWN = {"task": 0, "task+aux": 1, "mse": 2, "roi": 3, "semantic": 4, "task, refined": 5}
"""Places in `COLOURS` of the curves that many figures show, so that each looks the same in all of them."""


def places(names: Iterable[str]) -> dict[str, int]:
    """A place in `COLOURS` for each curve, its own or the first that is free; from 7 on with another dash,
    and hollow marks."""
    names = list(names)
    found = {name: _OWN[name] for name in names if name in _OWN}
    free = (place for place in count() if place not in found.values())
    return {name: found[name] if name in found else next(free) for name in names}


def verbatim(text: str) -> str:
    """Text that a figure shows as it is: matplotlib would read what stands between dollar signs as TeX."""
    return text.replace("$", r"\$")


def draw_curve(
    ax: Axes, place: int, name: str, repeats: Repeats[M], metric: str, learned: bool = True
) -> None:
    """Draws scores over bits per pixel; of several seeds each one lightly and the means in full.

    place:   of the curve among the learned ones of the figure (`places`), or among the others: its look
    metric:  key of the scores
    learned: in colour; what these are measured by is drawn in grey
    """
    palette = COLOURS if learned else _GREYS
    colour, marker = palette[place % len(palette)], _MARKERS[place % len(_MARKERS)]
    around = place // len(palette) if learned else place
    hollow = learned and around % 2 == 1
    several = len(repeats.by_seed) > 1
    if several:
        for points in repeats.by_seed.values():
            ax.plot(*_columns(points, metric), color=colour, alpha=0.35, linewidth=0.7)
        ax.scatter(
            *_columns([*chain.from_iterable(repeats.by_seed.values())], metric),
            marker=marker,
            s=24,
            facecolors="none",
            edgecolors=colour,
            linewidths=0.9,
            alpha=0.55,
        )
    ax.plot(
        *_columns(repeats.points, metric),
        color=colour,
        marker=marker,
        linestyle=_DASHES[around % len(_DASHES)],
        linewidth=1.8 if learned and not several else 1.4,
        markersize=5.5,
        markerfacecolor="white" if hollow else colour,
        markeredgecolor=colour if hollow else "white",
        markeredgewidth=1.4 if hollow else 0.6,
        label=verbatim(f"{name}, mean of {len(repeats.by_seed)} seeds" if several else name),
    )


def rate_axis(ax: Axes, rates: Sequence[float], label: str) -> None:
    """The axes under `draw_curve`: rates logarithmic where they span more than a factor of three, from 0
    where they span more than one of 2, and close around them else."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    if rates and max(rates) > 3 * min(rates):
        ax.set_xscale("log")
        steps = [1, 2, 3, 5, 7] if max(rates) < 30 * min(rates) else [1, 2, 5]
        ax.xaxis.set_major_locator(LogLocator(subs=steps))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    elif rates and max(rates) > 2 * min(rates):
        ax.set_xlim(left=0)
    elif rates:
        margin = 0.25 * (max(rates) - min(rates)) or 0.1 * max(rates)
        ax.set_xlim(min(rates) - margin, max(rates) + margin)
    ax.set_xlabel(label)
    ax.grid(color="0.9", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _columns(points: Sequence[OperatingPoint[M]], metric: str) -> tuple[list[float], list[float]]:
    """Rates and scores of the points that have a score."""
    scored = [(point.bpp, score) for point in points if (score := point.score(metric)) is not None]
    return [rate for rate, _ in scored], [score for _, score in scored]
