"""The main job in small: a few scenes through every shipped codec, and the page a person opens."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from taskpress.coding.checkpoints import shipped_names
from taskpress.evaluation import demo
from taskpress.evaluation.report import headline
from taskpress.evaluation.result import Result


class Page(HTMLParser):
    """Collects what a browser would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.headings: list[str] = []
        self._in_heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_heading = tag in ("h1", "h2")
        self.sources += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        if self._in_heading and data.strip():
            self.headings.append(data.strip())


def test_demo_measures_every_shipped_codec_and_writes_a_page_that_needs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "ANCHORS", {"avif": (20, 45)})
    comparison = demo.run_demo(tmp_path, scenes=4, jobs=1)
    results = [Result.read(path) for path in sorted((tmp_path / "results").glob("*.json"))]
    learned = [name for name in shipped_names() if name.startswith("scenes-")]
    assert {r.codec for r in results} >= set(learned)
    assert all(r.images == 4 and r.bpp > 0 and r.ap is not None for r in results)
    assert {len(comparison.curves[arm]) for arm in ("task", "task+aux")} == {4}
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert written["anchor"] == "task" and "task+aux" in {row["curve"] for row in written["rows"]}
    page = Page()
    html = (tmp_path / "report.html").read_text()
    page.feed(html)
    assert page.headings[0] == headline(comparison)
    assert len(page.sources) >= 1 + 2 * len(demo.SHOWN)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not re.search(r"https?://", html)
    for name in learned:
        assert f">{name}<" in html
