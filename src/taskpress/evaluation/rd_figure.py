"""The figure of rate against accuracy, and the files of a comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from taskpress.coding.files import atomic_write
from taskpress.evaluation.comparison import Comparison
from taskpress.evaluation.curve_drawing import draw_curve, places, rate_axis, verbatim
from taskpress.evaluation.figures import new_figure, to_png
from taskpress.evaluation.metrics import Metric
from taskpress.evaluation.result import Result

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAR = 0.5
"""How far above all curves the uncompressed score is still drawn, in heights of what they span: further up it
would press them flat, and is written instead."""


def write_comparison(comparison: Comparison, folder: str | Path) -> tuple[Path, Path]:
    """Writes `comparison.json` and `rd.png` into a folder, whole or not at all; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    json_path, png_path = folder / "comparison.json", folder / "rd.png"
    picture = rd_figure(comparison)
    atomic_write(json_path, (json.dumps(comparison.as_json(), indent=1) + "\n").encode())
    atomic_write(png_path, picture)
    return json_path, png_path


def rd_figure(comparison: Comparison) -> bytes:
    """PNG with a panel per metric: accuracy over bits per pixel, a line per curve, uncompressed dashed.

    Of a curve with several seeds each one is drawn lightly and the means in full.
    """
    # The teacher's labels are the steadier measure on few pictures, so they come first.
    ordered = sorted(comparison.metrics, key=lambda metric: not metric.key.startswith("teacher_"))
    panels = [metric for metric in ordered if _rates(comparison.curves, metric)] or ordered[:1]
    figure = new_figure(5.6 * len(panels), 4.6)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, metric in zip(axes, panels, strict=True):
        _panel(ax, comparison, metric)
    entries = {
        label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    columns = len(entries) if len(entries) <= 6 else (len(entries) + 1) // 2
    _legend(figure, list(entries.values()), list(entries), columns)
    any_result = next(iter(comparison.curves.values()))[0]
    scaled = f", long side {any_result.resize}" if any_result.resize else ""
    title = (
        f"{any_result.images} pictures of {any_result.dataset}{scaled} · recognizer {any_result.recognizer}"
    )
    figure.suptitle(verbatim(title), fontsize=10)
    return to_png(figure)


def _legend(figure: Figure, handles: list[Artist], labels: list[str], columns: int) -> None:
    """Below the panels, in as many columns as fit the figure's width."""
    for count in range(columns, 0, -1):
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=count, frameon=False)
        if count == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def _panel(ax: Axes, comparison: Comparison, metric: Metric) -> None:
    learned = {name: results[0].learned for name, results in comparison.curves.items()}
    looks = places(name for name in learned if learned[name])
    looks |= {name: place for place, name in enumerate(name for name in learned if not learned[name])}
    for name, repeats in comparison.repeats.items():
        label = f"{name} (reference)" if name == comparison.anchor and len(comparison.curves) > 1 else name
        draw_curve(ax, looks[name], label, repeats, metric.key, learned[name])
    rate_axis(ax, _rates(comparison.curves, metric), "bits per pixel, real files")
    scores = [score for one in _all(comparison.curves) if (score := one.scores.get(metric.key)) is not None]
    limits = (result.uncompressed_scores.get(metric.key) for result in _all(comparison.curves))
    limit = next((score for score in limits if score is not None), None)
    if scores:
        lowest, highest = min(scores), max(scores)
        if limit is not None:
            if limit - highest <= FAR * (highest - lowest):
                ax.axhline(
                    limit, color="0.35", linestyle=(0, (5, 4)), linewidth=1, label="uncompressed", zorder=0
                )
                highest = max(highest, limit)
            else:
                note = f"↑ uncompressed {limit:.3g}"
                ax.text(0.01, 0.985, note, transform=ax.transAxes, va="top", color="0.35", fontsize=9)
        margin = max(1.0, 0.25 * (highest - lowest))
        ax.set_ylim(max(0.0, lowest - margin), highest + 0.2 * margin + 0.5)
    ax.set_title(metric.title, fontsize=10)
    ax.set_ylabel(metric.axis)


def _all(curves: dict[str, list[Result]]) -> list[Result]:
    return [result for results in curves.values() for result in results]


def _rates(curves: dict[str, list[Result]], metric: Metric) -> list[float]:
    return [result.bpp for result in _all(curves) if result.scores.get(metric.key) is not None]
