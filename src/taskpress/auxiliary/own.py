"""A user's own auxiliary branch, by file and class."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from taskpress.auxiliary.branch import AuxiliaryBranch
from taskpress.errors import ConfigError
from taskpress.own_code import OwnCode, run_own


def own_branch(spec: str) -> OwnCode:
    """The branch's class that `python:FILE.py:CLASS[:ARGUMENT]` names; the file is run.

    Raises ConfigError, naming the file and what is amiss, for a file or class that is not there and for a
    class that is no `AuxiliaryBranch` or learns neither labels nor features.
    """
    code = run_own(spec, ConfigError)
    if not (inspect.isclass(code.cls) and issubclass(code.cls, AuxiliaryBranch)):
        raise ConfigError(
            f"{spec}: {code.name} is no class derived from taskpress.auxiliary.branch.AuxiliaryBranch"
        )
    if code.cls.learns not in ("labels", "features"):
        raise ConfigError(
            f"{spec}: {code.name}.learns is {code.cls.learns!r}; it must be 'labels' or 'features'"
        )
    return code


def build_own(
    spec: str, latent_channels: int, classes: int, stride: int, width: int, layers: Sequence[int]
) -> AuxiliaryBranch:
    """An instance: CLASS(latent_channels, classes, stride, width), with `layers` after them where it learns
    features, and the argument last, where there is one. ConfigError as `own_branch`, or where that fails."""
    code = own_branch(spec)
    further = [layers] if code.cls.learns == "features" else []  # type: ignore[attr-defined]
    branch: AuxiliaryBranch = code.make(latent_channels, classes, stride, width, *further)
    return branch
