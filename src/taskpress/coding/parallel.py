"""Several things at once, on as many threads as torch may use."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Semaphore
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
    # What one thread sets is what threads begin with that come after it: so workers set theirs first, then
    # the process gets its own back, then work begins.
    ready, begin = Semaphore(0), Event()

    def one_thread() -> None:
        torch.set_num_threads(1)
        # Asked for the first time, a thread takes the process's number for its own: let that be this one.
        torch.get_num_threads()
        ready.release()
        begin.wait()

    # The pool ends first: a library of matrix products must not change its threads while one is at work.
    with single_blas_thread(), ThreadPoolExecutor(workers, initializer=one_thread) as pool:
        try:
            outcomes = pool.map(work, items)
            for _ in range(workers):
                ready.acquire()
            torch.set_num_threads(threads)
            begin.set()
            return list(outcomes)
        finally:
            # Where it is interrupted before: nobody waits for ever.
            begin.set()
