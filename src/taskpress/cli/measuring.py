"""What `evaluate`, `anchor` and `allocation` share: options, data sets by name, where results go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from taskpress.errors import ConfigError
from taskpress.own_code import is_own

if TYPE_CHECKING:
    from taskpress.datasets.dataset import Dataset
    from taskpress.evaluation.stored import StoredFile
    from taskpress.recognition.protocol import Recognizer

SCENES = 64

Images = Annotated[
    str,
    typer.Option("--images", help="Folder of pictures, or `scenes`: the embedded held-out test scenes."),
]
Annotations = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        help="COCO instances JSON of these pictures; for segmentation a folder of label maps (PNG), for "
        "classification a CSV or JSON of file and label. Without: scores against the teacher alone.",
    ),
]
Categories = Annotated[
    str | None,
    typer.Option(
        "--categories",
        help="What ids in label maps mean: coco-panoptic, coco, voc or a JSON list of {id, name}; for class "
        "labels a JSON object of label and name.",
    ),
]
RecognizerSpec = Annotated[
    str,
    typer.Option(
        "--recognizer",
        help="onnx:FILE, fasterrcnn-r50-fpn[:WEIGHTS], lraspp-mobilenet-v3[:WEIGHTS], classify-resnet50, "
        "scenes, … (docs/your-own.md lists them).",
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
TileSide = Annotated[
    int | None,
    typer.Option(
        "--tile",
        metavar="SIDE",
        help="Code in tiles of so many pixels a side, a multiple of 64, each decodable without the others; "
        "0: in one piece. By default pictures of more than 2^23 pixels (3840x2160 has fewer) are, in tiles "
        "of 1024 to 1536.",
    ),
]
CurveName = Annotated[str | None, typer.Option("--curve", help="Name of the curve the results belong to.")]
WithFidelity = Annotated[
    bool,
    typer.Option(
        "--fidelity/--no-fidelity", help="PSNR and MS-SSIM too: some tenths of a second for each picture."
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="What the transforms compute in: float32, bfloat16 (1.4 to 1.8 times as fast on processors that "
        "multiply it), or auto: bfloat16 on those.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="Where torch computes: cpu, cuda, cuda:1, …")]
Devices = Annotated[
    str,
    typer.Option(
        "--device", help="Where torch computes: cpu, cuda, cuda:1, …; or on several: cuda:0,cuda:1."
    ),
]
AtOnce = Annotated[
    int | None,
    typer.Option(
        "-j",
        "--jobs",
        min=1,
        help="Operating points measured at once, each in its own process; by default one on each device. "
        "Seconds are then of fewer threads, and beside each other.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of a table.")]


def open_dataset(
    images: str,
    annotations: Path | None,
    categories: str | None,
    limit: int | None,
    recognizer: Recognizer,
) -> Dataset:
    """The data set that --images, --annotations and --categories name, annotated for the recognizer's task.

    A detector's own classes are what --categories says, from here on. Scenes are annotated where the
    recognizer knows all of their shapes; others it sees as mere pictures.
    """
    from taskpress.targets import Task

    task = recognizer.task
    if categories is not None and annotations is None:
        raise ConfigError("--categories: says what annotations mean, so it goes with --annotations")
    if images == "scenes" and not Path(images).is_dir():
        from taskpress.datasets.scenes import CATEGORIES, Scenes
        from taskpress.evaluation.same_categories import named_alike

        if annotations is not None:
            raise ConfigError("--annotations: scenes bring their own annotations; leave the option out")
        shapes = None if task is Task.CLASSIFICATION else named_alike(CATEGORIES, recognizer.categories)
        return Scenes("test", limit or SCENES, task=task if shapes else None, shapes=shapes)
    if is_own(images):
        from taskpress.datasets.own import OwnPictures

        if annotations is not None:
            raise ConfigError("--annotations: pictures of your own class have none; leave the option out")
        return OwnPictures(images)
    if annotations is None:
        from taskpress.datasets.folder import ImageFolder

        return ImageFolder(images)
    if task is Task.SEGMENTATION:
        from taskpress.datasets.label_maps import LabelMaps
        from taskpress.evaluation.categories import BUILT_IN, map_categories

        if not annotations.is_dir():
            raise ConfigError(
                f"--annotations {annotations}: no folder; {task} is annotated by label maps (PNG)"
            )
        if categories is None:
            raise ConfigError(
                f"--annotations {annotations}: say what its ids mean with --categories: "
                f"{', '.join(BUILT_IN)}, or a JSON list of {{id, name}}"
            )
        return LabelMaps(images, annotations, map_categories(categories))
    if task is Task.CLASSIFICATION:
        from taskpress.datasets.classified import ClassifiedImages, labels_by_folder, read_labels
        from taskpress.evaluation.categories import class_names

        names = None if categories is None else class_names(categories)
        if annotations.is_dir() and annotations.resolve() != Path(images).resolve():
            raise ConfigError(
                f"--annotations {annotations}: for {task} a CSV or JSON of file and label, or the folder of "
                "--images itself, where it holds a folder for each class"
            )
        labels = labels_by_folder(images) if annotations.is_dir() else read_labels(annotations)
        return ClassifiedImages(images, labels, names)
    from taskpress.datasets.coco import CocoImages

    if annotations.is_dir():
        raise ConfigError(
            f"--annotations {annotations}: a folder; {task} is annotated by a COCO instances JSON"
        )
    if categories is not None:
        from taskpress.evaluation.categories import map_categories

        named = map_categories(categories)
        if len(named) != len(recognizer.categories):
            raise ConfigError(
                f"--categories {categories}: {len(named)} categories, {recognizer.name} tells "
                f"{len(recognizer.categories)} apart; list them in the order of its classes"
            )
        renamed: Any = recognizer
        try:
            renamed.categories = tuple(named)
        except AttributeError:
            raise ConfigError(
                f"--categories {categories}: those of {recognizer.name} cannot be set; it has to know them"
            ) from None
    return CocoImages(images, annotations)


class Asked(NamedTuple):
    """Which pictures and which recognizer are meant, as on the command line; any process can open them."""

    recognizer: str
    images: str
    annotations: Path | None
    categories: str | None
    limit: int | None

    def open(self, device: str) -> tuple[Recognizer, Dataset]:
        """The recognizer, on a device, and the pictures, annotated for it."""
        recognizer = open_recognizer(self.recognizer, device)
        return recognizer, open_dataset(
            self.images, self.annotations, self.categories, self.limit, recognizer
        )


def checked_device(device: str) -> str:
    """The name of a device that works here; ConfigError otherwise."""
    import torch

    try:
        torch.empty(0, device=device).tolist()
    except (RuntimeError, AssertionError) as error:  # NotImplementedError of a device without values, too
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {device}: {reason}; --device cpu works everywhere") from None
    return device


def open_recognizer(spec: str, device: str) -> Recognizer:
    """The recognizer that --recognizer names, on --device."""
    from taskpress.recognition.device import move
    from taskpress.recognition.named import load_recognizer

    device = checked_device(device)
    recognizer = load_recognizer(spec)
    move(recognizer, device)
    return recognizer


def check_figure(output: Path, holds: str) -> None:
    """ConfigError where a figure and its numbers cannot go: by its name, or as other files are there.

    holds: a key that numbers of such a figure have, and other files have not
    """
    if output.suffix.lower() != ".png":
        raise ConfigError(f"{output}: the figure is a PNG; give a name that ends in .png")
    numbers = output.with_suffix(".json")
    if output.exists() or numbers.exists():
        try:
            there = json.loads(numbers.read_bytes())
        except (OSError, ValueError, RecursionError):
            there = None
        if not (isinstance(there, dict) and holds in there):
            taken = numbers if numbers.exists() else output
            raise ConfigError(f"{taken}: is there, and is of no such figure; choose another -o, or remove it")


def write_with_figure(
    found: StoredFile, figure: bytes, output: Path, as_json: bool, print_table: Callable[[], None]
) -> None:
    """The figure as `output`, what it shows as JSON beside it; then says both on standard output."""
    from taskpress.coding.files import atomic_write

    output.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(output, figure)
    found.write(output.with_suffix(".json"))
    if as_json:
        typer.echo(found.content(), nl=False)
    else:
        print_table()
        typer.echo(output)
