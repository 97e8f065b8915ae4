"""The demo's one self-contained page: no script, no font and no picture from elsewhere."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, select_autoescape

from taskpress.evaluation.comparison import Comparison
from taskpress.evaluation.shares import Share


@dataclass(frozen=True)
class Picture:
    """A figure of the report: PNG bytes and what it shows."""

    title: str
    png: bytes
    caption: str

    @property
    def source(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def render_report(
    comparison: Comparison,
    curve_figure: Picture,
    allocations: Sequence[Picture],
    decoded: Sequence[Picture],
    shares: Sequence[Share],
    seconds: float,
    command: str,
) -> str:
    """HTML of the whole experiment: headline, curves, BD-rates, all operating points, where the bits go."""
    environment = Environment(
        loader=PackageLoader("taskpress.evaluation", "."), autoescape=select_autoescape()
    )
    environment.filters["number"] = _number
    first = next(iter(comparison.curves.values()))[0]
    return environment.get_template("report.html.jinja").render(
        comparison=comparison,
        first=first,
        curve_figure=curve_figure,
        allocations=allocations,
        decoded=decoded,
        shares=shares,
        headline=headline(comparison),
        seconds=seconds,
        command=command,
    )


def headline(comparison: Comparison) -> str:
    """The finding in one sentence, whichever way it came out."""
    outcome = comparison.bd_rates.get("task+aux", {}).get("teacher_ap")
    if comparison.anchor != "task" or outcome is None:
        return f"Curves against {comparison.anchor}"
    if outcome.value is None:
        return f"With and without the auxiliary loss cannot be compared: {outcome.reason}"
    low, high = outcome.overlap or (math.nan, math.nan)
    spread = comparison.intervals.get("task+aux", {}).get("teacher_ap")
    sure = "" if spread is None else f" [{spread.low:+.1f}, {spread.high:+.1f}]"
    rate = f"BD-rate {outcome.value:+.1f} %{sure} over a teacher AP of {low:.0f} to {high:.0f}"
    figures = f"({rate}; one training each)"
    if spread is not None and spread.low <= 0 <= spread.high:
        return f"With and without the auxiliary loss: no difference beyond noise {figures}"
    word = "saves" if outcome.value < 0 else "costs"
    return f"At equal accuracy the auxiliary loss {word} {abs(outcome.value):.1f} % of the bits {figures}"


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"
