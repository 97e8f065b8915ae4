"""Races our coding against CompressAI's: Cheng2020Attention, same weights, same pictures, one process.

    python benchmarks/coding.py --sizes 256x256 768x512 1920x1080 --channels 128 192 -o coding.json

Needs CompressAI (requirements-peers.txt). The contenders take turns, so that whatever else the machine does
meets all of them; a figure is the median of its repeats. Weights are random, scaled so that latents spread
and their Gaussians fit as trained ones do; pictures are noise with the spectrum of photographs.

    encode, decode   picture to bytes and back, all included; `fast` is ours with transforms in bfloat16
    transforms       g_a, h_a, h_s and g_s alone, as modules, in float32 and in one piece
    entropy stage    encode less the time spent in g_a, h_a and h_s, decode less the time spent in g_s,
                     measured within the very calls: decoding counts h_s, encoding does not, on both sides

Results are written after every size; with -o naming an existing file, what is in it is not measured again.
"""

import argparse
import copy
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from taskpress.coding.codec import Codec
from taskpress.coding.files import atomic_write
from taskpress.coding.transforms import Transform

with warnings.catch_warnings():
    # It imports torch-geometric, which warns about what it does not find.
    warnings.simplefilter("ignore")
    from compressai.models import Cheng2020Attention

Times = dict[str, list[float]]


