from __future__ import annotations

import platform
import resource
from pathlib import Path

import numpy as np
import pytest

from taskpress.coding import memory, picture_coding
from taskpress.coding.codec import Codec


def resident() -> int:
    """Bytes, by the kernel's count."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries give memory back as they like"
)
def test_freed_memory_goes_back_to_the_system() -> None:
    # Small enough to come from the heap, whose end the last one holds.
    blocks = [np.ones(100_000, np.uint8) for _ in range(1000)]
    full = resident()
    del blocks[:-1]
    memory.give_back()
    assert full - resident() > 50e6


def test_only_large_pictures_are_worth_it(lively, picture, monkeypatch: pytest.MonkeyPatch) -> None:
    codec: Codec = lively("mean-scale-hyperprior")
    array = picture(128, 192)
    called: list[int] = []
    monkeypatch.setattr(picture_coding, "give_back", lambda: called.append(1))
    data = codec.encode(array)
    codec.decode(data)
    assert not called
    monkeypatch.setattr(picture_coding, "UNTILED_PIXELS", 128 * 192 - 1)
    assert len(codec.encode(array)) > 0
    codec.decode(data)
    assert len(called) == 3
