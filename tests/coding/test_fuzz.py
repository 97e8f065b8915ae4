"""Damaged files: an error that says so or the very picture, at once and in little memory; nothing else.

Mutations are seeded: bit flips, cuts, insertions, splices of two files, lies about sizes. Half of them get a
new checksum, as a forger would give them, so that everything behind it meets the lie too. Where such a file
still decodes no decoder can tell that it was altered; it must only do no harm.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

import taskpress
from taskpress.coding.errors import BitstreamError, CodecError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SLOWEST = 2.0
MOST_KILOBYTES = 64 * 1024
HEADER = 12


def mutated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A file with one to three kinds of damage."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if not out:
            break
        at = int(rng.integers(len(out)))
        match rng.integers(6):
            case 0:
                out[at] ^= 1 << int(rng.integers(8))
            case 1:
                del out[at:]
            case 2:
                out[at:at] = rng.bytes(int(rng.integers(1, 9)))
            case 3:
                out[at:] = other[int(rng.integers(len(other))) :]
            case 4:
                # The varints of width, height and length lie right behind the fingerprint.
                place = min(HEADER + int(rng.integers(6)), len(out) - 1)
                out[place] = int(rng.integers(256))
            case 5:
                del out[at : at + int(rng.integers(1, 9))]
    return bytes(out)


def signed(data: bytes) -> bytes:
    body = data[:-4]
    return body + google_crc32c.value(body).to_bytes(4, "little")


def attack(count: int, seed: int) -> None:
    codec = taskpress.load(GOLDEN / "cheng2020-attention.safetensors")
    rng = np.random.default_rng(seed)
    files = [codec.encode(rng.integers(0, 256, (48, 80, 3)).astype(np.uint8)) for _ in range(4)]
    pictures = [codec.decode(file, "numpy") for file in files]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for number in range(count):
        which = int(rng.integers(len(files)))
        damaged = mutated(files[which], files[which - 1], rng)
        forged = bool(rng.integers(2)) and len(damaged) > 4
        damaged = signed(damaged) if forged else damaged
        started = time.perf_counter()
        try:
            found = codec.decode(damaged, "numpy")
        except BitstreamError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            unharmed = any(
                damaged == file and np.array_equal(found, picture)
                for file, picture in zip(files, pictures, strict=True)
            )
            assert forged or unharmed, f"mutation {number} of seed {seed} came back as another picture"
            assert found.dtype == np.uint8 and found.ndim == 3
        spent = time.perf_counter() - started
        assert spent < SLOWEST, f"mutation {number} of seed {seed} took {spent:.1f} s"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MOST_KILOBYTES, f"memory grew by {grown} kB"
    assert refused > count // 2


def test_damaged_files_are_refused_or_whole() -> None:
    attack(500, seed=1)


@pytest.mark.slow
def test_twenty_thousand_damaged_files() -> None:
    attack(20_000, seed=2)


def test_damaged_codecs_are_refused_or_load(tmp_path: Path) -> None:
    whole = (GOLDEN / "mean-scale-hyperprior.safetensors").read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(150):
        path = tmp_path / "codec.safetensors"
        # Half of the damage goes into the header, of which there is little beside the weights.
        head = int.from_bytes(whole[:8], "little") + 8
        cut = head if rng.integers(2) else len(whole)
        path.write_bytes(mutated(whole[:cut], whole, rng) + whole[cut:])
        try:
            taskpress.load(path)
        except CodecError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 50
