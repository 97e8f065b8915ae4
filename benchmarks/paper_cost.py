"""What preset `paper` costs on a GPU: counted operations over an assumed speed.

Counts the floating-point operations of one training step of the codec (N = 128) and of the frozen recognizer
behind it, forward and backward, on one crop; multiplies by crops an epoch, epochs, rates and arms; divides by
a sustained speed that is an assumption and is printed. The peer is the codec alone (MSE): the ratio says what
the recognizer adds. Labels are made once a picture and counted apart.

python benchmarks/paper_cost.py [--teraflops 40] [--pictures 118287] [-o cost.json]
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from taskpress.coding.codec import Codec
from taskpress.detections import Detections
from taskpress.recognition.named import load_recognizer
from taskpress.training.presets import load_preset

LABELLED = (480, 640)
"""COCO's usual picture."""


@contextmanager
def saved_bytes() -> Iterator[list[float]]:
    """GB that a forward pass keeps for its backward pass, each storage once, in the first entry."""
    seen: dict[int, int] = {}
    total = [0.0]

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        total[0] = sum(seen.values()) / 1e9
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield total


def counted(preset_name: str) -> dict[str, float]:
    """GFLOP by part: `codec` and `recognizer` of a training step of one crop, `labels` of one picture; and GB
    (`codec_gb`, `recognizer_gb`) that a crop's forward pass keeps, weights included once."""
    preset = load_preset(preset_name)
    assert preset.recognizer is not None
    settings = preset.recognizer.partition("?")[2]
    recognizer = load_recognizer(f"fasterrcnn-x101-fpn:random?{settings}")
    codec = Codec.create(preset.codec.architecture, preset.codec.channels).train()
    crop = torch.rand(1, 3, preset.data.patch, preset.data.patch)
    found = {}
    with FlopCounterMode(display=False) as counter, saved_bytes() as kept:
        estimate = codec.estimate(crop)
        found["codec_gb"] = kept[0]
        (estimate.rate.mean() + estimate.x_hat.square().mean()).backward()
    found["codec"] = counter.get_total_flops() / 1e9
    target = Detections(torch.tensor([[20.0, 20.0, 120.0, 160.0]]), torch.tensor([0]), torch.ones(1))
    decoded = crop.clone().requires_grad_()
    with FlopCounterMode(display=False) as counter, saved_bytes() as kept:
        loss = torch.stack(list(recognizer.loss(list(decoded), [target]).values())).sum()
        found["recognizer_gb"] = kept[0]
        loss.backward()
    found["recognizer"] = counter.get_total_flops() / 1e9
    with FlopCounterMode(display=False) as counter:
        recognizer.pseudo_labels([torch.rand(3, *LABELLED)])
    found["labels"] = counter.get_total_flops() / 1e9
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--teraflops", type=float, default=40.0, help="sustained, an assumption")
    parser.add_argument("--pictures", type=int, default=118_287)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    preset, parts = load_preset("paper"), counted("paper")
    per_hour = arguments.teraflops * 1e3 * 3600
    rows = []
    for run in preset.runs():
        epochs = run.optimizer.epochs or 0
        # The policy of `semantic` judges every crop twice, once without gradients: a third of a step more.
        again = 4 / 3 if run.objective.allocation == "semantic" else 1
        step = again * (parts["codec"] + (parts["recognizer"] if run.objective.task != "none" else 0))
        rows.append({"run": run.short_name, "gpu_hours": epochs * arguments.pictures * step / per_hour})
    by_arm: dict[str, float] = {}
    for run, row in zip(preset.runs(), rows, strict=True):
        by_arm[run.arm] = by_arm.get(run.arm, 0) + float(row["gpu_hours"])
    labels = arguments.pictures * parts["labels"] / per_hour
    outcome = {
        "parts": parts,
        "ratio_to_codec_alone": (parts["codec"] + parts["recognizer"]) / parts["codec"],
        "sustained_teraflops": arguments.teraflops,
        "gpu_hours": {"labels": labels, **by_arm, "all": labels + sum(by_arm.values())},
        "runs": rows,
    }
    for part in ("codec", "recognizer", "labels"):
        print(f"{part:12} {parts[part]:8.0f} GFLOP")
    for part in ("codec", "recognizer"):
        print(f"{part:12} {parts[f'{part}_gb']:8.2f} GB kept for the backward pass of one crop")
    print(f"a step costs {outcome['ratio_to_codec_alone']:.2f} times the codec alone")
    for arm, hours in outcome["gpu_hours"].items():  # type: ignore[attr-defined]
        print(f"{arm:12} {hours:8.1f} GPU-hours at {arguments.teraflops:g} TFLOP/s")
    if arguments.output:
        arguments.output.write_text(json.dumps(outcome, indent=1) + "\n")


if __name__ == "__main__":
    main()
