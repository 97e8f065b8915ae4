"""What a package exports, imported when it is asked for.

torch takes seconds to import, and measuring takes packages that coding does without.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def exporting(package: str, **modules: str) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562): each name is that of the named module within it."""

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get
