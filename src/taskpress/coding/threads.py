"""How many threads matrix products may use."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np  # noqa: F401 - its BLAS must be loaded to be found
import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def single_thread() -> Iterator[None]:
    """Runs torch's operators on one thread inside, and gives the calling thread its own setting back."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Runs numpy's matrix products on one thread inside, whatever the machine has.

    The setting is the whole process's: of several threads that are inside, the last to leave gives it back.
    """
    with _entering:
        if not _inside:
            _limits.append(_loaded_libraries().limit(limits=1, user_api="blas"))
        _inside.append(None)
    try:
        yield
    finally:
        with _entering:
            _inside.pop()
            if not _inside:
                _limits.pop().restore_original_limits()


_entering = threading.Lock()
_inside: list[None] = []
_limits: list[Any] = []


@cache
def _loaded_libraries() -> ThreadpoolController:
    # Looking through all loaded libraries takes a millisecond.
    return ThreadpoolController()
