"""How many cores there are, and how many threads matrix products may use."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np  # noqa: F401 - its BLAS must be loaded to be found
import torch
from threadpoolctl import ThreadpoolController


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


class _SharedLimit:
    """A setting of the whole process: of several threads that are inside, the last to leave gives it back."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.limit: Any = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if not self.inside:
                self.limit = _loaded_libraries().limit(limits=1, user_api="blas")
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    self.limit.restore_original_limits()


single_blas_thread = _SharedLimit()
"""A context that runs numpy's matrix products on one thread inside, whatever the machine has."""


@cache
def _loaded_libraries() -> ThreadpoolController:
    # Looking through all loaded libraries takes a millisecond.
    return ThreadpoolController()
