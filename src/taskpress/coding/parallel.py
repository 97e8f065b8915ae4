"""Several things at once, on as many threads as torch may use."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from taskpress.coding.threads import single_blas_thread

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def in_parallel(work: Callable[[Item], Outcome], items: Sequence[Item]) -> list[Outcome]:
    """`work` of every item, in their order, each on one thread. The first error ends it, and is raised."""
    threads = torch.get_num_threads()
    workers = min(threads, len(items))
    if workers <= 1:
        return [work(item) for item in items]
    try:
        with (
            single_blas_thread(),
            ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
            return list(pool.map(work, items))
    finally:
        # What one thread sets is what threads begin with that come after it.
        torch.set_num_threads(threads)
