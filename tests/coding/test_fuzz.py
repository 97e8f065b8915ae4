"""Damaged files: an error that says so or the very picture, at once and in little memory; nothing else.

Mutations are seeded: bit flips, cuts, insertions, splices of two files, lies about sizes. Half of them get a
new checksum, as a forger would give them, so that everything behind it meets the lie too. Where such a file
still decodes no decoder can tell that it was altered; it must only do no harm: a picture of the size that it
claims, in the time and memory that a picture of that size takes.
"""

from __future__ import annotations

import mmap
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType

import google_crc32c
import numpy as np
import pytest

import taskpress
from taskpress.coding import bitstream
from taskpress.coding.allocation import AllocatorSettings
from taskpress.coding.codec import Codec
from taskpress.coding.grid import Grid
from taskpress.coding.level_map import split_section
from taskpress.errors import BitstreamError, CodecError

from .conftest import decisive, enlivened

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
HEADER = 12
SMALL = 256 * 256
# For a small picture; a larger one may take as much more as it is larger.
SLOWEST = 2.0
MOST_BYTES = 64 * 2**20
IN_TILES = " in tiles"
TILED = ["cheng2020-attention" + IN_TILES, "roi" + IN_TILES]
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CODECS: dict[str, Callable[[], Codec]] = {
    "cheng2020-attention": lambda: taskpress.load(GOLDEN / "cheng2020-attention.safetensors"),
    "mean-scale-hyperprior": lambda: enlivened("mean-scale-hyperprior"),
    "roi": lambda: decisive(enlivened("cheng2020-anchor"), AllocatorSettings("roi", 5, 16)),
    "semantic": lambda: decisive(enlivened("joint-autoregressive"), AllocatorSettings("semantic", 7, 16, 3)),
}


def resident(key: str) -> int:
    """Bytes of this process's memory, now (VmRSS) or at its peak (VmHWM)."""
    return 1024 * int(STATUS.read_text().split(f"{key}:")[1].split()[0])


@contextmanager
def limits(pixels: int, what: str) -> Iterator[None]:
    """Fails where what runs inside takes longer, or more memory, than a picture of so many pixels may.

    Time is the process's, as a busy machine proves nothing, but for a hang that does not even compute. Memory
    is measured where the kernel lets the peak be reset (Linux).
    """
    share = max(1.0, pixels / SMALL)

    def expired(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"{what} hangs")

    measured = RESET.exists()
    if measured:
        RESET.write_text("5")
    before = resident("VmRSS") if measured else 0
    former = signal.signal(signal.SIGALRM, expired)
    # Python code alone is interrupted; whatever else returns late is found to be late.
    signal.setitimer(signal.ITIMER_REAL, 10 * SLOWEST * share)
    started = time.process_time()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    spent = time.process_time() - started
    assert spent < SLOWEST * share, f"{what} took {spent:.1f} s"
    grown = resident("VmHWM") - before if measured else 0
    assert grown < MOST_BYTES * share, f"{what} took {grown / 2**20:.0f} MB"


def test_the_limits_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    if RESET.exists():
        # Mapped, as what malloc gives may be memory that an earlier test has freed and the process has kept.
        with pytest.raises(AssertionError, match=r"big took \d+ MB"), limits(1, "big"):
            mmap.mmap(-1, 2 * MOST_BYTES).write(bytes(2 * MOST_BYTES))
    monkeypatch.setattr(sys.modules[__name__], "SLOWEST", 0.02)
    started = time.process_time()
    with pytest.raises(AssertionError, match=r"slow took 0\.\d s"), limits(1, "slow"):
        while time.process_time() - started < 0.05:
            pass
    with pytest.raises(TimeoutError, match="endless hangs"), limits(1, "endless"):
        while True:
            pass


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


def resized(data: bytes, rng: np.random.Generator) -> bytes:
    """A file that claims another size, honest in all else."""
    header, payload = bitstream.unpack(data)
    width, height = (2.0 ** rng.uniform(0, 11, 2)).astype(int).tolist()
    return bitstream.pack(header.fingerprint, width, height, payload)


def remapped(data: bytes, rng: np.random.Generator) -> bytes:
    """A file whose level map is damaged, honest in all else."""
    header, payload = bitstream.unpack(data)
    section, rest = split_section(payload)
    damaged = bytearray(section)
    for _ in range(rng.integers(1, 4)):
        damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
    return bitstream.pack(header.fingerprint, header.width, header.height, bytes(damaged) + rest)


