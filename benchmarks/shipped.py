"""Milliseconds a picture of a shipped codec on one core, beside Pillow's AVIF on the same pictures.

    python benchmarks/shipped.py --codec coco-yolox-long-q1 --threads 1

Contenders take turns on a drawn scene; a figure is the median over the repeats after the first. Of AVIF it is
quality 20 as `taskpress anchor` writes it, which takes one thread.
"""

import argparse
import statistics
import time

import numpy as np
import torch

import taskpress
from taskpress.coding.transforms import has_bfloat16
from taskpress.datasets import Scenes
from taskpress.evaluation import CodecCoder, Coder, anchor


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--codec", default="coco-yolox-long-q1")
    options.add_argument("--sizes", nargs="+", default=["416x312", "640x480", "1280x720", "1920x1080"])
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--repeats", type=int, default=5)
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    coders: dict[str, Coder] = {"float32": _coder(asked.codec, "float32")}
    if has_bfloat16(torch.device("cpu")):
        coders["bfloat16"] = _coder(asked.codec, "bfloat16")
    coders["AVIF"] = anchor("avif", 20)
    print(f"{asked.codec}, {asked.threads} thread(s), torch {torch.__version__}; ms a picture\n")
    print("| size |" + "".join(f" {name}: encode | decode |" for name in coders))
    print("|---" * (1 + 2 * len(coders)) + "|")
    for size in asked.sizes:
        width, height = map(int, size.split("x"))
        scene = Scenes("test", 1, size=max(width, height))[0].image[:height, :width]
        row = _race(coders, np.ascontiguousarray(scene), asked.repeats)
        print(f"| {width}×{height} |" + "".join(f" {1e3 * e:.0f} | {1e3 * d:.0f} |" for e, d in row))


def _coder(name: str, precision: str) -> Coder:
    return CodecCoder(taskpress.load(name, precision), precision, name)


def _race(coders: dict[str, Coder], scene: np.ndarray, repeats: int) -> list[tuple[float, float]]:
    """Median seconds of encoding and decoding, by coder."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in coders}
    for _ in range(repeats + 1):
        for name, coder in coders.items():
            begun = time.perf_counter()
            data = coder.encode(scene)
            coded = time.perf_counter()
            coder.decode(data)
            spent[name].append((coded - begun, time.perf_counter() - coded))
    return [
        (statistics.median(e for e, _ in times[1:]), statistics.median(d for _, d in times[1:]))
        for times in spent.values()
    ]


if __name__ == "__main__":
    main()
