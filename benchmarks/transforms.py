"""Races ways to run g_a and g_s of Cheng2020Attention, against float32 and against the machine's peak.

    python benchmarks/transforms.py --sizes 256x256 --channels 128 --threads 2 [--also compiled …] [-o FILE]

Always: `float32 module`, g_a or g_s called as it is, by which speed is stated; `float32` and `bfloat16`, what
a codec of that precision runs: channels last, large pictures in strips. Others are named by --also:

    compiled     torch.compile with constant weights, in both precisions; takes a minute for each size
    int8         torch's own post-training quantization, ranges from this very picture, GDN in float32
    openvino     in both precisions; pip install openvino
    onnxruntime  in float32; pip install onnxruntime

The contenders take turns; a figure is the median of the rounds after the first. `error` is the norm of the
difference from the module over the norm of what it gives, for a picture and latent of noise. The peak is what
a product of two square matrices reaches on the same threads in the same rounds; `of peak` is two operations
for each counted multiply-add, over the seconds, over the peak of that precision.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from taskpress.coding.codec import Codec
from taskpress.coding.files import atomic_write
from taskpress.coding.grid import Box
from taskpress.coding.images import open_picture
from taskpress.coding.layers import GDN
from taskpress.coding.strips import CELL, analyze, synthesize
from taskpress.coding.transforms import Transforms, build_transforms

Run = Callable[[Tensor], Tensor]
MATRIX = 3072


def channels_last(transform: nn.Module, dtype: torch.dtype) -> tuple[nn.Module, Run]:
    """A converted copy, and what brings an input to it."""
    converted = copy.deepcopy(transform).to(dtype).to(memory_format=torch.channels_last)
    return converted, lambda x: x.to(dtype=dtype, memory_format=torch.channels_last)


def compiled(transform: nn.Module, x: Tensor) -> Iterator[tuple[str, Run]]:
    import torch._inductor.config

    torch._inductor.config.freezing = True
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        converted, bring = channels_last(transform, dtype)
        program = torch.compile(converted)
        yield f"{name} compiled", lambda x, p=program, b=bring: p(b(x)).float()


def int8(transform: nn.Module, x: Tensor) -> Iterator[tuple[str, Run]]:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.backends.quantized.engine = "onednn"
    mapping = get_default_qconfig_mapping("onednn").set_object_type(GDN, None)
    apart = PrepareCustomConfig().set_non_traceable_module_classes([GDN])
    observed = prepare_fx(copy.deepcopy(transform), mapping, (x,), apart)
    observed(x)
    yield "int8", convert_fx(observed)


def openvino(transform: nn.Module, x: Tensor) -> Iterator[tuple[str, Run]]:
    import openvino as ov

    converted = ov.convert_model(copy.deepcopy(transform), example_input=x)
    for name, hint in (("float32", "f32"), ("bfloat16", "bf16")):
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        request = ov.Core().compile_model(converted, "CPU", settings).create_infer_request()
        yield f"{name} OpenVINO", lambda x, r=request: torch.from_numpy(r.infer({0: x.numpy()})[0])


def onnxruntime(transform: nn.Module, x: Tensor) -> Iterator[tuple[str, Run]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "transform.onnx")
        torch.onnx.export(copy.deepcopy(transform), (x,), path, dynamo=False)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    yield "float32 ONNX Runtime", lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


ALSO = {"compiled": compiled, "int8": int8, "openvino": openvino, "onnxruntime": onnxruntime}


def as_coded(transforms: Transforms, part: str, channels: int) -> Run:
    """What encoding runs of g_a, or decoding of g_s; `channels` is N."""

    def analysis(x: Tensor) -> Tensor:
        return analyze(transforms.analysis, open_picture(x[0]), channels, x.device)

    def synthesis(y: Tensor) -> Tensor:
        whole = Box(0, 0, CELL * y.shape[3], CELL * y.shape[2])
        pieces = synthesize(transforms.synthesis, y, whole, whole, whole, channels)
        return torch.cat([pixels for _, pixels in pieces], 1)[None]

    return analysis if part == "g_a" else synthesis


def contenders(codec: Codec, part: str, x: Tensor, also: list[str]) -> dict[str, Run]:
    """Ways to run "g_a" or "g_s", by name; a name begins with the precision."""
    transform = getattr(codec.model, part)
    found: dict[str, Run] = {"float32 module": transform}
    for precision in ("float32", "bfloat16"):
        found[precision] = as_coded(build_transforms(codec.model, precision, x.device), part, codec.model.N)
    for name in also:
        found.update(ALSO[name](transform, x))
    return found


def clock(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


@torch.no_grad()
def race(channels: int, width: int, height: int, repeats: int, also: list[str]) -> dict[str, Any]:
    """Peaks in GFLOP/s, and by part: multiply-adds, and by contender seconds, share of the peak and error."""
    torch.manual_seed(0)
    codec = Codec.create("cheng2020-attention", channels).eval().requires_grad_(False)
    rows, columns = (4 * -(-side // 64) for side in (height, width))
    inputs = {
        "g_a": torch.rand(1, 3, 16 * rows, 16 * columns),
        "g_s": torch.randn(1, channels, rows, columns),
    }
    runs = {part: contenders(codec, part, x, also) for part, x in inputs.items()}
    squares = {name: torch.randn(MATRIX, MATRIX).to(getattr(torch, name)) for name in ("float32", "bfloat16")}
    times: dict[tuple[str, str], list[float]] = {}
    outputs: dict[tuple[str, str], Tensor] = {}
    for _ in range(repeats + 1):
        for name, square in squares.items():
            times.setdefault(("peak", name), []).append(clock(lambda s=square: s @ s)[0])
        for part, x in inputs.items():
            for name, run in runs[part].items():
                seconds, out = clock(lambda r=run, x=x: r(x))
                times.setdefault((part, name), []).append(seconds)
                # Copied: a contender may give the same memory again and again.
                outputs[part, name] = out.clone()
    medians = {key: statistics.median(values[1:]) for key, values in times.items()}
    peaks = {name: 2 * MATRIX**3 / medians["peak", name] / 1e9 for name in squares}
    report: dict[str, Any] = {"peak_gflops": peaks}
    for part, x in inputs.items():
        with FlopCounterMode(display=False) as counter:
            getattr(codec.model, part)(x)
        operations = counter.get_total_flops() / 1e9
        report[part] = {"gmacs": operations / 2, "contenders": {}}
        reference = outputs[part, "float32 module"]
        for name in runs[part]:
            error = float((outputs[part, name] - reference).norm() / reference.norm())
            seconds = medians[part, name]
            peak = peaks.get(name.split()[0])
            share = None if peak is None else operations / seconds / peak
            speedup = medians[part, "float32 module"] / seconds
            report[part]["contenders"][name] = {
                "seconds": seconds,
                "speedup": speedup,
                "of_peak": share,
                "error": error,
            }
    return report


def show(channels: int, size: str, found: dict[str, Any]) -> None:
    peaks = ", ".join(f"{name} {peak:.0f}" for name, peak in found["peak_gflops"].items())
    print(f"N = {channels}, {size}; peak, GFLOP/s: {peaks}")
    for part in ("g_a", "g_s"):
        print(f"  {part}, {found[part]['gmacs']:.1f} G multiply-adds         ms  speed  of peak    error")
        for name, entry in found[part]["contenders"].items():
            share = "" if entry["of_peak"] is None else f"{100 * entry['of_peak']:.0f} %"
            print(
                f"    {name:24}{1e3 * entry['seconds']:9.1f}{entry['speedup']:6.2f}×{share:>9}"
                f"{entry['error']:9.1e}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["256x256", "768x512"], metavar="WxH")
    parser.add_argument("--channels", nargs="+", type=int, default=[128, 192], metavar="N")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--also", nargs="+", default=[], choices=list(ALSO))
    parser.add_argument("-o", "--output", type=Path, help="JSON file, written after every size")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    entries: list[dict[str, Any]] = []
    for channels in given.channels:
        for size in given.sizes:
            width, height = (int(side) for side in size.split("x"))
            found = race(channels, width, height, given.repeats, given.also)
            show(channels, size, found)
            entries.append({"channels": channels, "size": size, "threads": given.threads, **found})
            if given.output:
                report = {"torch": torch.__version__, "entries": entries}
                atomic_write(given.output, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
