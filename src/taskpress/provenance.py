"""What is written beside every result: the command that made it, and versions of what it depends on."""

from __future__ import annotations

import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path

from taskpress.version import __version__

_PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "constriction",
    "faster-coco-eval",
    "onnx2torch",
    "imagecodecs",
    "pillow-heif",
)


def command_line() -> str:
    """How this process was called, as one could paste it into a shell."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"taskpress": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
