"""Which scores each task has, what they are called, and which of them curves are drawn of."""

from __future__ import annotations

from typing import NamedTuple

from taskpress.targets import Task


class Metric(NamedTuple):
    """A score, 0 ... 100.

    key:     in result files; `teacher_…` is against the recognizer's own labels, others against annotations
    heading: of its column in a table
    axis:    of a figure
    title:   of a figure
    """

    key: str
    heading: str
    axis: str
    title: str


def _pair(key: str, name: str) -> tuple[Metric, Metric]:
    return (
        Metric(key, name, name, f"{name} against the annotations"),
        Metric(
            f"teacher_{key}",
            f"teacher {name}",
            f"teacher {name}",
            f"{name} against what the recognizer sees uncompressed",
        ),
    )


COMPARED: dict[Task, tuple[Metric, ...]] = {
    Task.DETECTION: _pair("ap", "AP"),
    Task.INSTANCE_SEGMENTATION: (*_pair("mask_ap", "mask AP"), *_pair("ap", "box AP")),
    Task.SEGMENTATION: _pair("miou", "mIoU"),
    Task.CLASSIFICATION: _pair("top1", "top-1"),
}
"""What curves are drawn and BD-rates stated of."""

LISTED: dict[Task, tuple[Metric, ...]] = {
    **COMPARED,
    Task.DETECTION: (
        COMPARED[Task.DETECTION][0],
        Metric("ap50", "AP50", "AP50", "AP at IoU 0.5 against the annotations"),
        COMPARED[Task.DETECTION][1],
    ),
}
"""What tables of single operating points show."""
