"""Auxiliary branches by the names used in presets."""

from __future__ import annotations

import difflib

from taskpress.auxiliary.branch import AuxiliaryBranch
from taskpress.coding.errors import ConfigError

KINDS = ("detection", "objectness", "foreground")


def build_auxiliary(
    kind: str, latent_channels: int, classes: int, stride: int = 16, width: int = 64
) -> AuxiliaryBranch:
    """A branch with random initial weights (from torch's seed) on a latent of `latent_channels` channels.

    kind:    "detection" (classes and boxes), "objectness" (is an object's middle here) or "foreground" (share
             of the cell inside objects)
    classes: K of the recognizer; only "detection" tells them apart
    stride:  pixels per cell of the latent
    width:   channels inside the branch

    Raises ConfigError for an unknown kind, naming the nearest.
    """
    if kind == "detection":
        from taskpress.auxiliary.detection import DetectionBranch

        return DetectionBranch(latent_channels, classes, stride, width)
    if kind == "objectness":
        from taskpress.auxiliary.objectness import ObjectnessBranch

        return ObjectnessBranch(latent_channels, stride, width)
    if kind == "foreground":
        from taskpress.auxiliary.foreground import ForegroundBranch

        return ForegroundBranch(latent_channels, stride, width)
    nearest = difflib.get_close_matches(kind.lower(), KINDS, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    raise ConfigError(f"no auxiliary branch is named '{kind}'; {hint}(known: {', '.join(KINDS)})")
