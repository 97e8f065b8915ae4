"""The main job on the embedded default: codecs with and without auxiliary loss, measured and compared."""

from __future__ import annotations

import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from taskpress.coding.checkpoints import shipped_names
from taskpress.coding.codec import Codec
from taskpress.coding.files import atomic_write
from taskpress.coding.images import to_tensor
from taskpress.coding.threads import cores, single_thread
from taskpress.datasets.scenes import Scenes
from taskpress.errors import CodecError
from taskpress.evaluation.allocation import allocate
from taskpress.evaluation.allocation_figure import Drawn, allocation_figure
from taskpress.evaluation.anchors import anchor
from taskpress.evaluation.comparison import Comparison, compare
from taskpress.evaluation.detections_figure import Found, detections_figure
from taskpress.evaluation.rate_accuracy import CodecCoder, Coder, Reference, evaluate, make_reference
from taskpress.evaluation.rd_figure import write_comparison
from taskpress.evaluation.report import Picture, render_report
from taskpress.evaluation.result import Result
from taskpress.evaluation.shares import Share, collect, share_of
from taskpress.provenance import command_line
from taskpress.recognition.named import load_recognizer
from taskpress.recognition.protocol import Recognizer

RECOGNIZER = "scenes"
ANCHORS = {"jpeg": (5, 10, 20), "webp": (1, 10, 30), "avif": (10, 20, 35)}
SHOWN = (0, 1, 2)
"""Scenes in the report: the first ones of the test split, whatever they look like."""
DRAWS = 200
"""Bootstrap draws of pictures, for intervals; `make results` has more of them, and takes minutes."""


@dataclass(frozen=True)
class Job:
    """One operating point: a shipped codec, or a classical anchor at one quality."""

    kind: str
    quality: int | None = None


def run_demo(folder: Path, scenes: int = 64, jobs: int | None = None) -> Comparison:
    """Codes held-out scenes with every shipped codec and anchor, measures, compares, and writes a report.

    folder: gets report.html, comparison.json, rd.png, shares.json and results/*.json
    scenes: how many of the test split
    jobs:   processes; one for each core by default
    Raises CodecError where no codec of the scenes is shipped.
    """
    started = time.perf_counter()
    names = [name for name in shipped_names() if name.startswith("scenes-")]
    if not names:
        raise CodecError("no codec `scenes-*` is shipped with this installation; install the package whole")
    results_folder = folder / "results"
    results_folder.mkdir(parents=True, exist_ok=True)
    todo = [Job(name) for name in names] + [Job(k, q) for k, qualities in ANCHORS.items() for q in qualities]
    workers = jobs or cores()
    # One-thread processes side by side use the cores better than processes that fight for them.
    with Progress(console=Console(stderr=True), transient=True) as progress, single_thread():
        bar = progress.add_task("the detector on uncompressed scenes", total=len(todo) + len(names))
        reference = make_reference(_scenes(scenes), _recognizer(), limit=scenes)
        with ProcessPoolExecutor(
            workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            progress.update(bar, description="coding, decoding, detecting")
            points: list[Future[Result]] = [pool.submit(_measure, job, scenes, reference) for job in todo]
            sharing: list[Future[Share]] = [pool.submit(_share, name, scenes, reference) for name in names]
            jobs_running: list[Future[Any]] = [*points, *sharing]
            for done in as_completed(jobs_running):
                done.result()
                progress.advance(bar)
    results = [future.result() for future in points]
    for result in results:
        result.write(results_folder / f"{result.codec}.json")
    shares = collect([future.result() for future in sharing], reference, _recognizer().name)
    shares.write(folder / "shares.json")
    comparison = compare(results, anchor="task", resamples=DRAWS)
    _, curves = write_comparison(comparison, folder)
    report = render_report(
        comparison,
        Picture(
            "Rate-accuracy curves",
            curves.read_bytes(),
            "Left and up is better. A point is a codec, or one quality of a classical one.",
        ),
        _allocations(comparison, reference),
        _decoded(comparison),
        shares.shares,
        time.perf_counter() - started,
        command_line(),
    )
    atomic_write(folder / "report.html", report.encode())
    return comparison


@cache
def _scenes(count: int) -> Scenes:
    return Scenes("test", count)


@cache
def _recognizer() -> Recognizer:
    return load_recognizer(RECOGNIZER)


def _measure(job: Job, scenes: int, reference: Reference) -> Result:
    coder: Coder
    if job.quality is None:
        codec = Codec.load(job.kind)
        coder = CodecCoder(codec, str(codec.card["arm"]), job.kind)
    else:
        coder = anchor(job.kind, job.quality)
    return evaluate(coder, _scenes(scenes), _recognizer(), limit=scenes, reference=reference, fidelity=False)


def _share(name: str, scenes: int, reference: Reference) -> Share:
    codec = Codec.load(name)
    return share_of(codec, str(codec.card["arm"]), name, _scenes(scenes), reference)


def _pair(comparison: Comparison) -> list[Result]:
    """The second-lowest rate without auxiliary loss, and the point with it that is nearest in rate."""
    without = comparison.curves["task"][1]
    aux = min(comparison.curves["task+aux"], key=lambda result: abs(result.bpp - without.bpp))
    return [without, aux]


def _allocations(comparison: Comparison, reference: Reference) -> list[Picture]:
    pair = _pair(comparison)
    pictures = []
    for index in SHOWN:
        image = _scenes(len(reference.image_ids))[index].image
        panels = [Drawn(f"{r.curve} ({r.codec})", allocate(Codec.load(r.codec), image)) for r in pair]
        pictures.append(
            Picture(
                f"Bit allocation, scene {index}",
                allocation_figure(image, reference.labels[index].boxes, panels),
                f"Test scene {index}: the input with the teacher's boxes, then bits per pixel without and "
                "with auxiliary loss, on one colour scale.",
            )
        )
    return pictures


def _decoded(comparison: Comparison) -> list[Picture]:
    pair = _pair(comparison)
    pictures = []
    for index in SHOWN:
        image = _scenes(pair[0].images)[index].image
        panels = [_found("uncompressed", image)]
        for result in pair:
            codec = Codec.load(result.codec)
            data = codec.encode(image)
            bpp = 8 * len(data) / image[..., 0].size
            panels.append(_found(f"{result.curve}, {bpp:.3f} bpp", codec.decode(data, as_="numpy")))
        pictures.append(
            Picture(
                f"Decoded scene {index}",
                detections_figure([panels], _recognizer().categories),
                f"Test scene {index} with what the detector finds (score ≥ 0.5) in the uncompressed "
                "picture and in the decoded ones.",
            )
        )
    return pictures


def _found(title: str, image: NDArray[np.uint8]) -> Found:
    found = _recognizer().predict([to_tensor(image)])[0]
    return Found(title, image, found.where(found.scores >= 0.5))
