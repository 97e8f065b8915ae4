"""Progress on standard error, for whatever takes more than a moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def tracked(items: Sequence[Item], title: str | None) -> Iterable[Item]:
    """The items as they are, under a bar of that title; without one, no bar."""
    if title is None:
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, title, total=len(items), console=Console(stderr=True), transient=True)