def relabelled(data: bytes, rng: np.random.Generator) -> bytes:
    """A file in tiles whose index, or size, is damaged under an honest checksum."""
    end = len(data) - bitstream.unpack(data)[0].payload - 4
    index = bytearray(data[:end])
    for _ in range(rng.integers(1, 4)):
        index[rng.integers(HEADER, end)] ^= 1 << int(rng.integers(8))
    return signed(bytes(index) + b"crc.") + data[end + 4 :]


def recut(data: bytes, rng: np.random.Generator) -> bytes:
    """A file in tiles that claims other ones, or has them in other places or damaged; honest in all else."""
    header, payloads = bitstream.unpack(data)
    parts = [bitstream.tile_payload(header, payloads, number) for number in range(len(header.tiles))]
    grid = Grid(header.width, header.height, header.side)
    match rng.integers(3):
        case 0:
            width, height = (2.0 ** rng.uniform(0, 11, 2)).astype(int).tolist()
            grid = Grid(width, height, 64 * int(rng.integers(1, 40)))
            parts = [parts[number % len(parts)] for number in range(len(grid))]
        case 1:
            parts = parts[::-1]
        case 2:
            part = mutated(parts[0], parts[1], rng)
            parts[0] = part[: len(part) // 4 * 4]
    return bitstream.pack_tiles(header.fingerprint, grid, parts)


@cache
def material(name: str) -> tuple[Codec, list[bytes], list[np.ndarray]]:
    """A codec, files of four small pictures, and what they decode to."""
    codec, tile = CODECS[name.removesuffix(IN_TILES)](), 64 if name.endswith(IN_TILES) else 0
    rng = np.random.default_rng(0)
    files = [codec.encode(rng.integers(0, 256, (48, 80, 3)).astype(np.uint8), tile) for _ in range(4)]
    return codec, files, [codec.decode(file, "numpy") for file in files]


def attack(name: str, count: int, seed: int) -> None:
    codec, files, pictures = material(name)
    rng = np.random.default_rng(seed)
    refused = 0
    for number in range(count):
        which = int(rng.integers(len(files)))
        forged = bool(rng.integers(2))
        if forged and name.endswith(IN_TILES):
            damaged = (relabelled if rng.integers(2) else recut)(files[which], rng)
        elif forged and rng.integers(4) == 0:
            damaged = resized(files[which], rng)
        elif forged and codec.allocator is not None and rng.integers(2):
            damaged = remapped(files[which], rng)
        else:
            damaged = mutated(files[which], files[which - 1], rng)
            damaged = signed(damaged) if forged and len(damaged) > 4 else damaged
        what = f"mutation {number} of seed {seed}"
        try:
            header = bitstream.read_header(damaged)
        except BitstreamError:
            header = None
        with limits(header.width * header.height if header else 1, what):
            try:
                found = codec.decode(damaged, "numpy")
            except BitstreamError as error:
                assert "\n" not in str(error)
                refused += 1
                continue
        assert header is not None and found.shape == (header.height, header.width, 3)
        unharmed = [np.array_equal(found, p) for f, p in zip(files, pictures, strict=True) if f == damaged]
        assert unharmed == [True] or (forged and not unharmed), f"{what} came back as another picture"
    assert refused > count // 2


@pytest.mark.parametrize("name", [*CODECS, *TILED])
def test_damaged_files_are_refused_or_whole(name: str) -> None:
    attack(name, 125, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CODECS, *TILED])
def test_twenty_thousand_damaged_files(name: str) -> None:
    attack(name, 5000, seed=2)


@pytest.mark.parametrize("name", ["mean-scale-hyperprior", "roi"])
def test_damaged_codecs_are_refused_or_load(name: str, tmp_path: Path) -> None:
    path = tmp_path / "codec.safetensors"
    material(name)[0].save(path, half=True)
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for number in range(75):
        # Half of the damage goes into the header, of which there is little beside the weights.
        head = int.from_bytes(whole[:8], "little") + 8
        cut = head if rng.integers(2) else len(whole)
        path.write_bytes(mutated(whole[:cut], whole, rng) + whole[cut:])
        with limits(1, f"mutation {number}"):
            try:
                taskpress.load(path)
            except CodecError as error:
                assert str(path) in str(error) and "\n" not in str(error)
                refused += 1
    assert refused > 25
