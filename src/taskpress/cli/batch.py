"""What `encode` and `decode` share: many files at once, none of which stops the others."""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import typer

from taskpress.cli.outcomes import to_do
from taskpress.cli.standard import STANDARD, called, check_pipe
from taskpress.errors import ConfigError, TaskPressError

Row = dict[str, object]

Jobs = Annotated[int | None, typer.Option("-j", "--jobs", min=1, help="Files at once; all cores by default.")]


def targets(
    inputs: Sequence[tuple[Path, Path]], output: Path, suffix: str, kinds: Collection[str], skip: bool
) -> tuple[list[tuple[Path, Path]], Path]:
    """(file, where its outcome goes) for (file, name relative to the output folder) pairs; and the folder.

    An output that ends in one of `kinds` is the outcome itself, of one file (`is_one_file`). Else
    `a/photo.jpg` becomes `a/photo` with the new suffix; where `a/photo.png` is there too, both keep their own
    suffix before the new one. Raises ConfigError where two files would still have one outcome, for standard
    input, which gives its outcome no name, and for --skip where -o names a file: whose outcome that is, its
    name does not say.
    """
    inputs = list(dict.fromkeys(inputs))
    if is_one_file(output, kinds):
        if len(inputs) != 1:
            raise ConfigError(
                f"-o {output}: names one file, where {len(inputs)} are to be written; name a folder"
            )
        if skip:
            raise ConfigError(
                f"--skip: goes with a folder, and -o {output} names a file; leave one of them out"
            )
        return [(inputs[0][0], output)], output.parent
    if any(path == STANDARD for path, _ in inputs):
        raise ConfigError(f"-o {output}: standard input has no name; name a {suffix} file, or - as output")
    stems = Counter(relative.with_suffix("") for _, relative in inputs)
    taken: dict[Path, Path] = {}
    for path, relative in inputs:
        alone = stems[relative.with_suffix("")] == 1
        target = output / (relative.with_suffix(suffix) if alone else Path(f"{relative}{suffix}"))
        if target in taken:
            raise ConfigError(f"{path} and {taken[target]} would both become {target}; code them apart")
        taken[target] = path
    return [(path, target) for target, path in taken.items()], output


def planned(
    inputs: Sequence[tuple[Path, Path]],
    output: Path,
    suffix: str,
    kinds: Collection[str],
    force: bool,
    skip: bool,
    as_json: bool,
) -> tuple[list[tuple[Path, Path]], list[tuple[Path, Path]]]:
    """All `targets`, and those that are to be written (`to_do`); of -o -, standard output alone."""
    if output == STANDARD:
        check_pipe(len(inputs), as_json, skip)
        alone = [(inputs[0][0], STANDARD)]
        return alone, alone
    outcomes, folder = targets(inputs, output, suffix, kinds, skip)
    return outcomes, to_do(outcomes, folder, force, skip)


def is_one_file(output: Path, kinds: Collection[str]) -> bool:
    """Whether -o names a file of one of these suffixes, not a folder to be written into."""
    return output.suffix.lower() in kinds and not output.is_dir()


def printable(text: str) -> str:
    """The text with marks in place of what names of files may hold and no output takes."""
    return text.encode(errors="replace").decode()


def run_all(
    work: Callable[[Path, Path], Row],
    pairs: Sequence[tuple[Path, Path]],
    title: str,
    jobs: int | None,
    line: Callable[[Row], str],
    as_json: bool,
) -> None:
    """Calls `work(file, target)` for each pair, several at once, and prints what came out of each: on
    standard error where standard output is the outcome.

    Files that fail are listed on standard error when all are done, and the command exits with 1; as JSON
    also among the rows, as `source` and `error`. What is no fault of the file, but a defect here, is listed
    with its traceback.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from taskpress.coding.threads import cores

    workers = max(1, min(jobs or cores(), len(pairs)))
    threads = torch.get_num_threads()
    rows: dict[Path, Row] = {}
    failures: dict[Path, str] = {}
    torch.set_num_threads(max(1, threads // workers))
    try:
        with (
            Progress(console=Console(stderr=True), transient=True) as progress,
            ThreadPoolExecutor(workers) as pool,
        ):
            bar = progress.add_task(title, total=len(pairs))
            running = {pool.submit(work, path, target): path for path, target in pairs}
            try:
                for future in as_completed(running):
                    path = running[future]
                    error = future.exception()
                    if error is None:
                        rows[path] = future.result()
                    elif isinstance(error, TaskPressError | OSError):
                        failures[path] = str(error)
                    elif isinstance(error, Exception):
                        failures[path] = f"{called(path)}: {''.join(traceback.format_exception(error))}"
                    else:
                        raise error
                    progress.advance(bar)
            except BaseException:
                # Interrupted: files that were begun are finished, others not begun.
                pool.shutdown(wait=False, cancel_futures=True)
                finished = len(rows) + len(failures)
                typer.echo(
                    f"taskpress: interrupted after {finished} of {len(pairs)} files; those that were begun "
                    "are finished, --skip goes on from there",
                    err=True,
                )
                raise
    finally:
        torch.set_num_threads(threads)
    done = [rows[path] for path, _ in pairs if path in rows]
    if as_json:
        failed = [{"source": str(path), "error": text} for path, text in sorted(failures.items())]
        typer.echo(json.dumps([*done, *failed], indent=1))
    else:
        for row in done:
            typer.echo(printable(line(row)), err=pairs[0][1] == STANDARD)
    for path, message in sorted(failures.items()):
        told = called(path) in message or message.startswith("standard output")
        text = message if told else f"{called(path)}: {message}"
        typer.echo(f"taskpress: {printable(text)}", err=True)
    if failures:
        if len(pairs) > 1:
            typer.echo(
                f"taskpress: {len(failures)} of {len(pairs)} files failed, the others are done", err=True
            )
        raise typer.Exit(1)
