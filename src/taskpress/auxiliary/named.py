"""Auxiliary branches by the names used in presets."""

from __future__ import annotations

from collections.abc import Sequence

from taskpress.auxiliary.branch import AuxiliaryBranch, Heads, Learns
from taskpress.errors import ConfigError, suggestion
from taskpress.own_code import is_own
from taskpress.targets import Task

_WITH_BOXES = (Task.DETECTION, Task.INSTANCE_SEGMENTATION)
FITTING: dict[str, tuple[Task, ...]] = {
    "detection": _WITH_BOXES,
    "objectness": _WITH_BOXES,
    "foreground": _WITH_BOXES,
    "instance": (Task.INSTANCE_SEGMENTATION,),
    "segmentation": (Task.SEGMENTATION,),
    "classification": (Task.CLASSIFICATION,),
    "features": (*_WITH_BOXES, Task.SEGMENTATION),
    "heads": _WITH_BOXES,
}
"""Branches, and the tasks whose teachers say what they learn. A classifier cuts a picture before it looks."""


def check_auxiliary(kind: str, task: Task | None = None) -> None:
    """Raises ConfigError for an unknown kind, naming the nearest, and for one that learns nothing from the
    task's teachers. A user's own branch is not opened for it, and fits every task."""
    if is_own(kind):
        return
    if kind not in FITTING:
        known = [*FITTING, "python:FILE.py:CLASS"]
        raise ConfigError(f"no auxiliary branch is named '{kind}'; {suggestion(kind, known)}")
    if task is not None and task not in FITTING[kind]:
        fitting = " or ".join(f"`{name}`" for name, tasks in FITTING.items() if task in tasks)
        raise ConfigError(
            f"objective.auxiliary: a `{kind}` branch learns nothing from a recognizer of {task}; "
            f"choose {fitting}"
        )


def learns(kind: str) -> Learns:
    """What a branch of this kind learns from (`AuxiliaryBranch.learns`); ConfigError as `own_branch`."""
    if is_own(kind):
        from taskpress.auxiliary.own import own_branch

        found: Learns = own_branch(kind).cls.learns  # type: ignore[attr-defined]
        return found
    return "features" if kind == "features" else "heads" if kind == "heads" else "labels"


def build_auxiliary(
    kind: str,
    latent_channels: int,
    classes: int,
    stride: int = 16,
    width: int = 64,
    task: Task | None = None,
    layers: Sequence[int] = (),
    finer: Sequence[float] = (),
    heads: Heads | None = None,
) -> AuxiliaryBranch:
    """A branch with random initial weights (from torch's seed) on a latent of `latent_channels` channels.

    kind:    "detection" (classes and boxes), "objectness" (is an object's middle here), "foreground" (share
             of the cell inside objects), "instance" (classes, boxes and pixels of objects), "segmentation"
             (classes in the cell), "classification" (of the whole picture), "features" (the recognizer's
             layers), "heads" (these layers, and its loss by its own heads) or python:FILE.py:CLASS[:ARGUMENT]
    classes: K of the recognizer; "objectness" and "foreground" do not tell them apart
    stride:  pixels per cell of the latent
    width:   channels inside the branch
    task:    of the teacher, where the branch is to be trained
    layers:  channels of the recognizer's layers, for what learns them
    finer:   for "heads", how many positions of each layer lie beside each other in a cell
    heads:   for "heads", those of the recognizer

    Raises ConfigError as `check_auxiliary` and `own_branch` do, and for "heads" without any.
    """
    check_auxiliary(kind, task)
    if is_own(kind):
        from taskpress.auxiliary.own import build_own

        return build_own(kind, latent_channels, classes, stride, width, layers)
    match kind:
        case "objectness":
            from taskpress.auxiliary.objectness import ObjectnessBranch

            return ObjectnessBranch(latent_channels, stride, width)
        case "foreground":
            from taskpress.auxiliary.foreground import ForegroundBranch

            return ForegroundBranch(latent_channels, stride, width)
        case "instance":
            from taskpress.auxiliary.instance import InstanceBranch

            return InstanceBranch(latent_channels, classes, stride, width)
        case "segmentation":
            from taskpress.auxiliary.segmentation import SegmentationBranch

            return SegmentationBranch(latent_channels, classes, stride, width)
        case "classification":
            from taskpress.auxiliary.classification import ClassificationBranch

            return ClassificationBranch(latent_channels, classes, stride, width)
        case "features":
            from taskpress.auxiliary.features import FeaturesBranch

            return FeaturesBranch(latent_channels, layers, stride, width)
        case "heads":
            from taskpress.auxiliary.heads import HeadsBranch

            if heads is None:
                raise ConfigError("a `heads` branch needs the heads of a recognizer")
            return HeadsBranch(latent_channels, layers, finer, heads, stride, width)
        case _:
            from taskpress.auxiliary.detection import DetectionBranch

            return DetectionBranch(latent_channels, classes, stride, width)
