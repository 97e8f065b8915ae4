"""Large pictures: what a pixel costs at every size, memory, what tiles cost in bits, where margins end.

    python benchmarks/tiles.py speed   --channels 128 --threads 1 -o speed.json
    python benchmarks/tiles.py memory  --channels 128 --size 12000x8400 --threads 2 -o memory.json
    python benchmarks/tiles.py bits    --channels 128 --images $TASKPRESS_DATA/coco/val2017 -o bits.json
    python benchmarks/tiles.py margins --channels 128 --images $TASKPRESS_DATA/coco/val2017 -o margins.json

Codecs are those of benchmarks/coding.py (random weights, scaled so that latents spread; needs CompressAI)
with N = --channels, or --codec NAME. Pictures are its noise, or mosaics of --images.

speed    seconds per megapixel, of processor time and by the clock, and how many times those of a 256×256
         picture, which is measured before each: medians. `strips` is encode and decode as they are; `one
         pass` does the same with one call of g_a and one of g_s over the whole picture.
memory   peak resident memory of `taskpress encode`, `decode` and `decode --region` of one picture, each in a
         process of its own; start_gb: of one that only loads the codec
bits     files in tiles against files in one piece, of a mosaic, and how far from the picture they decode,
         near the borders of tiles and everywhere
margins  g_a and g_s over a 256×256 window of a picture and a margin, against those over the whole picture
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coding import contenders, picture

from taskpress.coding.codec import Codec
from taskpress.coding.files import atomic_write
from taskpress.coding.grid import Box
from taskpress.coding.images import to_array, to_tensor
from taskpress.coding.picture_files import read_image, write_image

Report = dict[str, Any]


def open_codec(given: argparse.Namespace) -> Codec:
    return Codec.load(given.codec) if given.codec else contenders(given.channels)[0]


def noise(width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3]: a patch of noise and its mirror images, side by side."""
    patch = to_array(picture(min(width, 2048), min(height, 2048))[0])
    patch = np.concatenate((patch, patch[::-1]), 0)
    patch = np.concatenate((patch, patch[:, ::-1]), 1)
    repeats = (-(-height // patch.shape[0]), -(-width // patch.shape[1]), 1)
    return np.ascontiguousarray(np.tile(patch, repeats)[:height, :width])


def mosaic(folder: Path, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3]: the folder's pictures in rows, each as it is, the last of a row cut."""
    canvas = np.zeros((height, width, 3), np.uint8)
    paths = iter(sorted(folder.rglob("*.jpg")) * 100)
    top = 0
    while top < height:
        left, tall = 0, 480
        while left < width:
            array = read_image(next(paths))
            if array.shape[0] < tall:
                continue
            part = array[: min(tall, height - top), : width - left]
            canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
            left += part.shape[1]
        top += tall
    return canvas


def clock(run: Callable[[], Any]) -> tuple[np.ndarray, Any]:
    """(seconds of processor time and of the clock, the outcome)."""
    start = np.array((time.process_time(), time.perf_counter()))
    result = run()
    return np.array((time.process_time(), time.perf_counter())) - start, result


def speed(given: argparse.Namespace) -> list[Report]:
    codec = open_codec(given)
    model, coder = codec.model, codec._freeze().coder

    def untiled_encode(array: np.ndarray) -> bytes:
        with torch.inference_mode():
            y = model.g_a(to_tensor(array)[None])
            return coder.encode(coder.quantize(y[0], model.h_a(y)[0]))

    def untiled_decode(payload: bytes, height: int, width: int) -> np.ndarray:
        with torch.inference_mode():
            return to_array(model.g_s(coder.decode(payload, height // 16, width // 16)[None])[0])

    def both(
        name: str, spent: dict[str, list[np.ndarray]], array: np.ndarray, *ways: Callable[..., Any]
    ) -> None:
        data: tuple[Any, ...] = (array,)
        for way, run in zip(("encode", "decode"), ways, strict=True):
            seconds, outcome = clock(lambda r=run, d=data: r(*d))
            spent.setdefault(f"{name} {way}", []).append(seconds / (array.shape[0] * array.shape[1] / 1e6))
            data = (outcome,)

    def encode(array: np.ndarray) -> bytes:
        return codec.encode(array, given.tile)

    def decode(data: bytes) -> np.ndarray:
        return codec.decode(data, "numpy")

    small = noise(256, 256)
    decode(encode(small))
    entries = []
    for size in given.sizes:
        width, height = (int(side) for side in size.split("x"))
        array = noise(width, height)
        whole = noise(-(-width // 64) * 64, -(-height // 64) * 64)
        spent: dict[str, list[np.ndarray]] = {}
        for _ in range(given.repeats):
            for _ in range(4):
                both("256", spent, small, encode, decode)
            both("strips", spent, array, encode, decode)
            if width * height <= given.untiled:
                size_of = whole.shape[:2]
                both("one pass", spent, whole, untiled_encode, lambda p, s=size_of: untiled_decode(p, *s))
        entry: Report = {"size": size}
        for i, kind in enumerate(("processor", "clock")):
            found = {name: statistics.median(v[i] for v in values) for name, values in spent.items()}
            entry[kind] = {
                name: [value, value / found[f"256 {name.split()[-1]}"]] for name, value in found.items()
            }
        entries.append(entry)
        for kind in ("processor", "clock"):
            cells = (f"{name} {value:.3f} s/MP ×{ratio:.3f}" for name, (value, ratio) in entry[kind].items())
            print(f"{size} {kind}: {'; '.join(cells)}", flush=True)
    return entries


# A process begins with the peak of the one it was forked from, so a small one has to be in between.
MEASURED = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "taskpress.cli.app", *sys.argv[1:]], check=True, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def command(*arguments: str | Path) -> tuple[float, float]:
    """(peak resident memory in GB, seconds) of `taskpress` in a process of its own."""
    start = time.perf_counter()
    run = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    kilobytes = int(subprocess.run(run, check=True, stdout=subprocess.PIPE).stdout)
    return kilobytes * 1024 / 1e9, time.perf_counter() - start


def memory(given: argparse.Namespace) -> list[Report]:
    entries = []
    tile = () if given.tile is None else ("--tile", str(given.tile))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        codec = folder / "codec.safetensors"
        open_codec(given).save(codec)
        for size in given.sizes:
            width, height = (int(side) for side in size.split("x"))
            write_image(folder / "picture.png", noise(width, height))
            coded, decoded = folder / "picture.tpc", folder / "decoded"
            entry: Report = {"size": size, "start_gb": command("info", codec)[0]}
            entry["encode_gb"], entry["encode_s"] = command(
                "encode", codec, folder / "picture.png", "-o", folder, *tile
            )
            entry["bytes"] = coded.stat().st_size
            print(entry, flush=True)
            entry["decode_gb"], entry["decode_s"] = command("decode", coded, "--codec", codec, "-o", decoded)
            region = f"{width // 2},{height // 2},{width // 2 + 512},{height // 2 + 512}"
            options = ("--codec", codec, "--region", region, "-o", decoded)
            entry["region_gb"], entry["region_s"] = command("decode", coded, *options)
            entries.append(entry)
            print(entry, flush=True)
    return entries


def psnr(error: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean(error.astype(float) ** 2)))


def bits(given: argparse.Namespace) -> list[Report]:
    codec = open_codec(given)
    entries = []
    for size in given.sizes:
        width, height = (int(side) for side in size.split("x"))
        array = mosaic(given.images, width, height) if given.images else noise(width, height)
        whole = codec.encode(array, 0)
        untiled = codec.decode(whole, "numpy").astype(int)
        for side in (2048, 1536, 1024, 512, 256, 128, 64):
            data = codec.encode(array, side)
            decoded = codec.decode(data, "numpy").astype(int)
            # Within 16 pixels of a border between tiles.
            rows, columns = ((np.arange(length) + 16) % side < 32 for length in (height, width))
            rows[:16] = rows[-16:] = columns[:16] = columns[-16:] = False
            near = rows[:, None] | columns[None]
            entry = {
                "size": size,
                "side": side,
                "untiled_bpp": 8 * len(whole) / (width * height),
                "more_bits_percent": 100 * (len(data) / len(whole) - 1),
                "psnr": psnr(decoded - array),
                "untiled_psnr": psnr(untiled - array),
                "psnr_near_borders": psnr((decoded - array)[near]),
                "untiled_psnr_near_borders": psnr((untiled - array)[near]),
                "mean_difference": float(np.abs(decoded - untiled).mean()),
            }
            entries.append(entry)
            print({name: round(v, 4) if isinstance(v, float) else v for name, v in entry.items()}, flush=True)
    return entries


@torch.inference_mode()
def margins(given: argparse.Namespace) -> list[Report]:
    """Of a window in the middle of 768×768 pixels."""
    codec = open_codec(given)
    model, coder = codec.model, codec._freeze().coder
    array = mosaic(given.images, 768, 768) if given.images else noise(768, 768)
    y = model.g_a(to_tensor(array)[None])
    y_hat = coder.quantize(y[0], model.h_a(y)[0]).y_hat[None]
    x_hat = model.g_s(y_hat)
    entries = []
    for margin in range(0, 192, 16):
        wide = Box(256, 256, 512, 512).grown(margin)
        inside = Box(margin, margin, 256 + margin, 256 + margin)
        part = model.g_a(to_tensor(array[wide.slices()])[None])[(..., *inside.slices(16))]
        difference = (part - y[..., 16:32, 16:32]).abs()
        pixels = model.g_s(y_hat[(..., *wide.slices(16))])[(..., *inside.slices())]
        error = 255 * (pixels - x_hat[..., 256:512, 256:512]).abs()
        entry = {
            "margin": margin,
            "y_mean": difference.mean().item(),
            "y_max": difference.max().item(),
            "levels_mean": error.mean().item(),
            "levels_max": error.max().item(),
            "overlap_of_1024": (1 + 2 * margin / 1024) ** 2,
        }
        entries.append(entry)
        print({name: round(value, 6) for name, value in entry.items()}, flush=True)
    return entries


PARTS: dict[str, tuple[Callable[[argparse.Namespace], list[Report]], list[str]]] = {
    "speed": (speed, ["256x256", "512x512", "1024x1024", "1920x1080", "3840x2160"]),
    "memory": (memory, ["12000x8400"]),
    "bits": (bits, ["3840x2160"]),
    "margins": (margins, []),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--sizes", nargs="+", metavar="WxH")
    parser.add_argument("--channels", type=int, default=128, metavar="N")
    parser.add_argument("--codec", help="a codec file or a shipped name, instead of --channels")
    parser.add_argument("--images", type=Path, help="folder of pictures for a mosaic, instead of noise")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--untiled", type=int, default=2**21, help="most pixels for one pass over the whole")
    parser.add_argument("--tile", type=int, help="side of tiles, for speed and memory")
    parser.add_argument("-o", "--output", type=Path, help="JSON file")
    given = parser.parse_args()
    part, sizes = PARTS[given.part]
    given.sizes = given.sizes or sizes
    torch.set_num_threads(given.threads)
    entries = part(given)
    if given.output:
        report = {
            "part": given.part,
            "codec": given.codec or f"cheng2020-attention, N = {given.channels}, random",
            "threads": given.threads,
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "entries": entries,
        }
        atomic_write(given.output, json.dumps(report, indent=1).encode())


if __name__ == "__main__":
    main()
