"""What the C library does with memory that is given back to it."""

import ctypes
import sys

# From glibc's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
LIMIT = 2**30


def keep_freed_memory() -> bool:
    """From now on, memory that tensors free is kept for the next ones, in the whole process.

    glibc returns blocks of more than 32 MB to the system at once, and gets the next one page by page, filled
    with zeros: with large pictures that takes a quarter of a transform's time. To be called by a program
    before it starts threads, not by a library. False where there is no glibc, and nothing changes.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # One arena: those of other threads hold no large blocks, whatever the threshold.
    return all(
        mallopt(ctypes.c_int(option), ctypes.c_int(value))
        for option, value in ((MMAP_THRESHOLD, LIMIT), (TRIM_THRESHOLD, LIMIT), (ARENA_MAX, 1))
    )
