"""Where the time of coding goes: a table of encode and decode, part by part, in both precisions.

    python benchmarks/where_time_goes.py --size 768x512 --channels 128 --threads 2

Codec and picture are those of benchmarks/coding.py, which needs CompressAI. Every part is timed within
the very calls; a figure is the median over the repeats after the first, in milliseconds, with its share. What
is made once for a codec's weights (tables, whole numbers, fingerprint, copies in bfloat16) has its own line.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from coding import clock, contenders, picture

from taskpress.coding import context
from taskpress.coding.codec import Codec
from taskpress.coding.transforms import Transform

PARTS = {
    "encode": ("g_a", "h_a", "h_s", "context: products", "context: the rest", "rounding", "range coder"),
    "decode": ("h_s", "context: products", "context: the rest", "range coder", "g_s"),
}


def measure(codec: Codec, x: torch.Tensor) -> dict[str, dict[str, float]]:
    """Seconds of one encoding and one decoding, by part and "all"."""
    frozen = codec._freeze()
    coder, scan, product = frozen.coder, frozen.coder.context.scan, context.product
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, part: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            seconds, result = clock(lambda: part(*args, **kwargs))
            spent[name] += seconds
            return result

        return call

    def timed_scan(params: Any, visit: Callable[..., Any]) -> Any:
        return timed("scan", scan)(params, timed("visit", visit))

    def timed_strips(transform: Transform, strips: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        coming = in_strips(transform, strips)
        one = timed("g_a" if transform is frozen.transforms.analysis else "g_s", lambda: next(coming, None))
        return iter(one, None)

    in_strips = Transform.in_strips
    with (
        patch.object(Transform, "in_strips", timed_strips),
        patch.object(codec.model.h_a, "forward", timed("h_a", codec.model.h_a.forward)),
        patch.object(coder, "h_s", timed("h_s", coder.h_s)),
        patch.object(coder, "encode", timed("range coder", coder.encode)),
        patch.object(coder.context, "scan", timed_scan),
        patch.object(context, "product", timed("context: products", product)),
    ):
        found = {}
        data = b""
        for way in PARTS:
            spent.clear()
            if way == "encode":
                spent["all"], data = clock(lambda: codec.encode(x[0]))
            else:
                spent["all"], _ = clock(lambda d=data: codec.decode(d, "tensor"))
            spent["context: the rest"] = spent["scan"] - spent["visit"] - spent["context: products"]
            spent["rounding" if way == "encode" else "range coder"] = spent["visit"]
            found[way] = {name: spent[name] for name in (*PARTS[way], "all")}
    return found


def made_once(codec: Codec) -> float:
    codec._frozen = None
    start = time.perf_counter()
    codec._freeze()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="768x512", metavar="WxH")
    parser.add_argument("--channels", type=int, default=128, metavar="N")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    width, height = (int(side) for side in given.size.split("x"))
    codec, fast, _ = contenders(given.channels)
    x = picture(width, height)
    rounds = [{who.precision: measure(who, x) for who in (codec, fast)} for _ in range(given.repeats + 1)][1:]
    once = {who.precision: made_once(who) for who in (codec, fast)}
    precisions = list(once)
    print("|  | " + " | ".join(f"{p}: ms | share" for p in precisions) + " |")
    print("|---|" + "---|" * 2 * len(precisions))
    for way, parts in PARTS.items():
        median = {
            (p, name): statistics.median(r[p][way][name] for r in rounds)
            for p in precisions
            for name in (*parts, "all")
        }
        for p in precisions:
            median[p, "the rest"] = median[p, "all"] - sum(median[p, name] for name in parts)
        for name in (*parts, "the rest", "all"):
            cells = [
                f"{1e3 * median[p, name]:.0f} | {100 * median[p, name] / median[p, 'all']:.1f} %"
                for p in precisions
            ]
            print(f"| {way}: {name} | " + " | ".join(cells) + " |")
    print("| once for the weights | " + " | ".join(f"{1e3 * once[p]:.0f} | " for p in precisions) + " |")


if __name__ == "__main__":
    main()
