"""How many threads matrix products may use."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache

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


def single_blas_thread() -> AbstractContextManager[object]:
    """Runs numpy's matrix products on one thread inside, whatever the machine has."""
    return _loaded_libraries().limit(limits=1, user_api="blas")


@cache
def _loaded_libraries() -> ThreadpoolController:
    # Looking through all loaded libraries takes a millisecond.
    return ThreadpoolController()
