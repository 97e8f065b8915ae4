"""Memory that was freed and that the C library holds on to."""

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Returns it to the system where the C library can (glibc), so that the next stage can have it.

    Worth its time for large pictures alone: what is needed again comes page by page.
    """
    if trim := _trim():
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
