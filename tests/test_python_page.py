"""docs/python.md does what it says, block by block in one namespace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from taskpress.evaluation import Result

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 6
    names: dict[str, Any] = {}
    threads = torch.get_num_threads()
    try:
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "torch.Size([2, 3, 128, 192])" in printed and "torch.Size([2, 8, 12])" in printed
    assert "truncated" in printed or "damaged" in printed
    assert [result.codec for result in names["results"]] == [
        "avif-q10",
        "avif-q30",
        "scenes-task-q1",
        "scenes-task-q2",
    ]
    assert Result.read(tmp_path / "avif-q10.json").bpp == names["results"][0].bpp
    assert [path.name for path in names["codecs"]] == [
        "quick-start.safetensors",
        "quick-task-q1.safetensors",
        "quick-aux-q1.safetensors",
    ]
    assert names["seen"].shape == (3, 312, 416) and names["factor"] == pytest.approx(640 / 416)
    # The loop's losses reach every weight of codec and branch, and of the branch nothing is in the file.
    assert all(weight.grad is not None for weight in names["codec"].model.parameters())
    assert all(weight.grad is not None for weight in names["branch"].parameters())
    with safe_open(tmp_path / "mine.safetensors", "pt") as file:
        stored = set(file.keys())
    assert stored == set(names["codec"].model.state_dict())
