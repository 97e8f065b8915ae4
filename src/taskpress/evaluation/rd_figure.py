"""The figure of rate against accuracy, and the files of a comparison."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from taskpress.coding.files import atomic_write
from taskpress.evaluation.compare import Comparison
from taskpress.evaluation.metrics import Metric
from taskpress.evaluation.result import Result
from taskpress.evaluation.seeds import OperatingPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, readable with any colour vision; marker and dash repeat the distinction in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":")


def write_comparison(comparison: Comparison, folder: Path) -> tuple[Path, Path]:
    """Writes `comparison.json` and `rd.png` into a folder, whole or not at all; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    json_path, png_path = folder / "comparison.json", folder / "rd.png"
    picture = rd_figure(comparison)
    atomic_write(json_path, (json.dumps(comparison.as_json(), indent=1) + "\n").encode())
    atomic_write(png_path, picture)
    return json_path, png_path


def rd_figure(comparison: Comparison) -> bytes:
    """PNG with a panel per metric: accuracy over bits per pixel, one line per curve, uncompressed dashed.

    Of a curve with several seeds each one is drawn lightly and the means in full.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The teacher's labels are the steadier measure on few pictures, so they come first.
    ordered = sorted(comparison.metrics, key=lambda metric: not metric.key.startswith("teacher_"))
    panels = [metric for metric in ordered if _points(comparison.curves, metric.key)] or ordered[:1]
    figure = Figure(figsize=(5.6 * len(panels), 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, metric in zip(axes, panels, strict=True):
        _panel(ax, comparison, metric)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
    any_result = next(iter(comparison.curves.values()))[0]
    scaled = f", long side {any_result.resize}" if any_result.resize else ""
    figure.suptitle(
        f"{any_result.images} pictures of {any_result.dataset}{scaled} · {any_result.recognizer}", fontsize=10
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _panel(ax: Axes, comparison: Comparison, metric: Metric) -> None:
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    rates = [rate for rate, _ in _points(comparison.curves, metric.key)]
    for index, (name, results) in enumerate(comparison.curves.items()):
        repeats = comparison.repeats[name]
        colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
        several = len(repeats.by_seed) > 1
        if several:
            for points in repeats.by_seed.values():
                ax.plot(*_line(points, metric), color=colour, alpha=0.35, linewidth=0.7, linestyle="-")
            seeds = _columns(_points({name: results}, metric.key))
            ax.scatter(
                *seeds, s=40, marker=marker, facecolors="none", edgecolors=colour, alpha=0.55, linewidths=0.9
            )
        label = f"{name}, mean of {len(repeats.by_seed)} seeds" if several else name
        anchor = name == comparison.anchor and len(comparison.curves) > 1
        ax.plot(
            *_line(repeats.points, metric),
            color=colour,
            marker=marker,
            linestyle=_DASHES[(index // len(_COLOURS)) % len(_DASHES)],
            linewidth=1.4 if several else 1.8,
            markersize=3.5 if several else 5.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            label=f"{label} (anchor)" if anchor else label,
        )
    limits = (result.uncompressed_scores.get(metric.key) for result in _all(comparison.curves))
    limit = next((score for score in limits if score is not None), None)
    if limit is not None:
        ax.axhline(limit, color="0.35", linestyle=(0, (5, 4)), linewidth=1, label="uncompressed", zorder=0)
    if rates and max(rates) > 6 * min(rates):
        ax.set_xscale("log")
        steps = [1, 2, 3, 5, 7] if max(rates) < 30 * min(rates) else [1, 2, 5]
        from matplotlib.ticker import LogLocator

        ax.xaxis.set_major_locator(LogLocator(subs=steps))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    elif rates:
        ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    ax.set_title(metric.title, fontsize=10)
    ax.set_xlabel("bits per pixel, real files")
    ax.set_ylabel(metric.axis)
    ax.grid(color="0.9", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _all(curves: dict[str, list[Result]]) -> list[Result]:
    return [result for results in curves.values() for result in results]


def _line(points: Sequence[OperatingPoint], metric: Metric) -> tuple[list[float], list[float]]:
    """Rates and scores of the points that have a score; means where seeds are several."""
    scored = [(point.bpp.mean, score.mean) for point in points if (score := point.score(metric.key))]
    return _columns(scored)


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [first for first, _ in pairs], [second for _, second in pairs]


def _points(curves: dict[str, list[Result]], metric: str) -> Sequence[tuple[float, float]]:
    return [(r.bpp, score) for r in _all(curves) if (score := r.scores.get(metric)) is not None]
