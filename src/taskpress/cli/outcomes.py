"""What commands that write many files do about those that are there already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from taskpress.errors import ConfigError

Force = Annotated[bool, typer.Option("--force", help="Replace files that are there already.")]
Skip = Annotated[
    bool,
    typer.Option(
        "--skip", help="Leave out files whose outcome is there already, unless the file was changed since."
    ),
]

Source = TypeVar("Source")


def to_do(
    pairs: Sequence[tuple[Source, Path]], output: Path, force: bool, skip: bool
) -> list[tuple[Source, Path]]:
    """The pairs whose target is to be written; the output folder is there or can be made.

    ConfigError for targets that are there already, unless one of both options says what to do with them, and
    for an output folder that cannot be made or written to. Sources that are newer files than their targets
    are done anew, and counted on standard error.
    """
    there = dict.fromkeys(target for _, target in pairs if os.path.lexists(target))
    if there and not (force or skip):
        first = next(iter(there))
        raise ConfigError(
            f"{first}: is there already ({len(there)} of {len(pairs)} are); choose another folder with -o, "
            "leave out what is there with --skip, or replace it with --force"
        )
    lowest = next(path for path in (output, *output.parents) if os.path.lexists(path))
    if not lowest.is_dir():
        raise ConfigError(f"{output}: cannot be made a folder ({lowest} is a file)")
    if not os.access(lowest, os.W_OK | os.X_OK):
        raise ConfigError(f"{output}: cannot be written to ({lowest} is not yours to write)")
    changed = {target for source, target in pairs if target in there and _is_newer(source, target)}
    if changed and not force:
        typer.echo(f"taskpress: {len(changed)} files were changed since, and are done anew", err=True)
    return [(source, target) for source, target in pairs if force or target not in there or target in changed]


def _is_newer(source: object, target: Path) -> bool:
    try:
        return isinstance(source, Path) and source.stat().st_mtime_ns > target.stat().st_mtime_ns
    except OSError:
        return False
