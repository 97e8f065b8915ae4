"""`-`: standard input in place of a file that is read, standard output in place of one that is written."""

from __future__ import annotations

import sys
from pathlib import Path

from taskpress.coding.files import atomic_write
from taskpress.errors import ConfigError

STANDARD = Path("-")


def called(path: Path) -> str:
    """How errors call a file that is read."""
    return "standard input" if path == STANDARD else str(path)


def standard_input() -> bytes:
    """All of it."""
    return sys.stdin.buffer.read()


def check_pipe(sources: int, as_json: bool, skip: bool) -> None:
    """ConfigError for what does not go with an outcome on standard output."""
    if sources != 1:
        raise ConfigError(f"-o -: one file goes to standard output, not {sources}; name a folder")
    if as_json or skip:
        raise ConfigError(
            f"{'--json' if as_json else '--skip'}: does not go with -o -; leave one of them out"
        )
    if sys.stdout.isatty():
        raise ConfigError(
            "-o -: standard output is a terminal; send it to a file or a program, or name a file"
        )


def write_outcome(target: Path, data: bytes) -> None:
    """A file, whole or not at all, in a folder that is made where it is not there; or standard output."""
    if target == STANDARD:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, data)
