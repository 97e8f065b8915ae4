"""`make results`: what docs/ shows is what docs/results holds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_figure_comes_from_the_stored_results(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("redraw", DOCS / "redraw.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    # The figures that take a recognizer and codecs; what draws them has its own tests.
    script._allocation = (DOCS / "figures" / "scenes-allocation.png").read_bytes
    script._refined = (DOCS / "figures" / "scenes-refined.png").read_bytes
    written = script.redraw(DOCS / "results", tmp_path, bootstrap=0)
    figures = {path.name for path in written if path.suffix == ".png"}
    stored = {path.name for path in (DOCS / "figures").iterdir()}
    # What shows pictures of a data set, or comes from a training's checkpoint, cannot be drawn from results.
    assert figures <= stored, "run `make results`"
    pages = "".join(path.read_text() for path in [*DOCS.glob("*.md"), DOCS.parent / "README.md"])
    assert {name for name in stored if f"figures/{name}" not in pages} == set()
    for name in figures:
        assert Image.open(tmp_path / "figures" / name).size == Image.open(DOCS / "figures" / name).size
    tables = {path.name for path in written if path.suffix != ".png"}
    for name in tables:
        ours, kept = ((folder / "results" / name).read_text() for folder in (tmp_path, DOCS))
        if name.endswith(".md"):
            assert ours == kept, f"{name} is not of these results: run `make results`"
            continue
        rates = [{row["curve"]: row["bd_rate"] for row in json.loads(text)["rows"]} for text in (ours, kept)]
        assert rates[0].keys() == rates[1].keys()
        for curve, by_metric in rates[0].items():
            assert by_metric == pytest.approx(rates[1][curve], nan_ok=True), f"{name}: run `make results`"
