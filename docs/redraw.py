"""Draws every figure of docs/figures and states every table from the files in docs/results: `make results`.

    docs/results/NAME/               results of evaluate and anchor → NAME-comparison.json, NAME-table.md
                                     beside the folder, figures/NAME-rd.png
    docs/results/NAME-transfer/      of the same codecs by another recognizer → the same; the table holds both
    docs/results/NAME-shares.json    of allocation over a set       → figures/NAME-shares.png
    docs/results/NAME-gradients.json of gradients                   → figures/NAME-gradients.png
    docs/results/NAME-signal.json    of gradient-signal             → figures/NAME-signal.png

Nothing is trained or measured and no data is needed. The two figures that show a picture, the bit allocation
of a scene and what refining makes of it, are made of shipped codecs, the shipped recognizer and the generator
of scenes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taskpress.cli.compare import print_comparison
from taskpress.coding.codec import Codec
from taskpress.coding.files import atomic_write
from taskpress.coding.images import to_tensor
from taskpress.datasets.scenes import Scenes
from taskpress.evaluation.allocation import allocate
from taskpress.evaluation.allocation_figure import Drawn, allocation_figure
from taskpress.evaluation.comparison import compare, find_results
from taskpress.evaluation.detections_figure import Found, detections_figure, judged
from taskpress.evaluation.gradient_signal import GradientSignals, signal_figure
from taskpress.evaluation.gradients import Gradients, gradients_figure
from taskpress.evaluation.rd_figure import rd_figure
from taskpress.evaluation.result import Result
from taskpress.evaluation.shares import Shares, shares_figure
from taskpress.evaluation.side_by_side import side_by_side
from taskpress.recognition.named import load_recognizer
from taskpress.training.refining import refinement_for

DOCS = Path(__file__).parent
DRAWS = 1000
TRANSFER = "-transfer"
SCENE, CODECS = 2, ("scenes-task-q2", "scenes-aux-q2")
"""The picture of docs/results.md and the codecs that coded it."""
REFINED = "scenes-task-q1", 0.015
"""A codec, and the λ that its latent is refined by."""


def redraw(results: Path, output: Path, bootstrap: int = DRAWS) -> list[Path]:
    """Writes tables into output/results and figures into output/figures, states them, returns their files.

    results: a folder like docs/results; bootstrap: draws for intervals, where matches lie beside results
    """
    tables, figures = output / "results", output / "figures"
    for folder in (tables, figures):
        folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        read = [Result.read(path) for path in find_results([folder])]
        comparison = compare(read, resamples=bootstrap)
        print_comparison(comparison)
        written[tables / f"{folder.name}-comparison.json"] = _json(comparison.as_json())
        table = side_by_side(_by_both(folder, read), means=True).markdown()
        print(f"\n{table}")
        written[tables / f"{folder.name}-table.md"] = table.encode()
        written[figures / f"{folder.name}-rd.png"] = rd_figure(comparison)
    for path in sorted(results.glob("*-shares.json")):
        written[figures / f"{path.stem}.png"] = shares_figure(Shares.read(path))
    for path in sorted(results.glob("*-gradients.json")):
        written[figures / f"{path.stem}.png"] = gradients_figure(Gradients.read(path))
    for path in sorted(results.glob("*-signal.json")):
        written[figures / f"{path.stem}.png"] = signal_figure(GradientSignals.read(path))
    written[figures / "scenes-allocation.png"] = _allocation()
    written[figures / "scenes-refined.png"] = _refined()
    for path, content in written.items():
        atomic_write(path, content)
    return list(written)


def _by_both(folder: Path, read: list[Result]) -> list[Result]:
    """With what the recognizer that the codecs were trained for made of them."""
    own = folder.with_name(folder.name.removesuffix(TRANSFER))
    if own == folder:
        return read
    codecs = {one.codec_fingerprint for one in read}
    return read + [one for one in map(Result.read, find_results([own])) if one.codec_fingerprint in codecs]


def _json(content: dict[str, object]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _allocation() -> bytes:
    image = Scenes("test", SCENE + 1)[SCENE].image
    boxes = load_recognizer("scenes").pseudo_labels([to_tensor(image)])[0].boxes
    codecs = [Codec.load(name) for name in CODECS]
    panels = [
        Drawn(f"{c.card['arm']} ({name})", allocate(c, image)) for name, c in zip(CODECS, codecs, strict=True)
    ]
    return allocation_figure(image, boxes, panels)


def _refined() -> bytes:
    """The scene, and what is decoded of it without and with refining, each with what the recognizer finds."""
    image, recognizer = Scenes("test", SCENE + 1)[SCENE].image, load_recognizer("scenes")
    wanted = recognizer.pseudo_labels([to_tensor(image)])[0]

    def panel(title: str, picture: NDArray[np.uint8]) -> Found:
        objects = recognizer.predict([to_tensor(picture)])[0]
        return judged(title, picture, objects.where(objects.scores >= 0.5), wanted)

    name, lmbda = REFINED
    codec, panels = Codec.load(name), [panel("the scene", image)]
    for title, refinement in ((name, None), (f"{name}, refined", refinement_for(codec, name, lmbda=lmbda))):
        data = codec.encode(image, refinement=refinement)
        bpp = 8 * len(data) / image[..., 0].size
        panels.append(panel(f"{title}: {bpp:.3f} bpp", codec.decode(data, as_="numpy")))
    return detections_figure([panels], recognizer.categories)


if __name__ == "__main__":
    for file in redraw(DOCS / "results", DOCS):
        print(file.relative_to(DOCS.parent), file=sys.stderr)
