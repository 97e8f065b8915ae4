"""What `evaluate`, `anchor` and `allocation` share: options, data sets by name, where results go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskpress.coding.errors import ConfigError

if TYPE_CHECKING:
    from taskpress.datasets.dataset import Dataset
    from taskpress.evaluation.rate_accuracy import Coder
    from taskpress.evaluation.result import Result
    from taskpress.recognition.protocol import Recognizer

SCENES = 64

Images = Annotated[
    str,
    typer.Option("--images", help="Folder of pictures, or `scenes`: the embedded held-out test scenes."),
]
Annotations = Annotated[
    Path | None,
    typer.Option("--annotations", help="COCO instances JSON of these pictures; without, only teacher AP."),
]
RecognizerSpec = Annotated[
    str,
    typer.Option(
        "--recognizer",
        help="onnx:FILE, fasterrcnn-x101-fpn:WEIGHTS, fasterrcnn-r50-fpn[:WEIGHTS], "
        "retinanet-r50-fpn[:WEIGHTS], maskrcnn-r50-fpn[:WEIGHTS], scenes.",
    ),
]
Resize = Annotated[
    int | None,
    typer.Option("--resize", min=16, help="Scale the long side to this many pixels before coding, e.g. 416."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many pictures.")]
Output = Annotated[
    Path,
    typer.Option("-o", "--output", help="RESULT.json, or a folder that gets one JSON per operating point."),
]
CurveName = Annotated[str | None, typer.Option("--curve", help="Name of the curve the results belong to.")]
Device = Annotated[str, typer.Option("--device", help="Where torch computes: cpu, cuda, cuda:1, …")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of a table.")]


def open_dataset(images: str, annotations: Path | None, limit: int | None) -> Dataset:
    """The data set that --images and --annotations name."""
    if images == "scenes" and not Path(images).is_dir():
        from taskpress.datasets.scenes import Scenes

        if annotations is not None:
            raise ConfigError("--annotations: scenes bring their own annotations; leave the option out")
        return Scenes("test", limit or SCENES)
    if annotations is not None:
        from taskpress.datasets.coco import CocoImages

        return CocoImages(images, annotations)
    from taskpress.datasets.folder import ImageFolder

    return ImageFolder(images)


def checked_device(device: str) -> str:
    """The name of a device that works here; ConfigError otherwise."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {device}: {reason}; --device cpu works everywhere") from None
    return device


def open_recognizer(spec: str, device: str) -> Recognizer:
    """The recognizer that --recognizer names, on --device."""
    from torch import nn

    from taskpress.recognition.named import load_recognizer

    device = checked_device(device)
    recognizer = load_recognizer(spec)
    if isinstance(recognizer, nn.Module):
        recognizer.to(device)
    return recognizer


def result_paths(output: Path, names: Sequence[str]) -> list[Path]:
    """Where the result of each operating point goes; ConfigError for one file and several points."""
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ConfigError(
            f"two operating points are named {min(doubled)!r}: their results would overwrite each other"
        )
    if output.suffix != ".json":
        return [output / f"{name}.json" for name in names]
    if len(names) > 1:
        raise ConfigError(f"{output} is one file for {len(names)} results: give a folder with -o")
    return [output]


def measure(
    coders: Sequence[Coder],
    dataset: Dataset,
    recognizer: Recognizer,
    resize: int | None,
    limit: int | None,
    output: Path,
    as_json: bool,
) -> None:
    """Evaluates every coder against one reference; each result is on disk before the next coder starts."""
    from taskpress.evaluation.rate_accuracy import evaluate, make_reference

    paths = result_paths(output, [coder.name for coder in coders])
    reference = make_reference(dataset, recognizer, resize, limit, progress=True)
    results = []
    for coder, path in zip(coders, paths, strict=True):
        result = evaluate(
            coder, dataset, recognizer, resize=resize, limit=limit, reference=reference, progress=True
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        result.write(path)
        results.append(result)
    if as_json:
        typer.echo(json.dumps([result.summary() for result in results], indent=1))
    else:
        _print_table(results)


def _print_table(results: Sequence[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    from taskpress.evaluation.metrics import LISTED

    first = results[0]
    scaled = f", long side {first.resize}" if first.resize else ""
    table = Table(title=f"{first.images} pictures of {first.dataset}{scaled} · {first.recognizer}")
    metrics = LISTED[first.task]
    for column in ("codec", "bpp", *(m.heading for m in metrics), "encode s/MP", "decode s/MP"):
        table.add_column(column, justify="left" if column == "codec" else "right")
    uncompressed = (figure(first.uncompressed_scores.get(m.key)) for m in metrics)
    table.add_row("uncompressed", "", *uncompressed, "", "", style="dim")
    for result in results:
        table.add_row(
            result.codec,
            f"{result.bpp:.3f}",
            *(figure(result.scores.get(m.key)) for m in metrics),
            f"{result.encode_s_per_mp:.2f}",
            f"{result.decode_s_per_mp:.2f}",
        )
    Console().print(table)


def figure(value: float | None) -> str:
    """A score to one decimal; a dash where there is none."""
    return "–" if value is None else f"{value:.1f}"
