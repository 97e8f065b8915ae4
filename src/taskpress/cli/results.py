"""Operating points measured one after another or several at once, their results written and shown."""

from __future__ import annotations

import json
import multiprocessing
import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from taskpress.cli.measuring import Asked, checked_device
from taskpress.cli.outcomes import Source, to_do
from taskpress.cli.warning import show_warning
from taskpress.errors import ConfigError, TaskPressError

if TYPE_CHECKING:
    from taskpress.datasets.dataset import Dataset
    from taskpress.evaluation.rate_accuracy import Coder, Reference
    from taskpress.evaluation.result import Result
    from taskpress.recognition.protocol import Recognizer


class How(NamedTuple):
    """How pictures are measured: the long side they are scaled to, and whether PSNR and MS-SSIM are too."""

    resize: int | None
    fidelity: bool


def result_paths(output: Path, names: Sequence[str], suffix: str = ".json") -> list[Path]:
    """Where the result of each operating point goes; ConfigError for one file and several points."""
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ConfigError(
            f"two operating points are named {min(doubled)!r}: their results would overwrite each other"
        )
    if output.suffix != ".json":
        return [output / f"{name}{suffix}" for name in names]
    if len(names) > 1:
        raise ConfigError(f"{output} is one file for {len(names)} results: give a folder with -o")
    return [output]


def results_to_do(
    sources: Sequence[Source], paths: Sequence[Path], output: Path, force: bool, skip: bool
) -> list[tuple[Source, Path]]:
    """What is yet to be measured, and where its result goes (`to_do`); says on standard error what is not."""
    folder = output.parent if output.suffix == ".json" else output
    todo = to_do(list(zip(sources, paths, strict=True)), folder, force, skip)
    if len(todo) < len(paths):
        typer.echo(f"taskpress: {len(paths) - len(todo)} of {len(paths)} results are there already", err=True)
    return todo


def measure(
    coders: Sequence[Coder],
    asked: Asked,
    how: How,
    *,
    devices: Sequence[str],
    jobs: int,
    output: Path,
    force: bool,
    skip: bool,
    as_json: bool,
) -> None:
    """Evaluates every coder against one reference, `jobs` at once; each result is written as it comes."""
    from taskpress.evaluation.pictures import resized
    from taskpress.evaluation.rate_accuracy import check_measurement, make_reference, measurement
    from taskpress.evaluation.result import level_of

    resize, limit = how.resize, asked.limit
    recognizer, dataset = asked.open(devices[0])

    paths = result_paths(output, [coder.name for coder in coders])
    todo = results_to_do(coders, paths, output, force, skip)
    left_out = set(paths) - {path for _, path in todo}
    alone = [(coder, path) for coder, path in zip(coders, paths, strict=True) if path in left_out]
    # What costs nothing is looked at first: of the pictures, the first one.
    first = [level_of(resized(dataset[0].image, resize))] if alone and len(dataset) else []
    for coder, path in alone:
        check_measurement(path, measurement(coder, dataset, recognizer, resize, limit), first, None)
    reference = make_reference(dataset, recognizer, resize, limit, progress=True) if todo else None
    if reference is not None:
        for coder, path in alone:
            told = measurement(coder, dataset, recognizer, resize, limit)
            check_measurement(path, told, reference.levels, reference)
    results: dict[Path, Result] = {}
    if reference is not None:
        jobs = min(jobs, len(todo))
        if jobs == 1:
            found = _one_by_one(todo, dataset, recognizer, reference, limit, how, devices[0])
        else:
            found = _at_once(todo, asked, reference, how, devices, jobs)
        for path, result in found:
            path.parent.mkdir(parents=True, exist_ok=True)
            result.write(path)
            results[path] = result
    in_order = [results[path] for path in paths if path in results]
    if as_json:
        typer.echo(json.dumps([result.summary() for result in in_order], indent=1))
    elif in_order:
        _print_table(in_order)


def _one_by_one(
    todo: Sequence[tuple[Coder, Path]],
    dataset: Dataset,
    recognizer: Recognizer,
    reference: Reference,
    limit: int | None,
    how: How,
    device: str,
) -> Iterator[tuple[Path, Result]]:
    from taskpress.evaluation.rate_accuracy import evaluate

    for coder, path in todo:
        yield (
            path,
            evaluate(
                _on(coder, device),
                dataset,
                recognizer,
                resize=how.resize,
                limit=limit,
                reference=reference,
                fidelity=how.fidelity,
                progress=True,
            ),
        )