def picture(width: int, height: int) -> torch.Tensor:
    """float32 [1, 3, H, W] in [0, 1], H and W rounded up to multiples of 64: 1/f noise."""
    height, width = -(-height // 64) * 64, -(-width // 64) * 64
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    fall = 1 / np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    white = np.random.default_rng(0).normal(size=(3, height, width))
    noise = np.fft.ifft2(np.fft.fft2(white) * fall).real
    return torch.from_numpy(np.clip(0.5 + 0.2 * noise / noise.std(), 0, 1)).float()[None]


@torch.no_grad()
def contenders(channels: int) -> tuple[Codec, Codec, Cheng2020Attention]:
    """Our codec in float32 and in bfloat16, and CompressAI's model with the same weights."""
    codec = Codec.create("cheng2020-attention", channels, seed=1).eval()
    model, x = codec.model, picture(256, 256)
    # The last attention block is x + a(x)·sigmoid(b(x)): with b far below zero it lets x pass.
    model.g_a[8].conv_b[3].bias.sub_(20)
    spread = torch.logspace(-1, 1, channels)
    model.g_a[7].weight.mul_((spread / model.g_a(x).std((0, 2, 3)))[:, None, None, None])
    y = model.g_a(x)
    model.g_a[7].bias.sub_(y.mean((0, 2, 3)))
    model.h_a[-1].weight.mul_(3 / model.h_a(y).std())
    # Means near zero and scales that fit, as training would make them.
    gaussian = model.entropy_parameters[-1]
    gaussian.weight.mul_(0.1)
    gaussian.bias[:channels] = y.std((0, 2, 3))
    gaussian.bias[channels:] = 0
    theirs = Cheng2020Attention(channels).eval()
    theirs.load_state_dict({**theirs.state_dict(), **model.state_dict()})
    theirs.update(force=True)
    fast = copy.deepcopy(codec)
    fast.precision = "bfloat16"
    return codec, fast, theirs


@contextmanager
def watched(model: Any, names: tuple[str, ...]) -> Iterator[list[float]]:
    """Collects the seconds that calls of these parts of a model take."""
    spent: list[float] = []
    originals = {name: getattr(model, name) for name in names}

    def timed(part: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return part(*args, **kwargs)
            finally:
                spent.append(time.perf_counter() - start)

        return call

    for name, part in originals.items():
        if isinstance(part, torch.nn.Module):
            part.forward, originals[name] = timed(part.forward), part.forward
        else:
            setattr(model, name, timed(part))
    try:
        yield spent
    finally:
        for name, part in originals.items():
            owner = getattr(model, name)
            if isinstance(owner, torch.nn.Module):
                owner.forward = part
            else:
                setattr(model, name, part)


def clock(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


@contextmanager
def watched_transforms() -> Iterator[list[float]]:
    """Collects the seconds that our g_a and g_s take, strip by strip."""
    spent: list[float] = []
    in_strips = Transform.in_strips

    def timed(transform: Transform, strips: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        coming = in_strips(transform, strips)
        while True:
            seconds, rows = clock(lambda: next(coming, None))
            spent.append(seconds)
            if rows is None:
                return
            yield rows

    with patch.object(Transform, "in_strips", timed):
        yield spent


@torch.inference_mode()
def one_round(
    codec: Codec, fast: Codec, theirs: Cheng2020Attention, x: torch.Tensor
) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds of every part, and bytes of every contender."""
    found: dict[str, float] = {}
    model, coder = codec.model, codec._freeze().coder
    with watched(theirs, ("g_a", "h_a", "h_s")) as spent:
        found["theirs encode"], coded = clock(lambda: theirs.compress(x))
    found["theirs encode entropy"] = found["theirs encode"] - sum(spent)
    with watched_transforms() as spent, watched(model, ("h_a",)) as h_a, watched(coder, ("h_s",)) as h_s:
        found["ours encode"], data = clock(lambda: codec.encode(x[0]))
    found["ours encode entropy"] = found["ours encode"] - sum(spent) - sum(h_a) - sum(h_s)
    found["fast encode"], fast_data = clock(lambda: fast.encode(x[0]))
    found["encode transforms"], _ = clock(lambda: model.h_s(model.h_a(model.g_a(x))))
    with watched(theirs, ("g_s",)) as spent:
        found["theirs decode"], _ = clock(lambda: theirs.decompress(coded["strings"], coded["shape"]))
    found["theirs decode entropy"] = found["theirs decode"] - sum(spent)
    with watched_transforms() as spent:
        found["ours decode"], _ = clock(lambda: codec.decode(data, "tensor"))
    found["ours decode entropy"] = found["ours decode"] - sum(spent)
    found["fast decode"], _ = clock(lambda: fast.decode(fast_data, "tensor"))
    latent = torch.zeros(1, codec.latent_channels, x.shape[2] // 16, x.shape[3] // 16)
    found["decode transforms"], _ = clock(lambda: model.g_s(latent))
    written = sum(len(strings[0]) for strings in coded["strings"])
    return found, {"ours": len(data), "fast": len(fast_data), "theirs": written}


def race(
    codec: Codec, fast: Codec, theirs: Cheng2020Attention, x: torch.Tensor, repeats: int
) -> dict[str, Any]:
    """Medians of `repeats` rounds, after one with a small picture to warm up."""
    one_round(codec, fast, theirs, picture(256, 256))
    times: Times = {}
    sizes: dict[str, int] = {}
    for _ in range(repeats):
        found, sizes = one_round(codec, fast, theirs, x)
        for name, value in found.items():
            times.setdefault(name, []).append(value)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    ratios = {}
    for way in ("encode", "decode"):
        ratios[way] = seconds[f"theirs {way}"] / seconds[f"ours {way}"]
        ratios[f"{way} fast"] = seconds[f"ours {way}"] / seconds[f"fast {way}"]
        ratios[f"{way} entropy"] = seconds[f"theirs {way} entropy"] / seconds[f"ours {way} entropy"]
        ratios[f"{way} over transforms"] = seconds[f"ours {way}"] / seconds[f"{way} transforms"]
    return {"seconds": seconds, "ratios": ratios, "bytes": sizes, "all": times}


HEADER = (
    "   N       size   encode    entropy  /transf.   fast   decode    entropy  /transf.   fast"
    "   s (ours | fast | theirs)"
)


def row(entry: dict[str, Any]) -> str:
    ratios, seconds = entry["ratios"], entry["seconds"]
    cells = [f"{entry['channels']:4d}{entry['size']:>11}"]
    for way in ("encode", "decode"):
        cells.append(
            f"{ratios[way]:8.2f}×{ratios[f'{way} entropy']:9.1f}×{ratios[f'{way} over transforms']:9.3f}"
            f"{ratios[f'{way} fast']:6.2f}×"
        )
    cells.append(
        "   "
        + " | ".join(
            f"{seconds[f'{who} encode']:.3f} {seconds[f'{who} decode']:.3f}"
            for who in ("ours", "fast", "theirs")
        )
    )
    return "".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["256x256", "768x512", "1920x1080"], metavar="WxH")
    parser.add_argument("--channels", nargs="+", type=int, default=[128, 192], metavar="N")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="JSON file, written after every size")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    entries: list[dict[str, Any]] = []
    if given.output and given.output.is_file():
        entries = json.loads(given.output.read_text())["entries"]
    print(HEADER)
    for channels in given.channels:
        pair = None
        for size in given.sizes:
            key = {"channels": channels, "size": size, "threads": given.threads, "repeats": given.repeats}
            entry = next((e for e in entries if key.items() <= e.items()), None)
            if entry is None:
                pair = pair or contenders(channels)
                width, height = (int(side) for side in size.split("x"))
                entry = {**key, **race(*pair, picture(width, height), given.repeats)}
                entries.append(entry)
                if given.output:
                    report = {
                        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
                        "torch": torch.__version__,
                    }
                    atomic_write(given.output, json.dumps({**report, "entries": entries}, indent=1).encode())
            print(row(entry), flush=True)


if __name__ == "__main__":
    main()