def _at_once(
    todo: Sequence[tuple[Coder, Path]],
    asked: Asked,
    reference: Reference,
    how: How,
    devices: Sequence[str],
    jobs: int,
) -> Iterator[tuple[Path, Result]]:
    """Each on one of the devices, in whatever order they are done."""
    from rich.console import Console
    from rich.progress import Progress

    from taskpress.coding.own_architecture import named_architectures
    from taskpress.coding.threads import cores

    context = multiprocessing.get_context("spawn")
    free: SimpleQueue[str] = context.SimpleQueue()
    for place in range(jobs):
        free.put(devices[place % len(devices)])
    beginning = (asked, free, max(1, cores() // jobs), named_architectures())
    with (
        Progress(console=Console(stderr=True), transient=True) as progress,
        ProcessPoolExecutor(jobs, context, _begin, beginning) as pool,
    ):
        bar = progress.add_task(f"{jobs} operating points at once", total=len(todo))
        running = {pool.submit(_measured, coder, reference, how): path for coder, path in todo}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
                progress.advance(bar)
        except BrokenProcessPool:
            raise TaskPressError(
                "a process that measured has ended, as where memory is short; give fewer --jobs, and --skip "
                "to go on"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


_here: tuple[Asked, str] | None = None
"""What a process measures with, and on which device."""


def _begin(asked: Asked, free: SimpleQueue[str], threads: int, architectures: Sequence[str]) -> None:
    global _here
    import torch

    from taskpress.coding.own_architecture import name_architecture

    # An interrupt is said once, by the process that was called.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    warnings.showwarning = show_warning
    torch.set_num_threads(threads)
    # Codecs arrive as objects of classes that are to be known here.
    for architecture in architectures:
        name_architecture(architecture)
    _here = asked, free.get()


@cache
def _opened(asked: Asked, device: str) -> tuple[Recognizer, Dataset]:
    return asked.open(device)


def _measured(coder: Coder, reference: Reference, how: How) -> Result:
    from taskpress.evaluation.rate_accuracy import evaluate

    assert _here is not None
    asked, device = _here
    recognizer, dataset = _opened(asked, device)
    return evaluate(
        _on(coder, device),
        dataset,
        recognizer,
        resize=how.resize,
        limit=asked.limit,
        reference=reference,
        fidelity=how.fidelity,
    )


def _on(coder: Coder, device: str) -> Coder:
    """The coder, its codec (where it has one) on a device."""
    from taskpress.evaluation.rate_accuracy import CodecCoder

    return replace(coder, codec=coder.codec.to(device)) if isinstance(coder, CodecCoder) else coder


def told_apart(names: Sequence[str], seeds: Sequence[int | None]) -> list[str]:
    """The names, with `-sSEED` where several are equal and the seed is known."""
    return [
        f"{name}-s{seed}" if names.count(name) > 1 and seed is not None else name
        for name, seed in zip(names, seeds, strict=True)
    ]


def checked_devices(devices: str, jobs: int | None) -> tuple[list[str], int]:
    """The devices of --device, and how many operating points are measured at once; ConfigError otherwise."""
    found = [checked_device(name.strip()) for name in devices.split(",")]
    return found, jobs or len(found)


def _print_table(results: Sequence[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    from taskpress.evaluation.metrics import LISTED

    first = results[0]
    scaled = f", long side {first.resize}" if first.resize else ""
    table = Table(title=f"{first.images} pictures of {first.dataset}{scaled} · {first.recognizer}")
    metrics = LISTED[first.task]
    speed = ("enc. s/MP", "dec. s/MP")
    for column in ("codec", "bpp", *(m.heading for m in metrics), "PSNR", "MS-SSIM", *speed):
        # On narrow terminals a number may break, but not lose its end.
        left = column == "codec"
        table.add_column(column, justify="left" if left else "right", no_wrap=left, overflow="fold")
    uncompressed = (figure(first.uncompressed_scores.get(m.key)) for m in metrics)
    table.add_row("uncompressed", "", *uncompressed, style="dim")
    for result in results:
        seen = result.fidelity
        table.add_row(
            result.codec,
            f"{result.bpp:.3f}",
            *(figure(result.scores.get(m.key)) for m in metrics),
            figure(None if seen is None else seen.psnr, 2),
            figure(None if seen is None else seen.ms_ssim, 3),
            f"{result.encode_s_per_mp:.2f}",
            f"{result.decode_s_per_mp:.2f}",
        )
    console = Console(markup=False)
    console.print(table)
    for note in dict.fromkeys(r.fidelity.note for r in results if r.fidelity and r.fidelity.note):
        console.print(note, style="dim", highlight=False)


def figure(value: float | None, digits: int = 1) -> str:
    """A score to so many decimals; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"
